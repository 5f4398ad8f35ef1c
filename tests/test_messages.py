"""Every option, command and key of the config that a message names exists where the message is shown."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from asr_kd.cli import main
from asr_kd.workspace.config_reference import config_schema
from asr_kd.workspace.work import Workspace

PACKAGE = Path(__file__).parents[1] / "asr_kd"
COMMANDS: dict[str, click.Command] = {name: command for name, command in main.commands.items() if not command.hidden}
# the start of a module's name -> the commands that show its messages; of other modules any may
SHOWN_BY = {
    "corpora/openslr.py": ("download",),
    "corpora/transfer.py": ("download",),
    "corpora/": ("prepare",),
    "stages/prepare.py": ("prepare",),
    "stages/check_utterances.py": ("prepare",),
    "stages/language.py": ("prepare", "decode"),  # decode: whether memory suffices for the graph
    "stages/set_cuts.py": ("prepare",),
    "stages/features.py": ("features",),
    "stages/align": ("align",),
    "stages/train": ("train",),
    "stages/soft_targets.py": ("soft-targets", "train"),
    "stages/imported_targets.py": ("soft-targets", "train"),
    "stages/rescore.py": ("decode",),
    "stages/sweep.py": ("sweep",),
    "stages/plan.py": ("plan",),
    "stages/transcribe.py": ("transcribe",),
}
OF_OTHERS = {  # run.sh, pip, uv, Kaldi
    "--timit-dir", "--prompts-dir", "--force-reinstall", "--no-deps", "--python", "--require-hashes", "--per-frame",
    "--ctm-output",
}  # fmt: skip
FILES = re.compile(r"\.(npy|npz|yaml|txt|jsonl|stamp)\b")


class Message(NamedTuple):
    """A string of the source, with {...} for what is filled in."""

    module: str
    line: int
    text: str


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


@cache
def _trees() -> dict[str, ast.Module]:
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def messages() -> Iterator[Message]:
    """All strings but docstrings and the parts of longer ones."""
    for module, tree in sorted(_trees().items()):
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        parts |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) not in parts and (text := _text(node)) and " " in text:
                yield Message(module, node.lineno, text)


def _options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts} | {"--help", "--version"}


def _known_options(message: Message, place: int) -> set[str]:
    """Those that may stand at this place of the text: of the command that is named before it, or that shows it."""
    named = re.findall(r"asr-kd ([a-z][a-z-]+)", message.text[:place])
    if named:
        return _options(COMMANDS[named[-1]])
    shown_by = next((names for module, names in SHOWN_BY.items() if message.module.startswith(module)), tuple(COMMANDS))
    return set().union(*(_options(COMMANDS[name]) for name in shown_by))


def test_options_that_messages_name_exist_on_the_command() -> None:
    seen, unknown = 0, []
    for message in messages():
        for match in re.finditer(r"(?<![\w-])--[a-z][a-z-]+", message.text):
            seen += 1
            if match[0] not in _known_options(message, match.start()) | OF_OTHERS:
                unknown.append((message, match[0]))
    assert unknown == [] and seen > 40


def test_commands_that_messages_name_exist() -> None:
    seen, unknown = 0, []
    for message in messages():
        for name in re.findall(r"\basr-kd ([a-z][a-z-]+)", message.text):
            seen += 1
            if name not in COMMANDS:
                unknown.append((message, name))
    assert unknown == [] and seen > 10


def _advised() -> Iterator[Message]:
    """What stands in Workspace.command(...) and require(..., ..., ...)."""
    for module, tree in _trees().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or module in ("cli.py", "standalone.py", "commands.py"):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            argument = {"command": 0, "require": 2}.get(name, len(node.args))
            if argument < len(node.args) and (text := _text(node.args[argument])):
                yield Message(module, node.lineno, text)


@pytest.mark.parametrize("message", list(_advised()), ids=lambda message: f"{message.module}:{message.line}")
def test_a_command_that_is_advised_can_be_run_as_it_stands(message: Message, tmp_path: Path) -> None:
    """No option is unknown, and none that is needed is missing."""
    work = Workspace(tmp_path, tmp_path / "elsewhere" / "a.yaml")
    program, name, *arguments = shlex.split(
        work.command(message.text.replace("{}", "x=y" if "add-set" in message.text else "x"))
    )
    assert program == "asr-kd"
    COMMANDS[name].make_context(name, arguments)


def _keys(schema: dict[str, Any], definition: dict[str, Any], place: str = "") -> Iterator[str]:
    for key, value in definition.get("properties", {}).items():
        yield f"{place}{key}"
        yield from _keys_below(schema, value, f"{place}{key}.")


def _keys_below(schema: dict[str, Any], value: Any, place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        return
    if "$ref" in value:
        yield from _keys(schema, schema["$defs"][value["$ref"].rpartition("/")[2]], place)
    for option in value.get("anyOf", []):
        yield from _keys_below(schema, option, place)
    yield from _keys_below(schema, value.get("items"), place)
    yield from _keys_below(schema, value.get("additionalProperties"), f"{place}{{}}.")


def test_keys_of_the_config_that_messages_name_exist() -> None:
    schema = config_schema()
    known = set(_keys(schema, schema))
    known |= {key.removeprefix("systems.{}.") for key in known}  # below a system that the message names
    key = re.compile(
        r"(?<![\w./{])((?:corpus|lang|features|alignment|systems|targets|training|decoding|evaluation)(?:\.(?:[a-z_]+|\{\}))+)"
    )
    seen, unknown = 0, []
    for message in messages():
        for name in key.findall(FILES.sub("", message.text)):
            seen += 1
            name = re.sub(r"^systems\.[a-z]+\.", "systems.{}.", name)  # an example names a system
            if name not in known and not name.endswith(".{}"):
                unknown.append((message, name))
    assert unknown == [] and seen > 40
