"""What settings are made of: strict, frozen dataclasses checked by pydantic, and values chosen by name from a registry.

Each package owns the settings that it is configured by; `asr_kd.workspace.config` puts them together.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

import pydantic
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

STRICT = ConfigDict(strict=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
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
    def settings(self) -> type[Any]:
        """The class of its settings."""


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
        return tuple(dict.fromkeys(entry.settings for entry in self.registry.values()))

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"oneOf": [TypeAdapter(cls).json_schema() for cls in self.classes]}

    def validate(self, value: Any) -> Any:
        """An instance of a registered class as it is; a mapping as an instance of the class that it names."""
        if isinstance(value, self.classes):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError("dict_type", "expected a mapping of settings")
        name = value.get(self.key, self.default)
        if not isinstance(name, str) or name not in self.registry:
            known = ", ".join(map(repr, self.registry))
            raise PydanticCustomError(
                NESTED,
                "{message}",
                {"message": f"must be one of {known}, not {name!r}", "inner": [self.key]},
            )
        try:
            return TypeAdapter(self.registry[name].settings).validate_json(json.dumps({self.key: name, **value}))
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise PydanticCustomError(
                NESTED,
                "{message}",
                {"message": error_message(first, self.registry[name].settings), "inner": list(first["loc"])},
            ) from None


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


def error_message(error: Any, cls: type[Any] | None = None) -> str:
    """One of pydantic's errors as the end of a sentence that begins with the key.

    Args:
      error: an entry of `ValidationError.errors()`.
      cls: whose keys are known where an unknown one was found.
    """
    kind, context, given = error["type"], error.get("ctx", {}), error.get("input")
    if kind == NESTED:
        return str(context["message"])
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = f"; known here: {', '.join(keys_of(cls))}" if cls is not None else ""
        return f"unknown key {error['loc'][-1]!r}{known}"
    if kind in ("dataclass_type", "dict_type", "model_type"):
        return f"expected a mapping of settings, found {given!r}"
    if kind in ("tuple_type", "list_type"):
        return f"must be a list, not {given!r}"
    if kind in _TYPES:
        advice = " (YAML reads 1e-3 as text: write 1.0e-3)" if kind == "float_type" and isinstance(given, str) else ""
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
