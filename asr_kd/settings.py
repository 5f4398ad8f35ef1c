"""What settings are made of: strict, frozen dataclasses checked by pydantic, and values chosen by name from a registry.

Each package owns the settings that it is configured by; `asr_kd.workspace.config` puts them together.
"""

from __future__ import annotations

import dataclasses
import json
import pkgutil
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Protocol, Union, get_args, get_origin

import pydantic
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

STRICT = ConfigDict(strict=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=10**15)]  # a thousand times as much, for members, must fit into 64 bits
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Dropout = Annotated[float, Field(ge=0, le=0.99)]

COSMETIC = {"affects_result": False}  # metadata of a field that no artefact depends on
NESTED = "nested"  # the type of a pydantic error that `ChosenByName` raises; its context has the location inside


class Entry(Protocol):
    """What a registry holds for each name."""

    @property
    def settings(self) -> type[Any] | str:
        """The class of its settings, or where that is: "module:name"."""


def settings_class(entry: Entry) -> type[Any]:
    """The class of an entry's settings, whose module is loaded if it must be."""
    named = entry.settings
    cls: type[Any] = pkgutil.resolve_name(named) if isinstance(named, str) else named
    return cls


@dataclasses.dataclass(frozen=True)
class ChosenByName:
    """Annotation of a field whose class is looked up in a registry by one of its keys, when it is validated.

    So a new kind of thing needs an entry in its registry and no change of the config.

    >>> from types import SimpleNamespace
    >>> from pydantic.dataclasses import dataclass
    >>> @dataclass(frozen=True, config=STRICT)
    ... class Square:
    ...     kind: str = "square"
    ...     side: Positive = 1.0
    >>> shapes = {"square": SimpleNamespace(settings=Square)}
    >>> Shape = Annotated[Square, ChosenByName(shapes, key="kind", default="square")]
    >>> TypeAdapter(Shape).validate_python({"side": 2.0})
    Square(kind='square', side=2.0)
    """

    registry: Mapping[str, Entry]
    key: str
    default: str

    @property
    def classes(self) -> tuple[type[Any], ...]:
        return tuple(dict.fromkeys(map(settings_class, self.registry.values())))

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"anyOf": [handler(cls.__pydantic_core_schema__) for cls in self.classes]}

    def validate(self, value: Any) -> Any:
        """An instance of a registered class as it is; a mapping as an instance of the class that it names."""
        if not isinstance(value, Mapping):
            if isinstance(value, self.classes):
                return value
            raise PydanticCustomError(
                NESTED, "{message}", {"message": f"expected a mapping of settings, not {value!r}"}
            )
        name = value.get(self.key, self.default)
        if not isinstance(name, str) or name not in self.registry:
            known = ", ".join(map(repr, self.registry))
            raise PydanticCustomError(
                NESTED,
                "{message}",
                {"message": f"must be one of {known}, not {name!r}", "inner": [self.key]},
            )
        settings = settings_class(self.registry[name])
        try:
            data = json.dumps({self.key: name, **value})
            return TypeAdapter(settings).validate_json(data, by_alias=True, by_name=False)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            context = {"message": _message(first, settings), "inner": list(first["loc"])}
            raise PydanticCustomError(NESTED, "{message}", context) from None


def to_mapping(value: Any, *, changed_only: bool = False) -> Any:
    """Settings as plain data (dicts, lists, numbers, strings), from which the same settings are read back.

    Args:
      changed_only: leave out what equals its default and what no result depends on, as stamps do.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        entries = {}
        for field in dataclasses.fields(value):
            entry = getattr(value, field.name)
            if changed_only and (_is_default(field, entry) or not field.metadata.get("affects_result", True)):
                continue
            entries[alias_of(type(value), field.name)] = to_mapping(entry, changed_only=changed_only)
        return entries
    if isinstance(value, Mapping):
        return {key: to_mapping(entry, changed_only=changed_only) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_mapping(entry, changed_only=changed_only) for entry in value]
    return value


def alias_of(cls: type[Any], name: str) -> str:
    """The key by which a config file calls a field."""
    info = getattr(cls, "__pydantic_fields__", {}).get(name)
    return info.alias if info is not None and info.alias else name


def keys_of(cls: type[Any]) -> list[str]:
    """The keys that a config file may have where `cls` is expected, sorted."""
    return sorted(alias_of(cls, field.name) for field in dataclasses.fields(cls))


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.name in ("kind", "name"):  # what a class is chosen by says what the rest means
        return False
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if isinstance(default, pydantic.fields.FieldInfo):
        default = default.get_default(call_default_factory=True)
    return bool(default == value)


def dotted(location: Iterable[str | int]) -> str:
    """A place in a config, as messages write it.

    >>> dotted(["compare", 0, "teacher"])
    'compare[0].teacher'
    """
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def first_error(error: pydantic.ValidationError, cls: type[Any]) -> str:
    """The first thing that is wrong with settings of class `cls`, as a sentence that begins with its key."""
    first = error.errors(include_url=False)[0]
    message = _message(first, cls)
    location = [part for part in (*first["loc"], *first.get("ctx", {}).get("inner", ())) if part != "__root__"]
    if message.startswith("unknown key"):
        location.pop()
    between = "" if not location else " " if message.startswith(("must ", "is missing")) else ": "
    return f"{dotted(location)}{between}{message}"


def _message(error: Any, cls: type[Any]) -> str:
    """One of pydantic's errors as the end of a sentence that begins with the key."""
    kind, context, given = error["type"], error.get("ctx", {}), error.get("input")
    if kind == NESTED:
        return str(context["message"])
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        *above, key = error["loc"]
        known = class_at(cls, above)
        return f"unknown key {key!r}" + (f"; known here: {', '.join(keys_of(known))}" if known is not None else "")
    if kind in ("dataclass_type", "dict_type", "model_type"):
        return f"expected a mapping of settings, not {given!r}"
    if kind in ("tuple_type", "list_type"):
        return f"must be a list, not {given!r}"
    if kind == "too_short":
        return "must not be empty"
    if kind in _TYPES:
        is_like_number = isinstance(given, str) and given.lstrip("+-")[:1].isdigit()
        advice = " (quotes, leading zeros and colons make it text)" if is_like_number else ""
        return f"must be {_TYPES[kind]}, not {given!r}{advice}"
    if kind in _BOUNDS:
        return f"must be {_BOUNDS[kind]} {next(iter(context.values())):g}, not {given!r}"
    if kind == "literal_error":
        return f"must be one of {context['expected'].replace(' or ', ', ')}, not {given!r}"
    if kind == "value_error":
        return str(context["error"])
    if kind in ("missing", "missing_argument"):
        return "is missing"
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}, not {given!r}"


def class_at(annotation: Any, location: Iterable[str | int]) -> type[Any] | None:
    """The settings class at a place inside a type (a settings class, or lists and mappings of them); None: no class."""
    for part in location:
        annotation = _class_in(annotation)
        fields = getattr(annotation, "__pydantic_fields__", {})
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        elif get_origin(annotation) in (tuple, list):
            annotation = get_args(annotation)[0]
        else:
            annotation = next((info.annotation for name, info in fields.items() if part in (name, info.alias)), None)
    annotation = _class_in(annotation)
    return annotation if dataclasses.is_dataclass(annotation) and isinstance(annotation, type) else None


def _class_in(annotation: Any) -> Any:
    """`X` for `X | None` and for `Annotated[X, ...]`."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = get_args(annotation)[0]
    return annotation


_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
}
_BOUNDS = {
    "greater_than_equal": "at least",
    "greater_than": "above",
    "less_than_equal": "at most",
    "less_than": "below",
}
