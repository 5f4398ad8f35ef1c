"""Commands and settings that documents show exist, with all that they need.

The commands run in test_shell_commands.py, Python and YAML in test_code_blocks.py.
"""

import dataclasses
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from asr_kd.cli import main
from asr_kd.commands import EXAMPLES
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import from_mapping
from asr_kd.workspace.config_reference import config_schema

ROOT = Path(__file__).parents[1]
RECIPES = sorted(ROOT.glob("recipes/*/README.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *RECIPES]
DOCUMENTS += sorted(ROOT.glob("recipes/*/RESULTS.md"))
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
ELSEWHERE = {"held_out", "snip_edges"}  # keys of the digits' configs and of Kaldi's


def commands(path: Path, program: str = "asr-kd ") -> list[str]:
    """Lines of a document that begin with a program, without their comments."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^ {{4,}}((?:[A-Z_]+=\S+ )*{program}.*?)(?:\s+#.*)?$", text, re.MULTILINE)


@every_document
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


@every_document
def test_scripts_of_recipes_take_the_options_that_documents_show(path: Path, tmp_path: Path) -> None:
    for line in commands(path, r"recipes/\w+/run\.sh"):
        words = [word for word in shlex.split(line.replace("--config ...", "")) if word != "..." and "=" not in word]
        script, *options = words
        last = ["--work-dir", str(tmp_path), "--stage", "9", "--stop-stage", "8"]  # none
        done = subprocess.run([ROOT / script, *options, *last], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)


@every_document
def test_targets_of_make_that_documents_name_are_there(path: Path) -> None:
    """And `make --dry-run` says what each would run.

    `make demo` itself is too long for a test: a quarter of an hour. Its two scripts run in tests/test_prompts_recipe.py
    and tests/recipes/mnist, on stand-ins.
    """
    text = path.read_text(encoding="utf-8")
    spans = re.findall(r"`(make [^`]+)`", text)
    comments = re.findall(r"^ {4,}.*?#.*?\b(make [a-z-]+)", text, re.MULTILINE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    for line in {*commands(path, "make "), *spans, *comments}:
        dry_run = [*shlex.split(line), "--dry-run"]
        done = subprocess.run(dry_run, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stdout, (line, done.stderr)


@every_document
def test_other_programs_of_the_repository_exist_with_their_options(path: Path) -> None:
    for line in commands(path, "python (?:benchmarks|recipes)/"):
        _, script, *arguments = shlex.split(line)
        assert (ROOT / script).is_file(), line
        source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / script).parent.rglob("*.py"))
        assert all(f'"{word}"' in source for word in arguments if word.startswith("--")), line


@every_document
def test_settings_that_documents_show_are_settings(path: Path) -> None:
    fields = {field.name for field in dataclasses.fields(Config)}
    properties = set(re.findall(r'"([a-z_]+)": \{', json.dumps(config_schema())))
    text = path.read_text(encoding="utf-8")
    for span in re.findall(r"(?<!`)`([a-z_]+: [^`]+)`(?!`)", text):
        shown = " ".join(span.split())
        key = shown.partition(":")[0]
        if key in fields:
            from_mapping(Config, yaml.safe_load(shown), f"{path.name}: {shown}")
        else:
            assert key in properties | ELSEWHERE, (path.name, shown)


def test_there_are_such_commands_and_settings() -> None:
    assert len(commands(ROOT / "docs" / "own-speech.md")) >= 4
    assert len(commands(ROOT / "recipes" / "librispeech" / "README.md", r"recipes/\w+/run\.sh")) >= 5
    assert "`alignment: {" in (ROOT / "docs" / "quick-start.md").read_text(encoding="utf-8")
