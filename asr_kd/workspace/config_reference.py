"""All keys of a config: as a JSON schema for editors, and as the page docs/config.md.

A key's meaning is written once, in the comment beside its field; it is read from the source.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from asr_kd.settings import alias_of
from asr_kd.workspace.config import Config

_BASE = "a config that this one extends, relative to it; the keys of this one win, mappings are merged key by key"


def config_schema() -> dict[str, Any]:
    """The JSON schema of a config file."""
    schema = TypeAdapter(Config).json_schema(schema_generator=_DescribedByComments)
    schema["properties"] = {"base": {"type": "string", "description": _BASE}, **schema["properties"]}
    _share(schema["properties"], schema["$defs"])
    _share(schema["$defs"], schema["$defs"])
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "asr_kd config"}


def _share(node: Any, definitions: dict[str, Any]) -> None:
    """Moves classes that are written out as one of several choices to the definitions."""
    for value in list(node.values() if isinstance(node, dict) else node):
        if isinstance(value, (dict, list)):
            _share(value, definitions)
    for number, option in enumerate(node.get("anyOf", ()) if isinstance(node, dict) else ()):
        if "properties" in option:
            definitions[option["title"]] = option
            node["anyOf"][number] = {"$ref": f"#/$defs/{option['title']}"}


class _DescribedByComments(GenerateJsonSchema):
    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> dict[str, Any]:
        result = super().dataclass_schema(schema)
        for name, comment in field_comments(schema["cls"]).items():
            if (key := alias_of(schema["cls"], name)) in result.get("properties", {}):
                result["properties"][key]["description"] = comment
        return result

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def field_comments(cls: type[Any]) -> dict[str, str]:
    """The comment above each field of a class, or at the end of its line; those of the classes above it too."""
    comments = {}
    for owner in reversed(cls.__mro__[:-1]):
        source = textwrap.dedent(inspect.getsource(owner))
        lines = source.splitlines()
        texts = {
            token.start[0]: (token.string.removeprefix("#").strip(), lines[token.start[0] - 1].lstrip().startswith("#"))
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        (definition,) = ast.parse(source).body
        assert isinstance(definition, ast.ClassDef)
        for node in definition.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                parts: list[str] = []
                row = node.lineno - 1
                while row in texts and texts[row][1]:
                    parts.insert(0, texts[row][0])
                    row -= 1
                parts += [texts[row][0] for row in range(node.lineno, (node.end_lineno or 0) + 1) if row in texts]
                if text := " ".join(part for part in parts if not part.startswith("fmt:")):
                    comments[node.target.id] = text
    return comments


def config_reference() -> str:
    """The page of all keys, in Markdown."""
    schema = config_schema()
    lines = [
        "# All keys of a config",
        "",
        "Made by `make docs` from the comments in the classes of settings. "
        "`asr-kd config --show` prints a config with all defaults; `asr-kd config --schema` prints the JSON schema, "
        "by which an editor completes and checks keys.",
    ]
    headings: dict[str, str] = {}  # of the definitions that have one
    waiting = [("", "The file", schema)]
    while waiting:
        place, heading, definition = waiting.pop(0)
        lines += ["", f"## {heading}", "", definition.get("description", ""), ""]
        lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
        for key, value in definition["properties"].items():
            inner = list(_classes(value, f"{place}.{key}".lstrip(".")))
            links: list[str] = []
            for path, reference in inner:
                name = reference.rpartition("/")[2]
                if name not in headings:
                    headings[name] = _heading(path, schema["$defs"][name])
                    waiting.append((path, headings[name], schema["$defs"][name]))
                links.append(f"[{headings[name]}](#{_anchor(headings[name])})")
            default = "" if inner or "default" not in value else f"`{json.dumps(value['default'])}`"
            meaning = "; ".join([*([value["description"]] if "description" in value else []), *links])
            lines.append(f"| `{key}` | {_type(value)} | {default} | {_cell(meaning)} |")
    return "\n".join(lines) + "\n"


def _classes(value: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """(path, reference) of the settings classes that a key's value is made of."""
    if "$ref" in value:
        yield path, value["$ref"]
    for option in value.get("anyOf", ()):
        yield from _classes(option, path)
    if isinstance(value.get("items"), dict):
        yield from _classes(value["items"], f"{path}[]")
    if isinstance(value.get("additionalProperties"), dict):
        yield from _classes(value["additionalProperties"], f"{path}.NAME")


def _heading(path: str, definition: dict[str, Any]) -> str:
    """The place of a class; where it is chosen by a key, the place's name and that key."""
    chosen = next(
        (f"{key}: {value['const']}" for key, value in definition["properties"].items() if "const" in value), ""
    )
    return f"{path.rpartition('.')[2]} ({chosen})" if chosen else path


def _type(value: dict[str, Any]) -> str:
    options = value.get("anyOf", [])
    if options:
        names = ("`null`" if option.get("type") == "null" else _type(option) for option in options)
        return " or ".join(dict.fromkeys(names))
    if "const" in value or "enum" in value:
        return ", ".join(f"`{entry}`" for entry in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        return f"list of {_type(value['items'])}"
    kind = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`"}.get(
        value.get("type", ""), "mapping"
    )
    bounds = (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"))
    return ", ".join([kind, *(f"{words} {value[key]:g}" for key, words in bounds if key in value)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _anchor(heading: str) -> str:
    """Returns the anchor of a heading, as GitHub makes it."""
    return "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")
