"""YAML as a user writes it: scalars as in YAML 1.2, no key twice, and a file may extend another (`base:`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from asr_kd.errors import UserError

BASE = "base"


class _DoubledKeyError(yaml.YAMLError):
    """A mapping has a key twice."""


class _Loader(yaml.SafeLoader):
    """PyYAML silently keeps the last value of a key; here a doubled key is an error.

    Nor does it take a scalar for anything but what it looks like. PyYAML follows YAML 1.1, where 010 is 8, 1:30 is 90,
    no is false and 1e-3 is a word. As in the core schema of YAML 1.2 the last is a number here and the others are
    words; so a setting that is a number refuses them. Unlike there, _ may group digits, and 0x1F is a word too.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in seen:
                raise _DoubledKeyError(f"{key.value!r} in line {line} stands in line {seen[key.value]} already")
            seen[key.value] = line
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what either YAML 1.1 or `_Loader` would take for another type."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Escapes the line separators of Unicode: PyYAML else writes them as they are, and reads U+0085 as a space."""
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)
_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    "float": (
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}
_Loader.yaml_implicit_resolvers = {}  # none of PyYAML's
for _name, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first)


def dump_yaml(data: Any, **options: Any) -> str:
    """YAML that `load_yaml` reads as the same plain data; so do readers of YAML 1.1."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, **options)
    return text


def load_yaml(path: Path) -> Any:
    """Plain data; an empty file is an empty mapping.

    Raises:
      UserError: the file cannot be read, is not YAML, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: the config cannot be read ({error.strerror}); give one with --config.") from None
    except ValueError:
        raise UserError(f"{path}: this is not YAML: it is not UTF-8 text.") from None
    raw = parse_yaml(text, str(path))
    return {} if raw is None else raw


def parse_yaml(text: str, where: str) -> Any:
    """Plain data; raises UserError that begins with `where` where the text is not YAML, or has a key twice."""
    try:
        return yaml.load(text, _Loader)
    except _DoubledKeyError as error:
        raise UserError(f"{where}: {error}; delete one of them.") from None
    except RecursionError:
        raise UserError(f"{where}: lists or mappings are nested too deeply; no setting is that deep.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise UserError(f"{where}: this is not YAML: {' '.join(str(error).split())}.") from None


def load_with_bases(path: Path) -> Any:
    """The file's data over those of the file that its key `base` names, relative to it, and so on.

    Mappings are merged key by key; of anything else the extending file's value counts. A key set to null is
    removed, so that its default counts again.

    Raises:
      UserError: as `load_yaml`; or files extend each other in a circle.
    """
    return _load_over(path, ())


def _load_over(path: Path, extending: tuple[Path, ...]) -> Any:
    if path.resolve() in extending:
        raise UserError(f"{extending[-1]}: base: {path} extends it in turn; take one of the two lines out.")
    raw = load_yaml(path)
    if not isinstance(raw, dict) or BASE not in raw:
        return raw
    name = raw.pop(BASE)
    if not isinstance(name, str):
        raise UserError(f"{path}: base must be the name of a config file, not {name!r}.")
    if not (path.parent / name).is_file():
        raise UserError(f"{path}: base: there is no file {path.parent / name}.")
    below = _load_over(path.parent / name, (*extending, path.resolve()))
    if not isinstance(below, dict):
        raise UserError(f"{path.parent / name}: expected a mapping of settings, not {below!r}.")
    return merged(below, raw)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`.

    >>> merged({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"y": 5}, "b": None})
    {'a': {'x': 1, 'y': 5}}
    """
    result = dict(below)
    for key, value in above.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result
