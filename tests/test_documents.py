"""Commands that documents show are commands: their names and options exist, and nothing that is needed is left out."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from asr_kd.cli import main
from asr_kd.commands import EXAMPLES

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("recipes/*/README.md"))]


def commands(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^ {4,}(asr-kd .*?)(?:\s#.*)?$", text, re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_documents_can_be_typed(path: Path) -> None:
    for line in commands(path):
        name, *arguments = shlex.split(line)[1:]
        assert name in main.commands, line
        main.commands[name].make_context(name, arguments)  # raises click.UsageError


def test_help_lists_every_command_with_an_example() -> None:
    examples = {name: line for group in EXAMPLES.values() for name, line in group.items()}
    assert set(examples) == {name for name, command in main.commands.items() if not command.hidden}
    listed = CliRunner().invoke(main, ["--help"]).output
    for name, line in examples.items():
        assert re.search(rf"^  {name} ", listed, re.MULTILINE)
        said = " ".join(CliRunner().invoke(main, [name, "--help"]).output.split())
        assert said.endswith(f"Example: {line}")
        program, named, *arguments = shlex.split(line)
        assert (program, named) == ("asr-kd", name)
        main.commands[name].make_context(name, arguments)


def test_there_are_such_commands() -> None:
    assert len(commands(ROOT / "docs" / "own-speech.md")) >= 5
