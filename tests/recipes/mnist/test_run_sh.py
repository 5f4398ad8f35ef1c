"""recipes/mnist/run.sh and run.py, as README.md calls them, on made-up digits and with small configs."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from ... import test_documents
from ...typed import noted, shim
from .conftest import RECIPE

TRAINING = {"epochs": 4, "batch_size": 30, "learning_rate": 5.0e-3}
SOFT = {"temperature": 4.0, "training": TRAINING}
QUICK = {
    "seeds": 1,
    "experiments": ["teacher", "hard", "distilled", "no3s"],
    "teacher": {"members": 1, "model": {"layers": 1, "width": 48}, "training": TRAINING},
    "small": {"layers": 1, "width": 24},
    "hard": TRAINING,
    "distilled": SOFT,
    "biased": SOFT,
}
PAPER = {
    "base": "quick.yaml",
    "experiments": [*QUICK["experiments"], "temperatures"],
    "temperatures": {"temperatures": [2.0, 8.0], "widths": [24], "training": TRAINING},
}


@pytest.fixture
def run_py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> click.Group:
    """The commands of run.py in a clone, which is the current folder, with small configs."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RECIPE.parents[1] / "local", "local")
    conf = Path("recipes/mnist/conf")
    conf.mkdir(parents=True)
    for name in ("run.sh", "run.py"):
        shutil.copy(RECIPE / name, conf.parent)
    for name, config in {"quick": QUICK, "paper": PAPER}.items():
        (conf / f"{name}.yaml").write_text(yaml.safe_dump(config))
    spec = importlib.util.spec_from_file_location("mnist_run", tmp_path / "recipes/mnist/run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: click.Group = module.main
    return main


def typed(line: str, main: click.Group, root: Path) -> str:
    """Runs a line whose Python programs run in this process: there the digits' sums are known."""
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, env=shim(root, "python"), check=False)
    assert done.returncode == 0, (line, done.stderr)
    printed = ""
    for program, *arguments in noted(root):
        assert program == "recipes/mnist/run.py"
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert result.exit_code == 0, (line, result.output)
        printed += result.output
    return printed


def test_the_lines_of_the_readme_run(run_py: click.Group, made_up_mnist: Path, tmp_path: Path) -> None:
    Path("DIR").symlink_to(made_up_mnist)
    lines = test_documents.commands(RECIPE / "README.md", r"(?:python )?recipes/mnist/run\.\w+")
    (from_copy,) = [line for line in lines if "--mnist-dir DIR" in line]
    assert len(lines) == 4 and "MNIST, DIR\n" in typed(from_copy, run_py, tmp_path)
    for line in lines:
        said = typed(line, run_py, tmp_path)
        assert "MNIST, fetched before\n" in said or line.startswith("python")
    for name, count in (("quick", 4), ("paper", 5)):
        root = Path("recipes/mnist/exp") / name
        assert (root / "report" / "index.html").exists()
        assert len(list((root / "results").glob("*/result.json"))) == count
        assert "missing" not in json.loads((root / "section.json").read_text())


def test_digits_that_are_not_mnists_end_the_script_with_a_sentence(made_up_mnist: Path, tmp_path: Path) -> None:
    """In a process of its own, which knows the sums of MNIST alone."""
    command = [RECIPE / "run.sh", "--mnist-dir", made_up_mnist, "--work-dir", tmp_path]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and "is not MNIST's file (its SHA-256 differs)" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "exp").exists()
