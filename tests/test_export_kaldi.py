"""`asr-kd export --format kaldi`: the folder alone gives the words of our own search with kaldi-decoder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from asr_kd.alignment.tree import read_tree
from asr_kd.cli import main
from asr_kd.stages.decode_context import decode_context
from asr_kd.stages.decode_worker import Loaded, loglikes_of
from asr_kd.stages.export_search import words_search
from asr_kd.workspace.config_files import load_config
from asr_kd.workspace.work import Workspace

from .export.test_kaldi import read_tables
from .recipe import arguments, finished_recipe

ALONE = "import sys\nsys.modules['asr_kd'] = None  # cannot be imported\n"
FROM_ONNX = """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
for features in sys.argv[2:]:
    print(features, recognise(session.run(["log_posteriors"], {"features": np.load(features)})[0]))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return finished_recipe(tmp_path_factory)


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kaldi") / "out"
    result = export(config, "distilled", str(folder), "--format", "kaldi")
    assert result.exit_code == 0, result.output
    return folder


def export(config: Path, *options: str) -> Result:
    return CliRunner().invoke(main, arguments(config, ["export", *options]), catch_exceptions=False)


def run_alone(script: str, folder: Path, files: list[Path]) -> list[str]:
    """The words that a script prints of each file but the first, without this package."""
    command = [sys.executable, "-c", ALONE + script, *map(str, files)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert ended.returncode == 0, ended.stderr
    return [line.partition(" ")[2] for line in ended.stdout.splitlines()]


def test_the_example_of_the_readme_finds_our_own_words(config, folder, tmp_path):
    files = {"README.md", "HCLG.fst", "words.txt", "log_priors.txt", "tree.txt", "phones.txt", "lexicon.txt"}
    assert {path.name for path in folder.iterdir()} == files | {"stamp.json"}

    work = Workspace(config.parent.parent, config)
    search = words_search(decode_context(load_config(config), work, ("dev", "test"), "kaldi", 1), "distilled")
    store, loaded, settings = search.context.stores["test"], Loaded(), search.settings
    prior_scale = settings.decoding.prior_scale
    normalised = [store.normalised(number) for number in range(len(store.ids))]
    loglikes = [loglikes_of(loaded, search.model, each, prior_scale) for each in normalised]
    own = [" ".join(h.words) for h in loaded.decoder(search.model.graph, settings).decode(loglikes)]
    assert search.errors("test", [words.split() for words in own]) < 0.2

    example = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    posteriors = ["export-posteriors", "distilled", str(tmp_path / "posteriors"), "--set", "test", "--device", "cpu"]
    assert CliRunner().invoke(main, arguments(config, posteriors)).exit_code == 0
    npz = [tmp_path / "posteriors" / f"{name}.npz" for name in store.ids]
    assert run_alone(example, folder, npz) == own

    result = export(config, "distilled", str(tmp_path / "onnx"), "--no-measure", "--precision", "float32")
    assert result.exit_code == 0
    features = [tmp_path / f"{name}.npy" for name in store.ids]
    for number, file in enumerate(features):
        np.save(file, store.features[store.span(number)].astype(np.float32))
    function = example[: example.index("\nfor name in sys.argv")]
    assert run_alone(function + FROM_ONNX, folder, [tmp_path / "onnx" / "model.onnx", *features]) == own


def test_tree_and_lexicon_are_the_recipes(config, folder):
    tree = read_tree(config.parent.parent / "exp" / "tree")
    assert (read_tables(folder) == tree.tables).all()
    assert (folder / "lexicon.txt").read_text().splitlines()[:2] == ["BA B AA", "BASI B AA S IY"]
    assert (folder / "words.txt").read_text().splitlines()[:3] == ["<eps> 0", "BA 1", "BASI 2"]


def test_it_needs_no_package_of_the_extra(config, tmp_path):
    script = "\n".join(
        [
            "import sys",
            "for name in ('onnx', 'onnxruntime', 'sherpa_onnx'): sys.modules[name] = None",
            "from asr_kd.cli import main",
            "main(sys.argv[1:])",
        ]
    )
    options = arguments(config, ["export", "direct", str(tmp_path / "out"), "--format", "kaldi"])
    ended = subprocess.run([sys.executable, "-c", script, *options], capture_output=True, text=True)
    assert ended.returncode == 0 and "exported to" in ended.stdout, ended.stderr


def test_a_second_export_does_nothing_and_what_is_not_ours_stays(config, folder, tmp_path):
    again = export(config, "distilled", str(folder), "--format", "kaldi")
    assert again.exit_code == 0 and "already in" in again.output
    copy = tmp_path / "out"
    shutil.copytree(folder, copy)
    (copy / "model.onnx").write_bytes(b"keep")  # is of another export
    refused = export(config, "direct", str(copy), "--format", "kaldi")
    assert refused.exit_code == 2 and "holds other files (model.onnx)" in refused.output
    for option in (["--streaming"], ["--chunk", "3"], ["--set", "dev"], ["--precision", "int8"]):
        refused = export(config, "distilled", str(folder), "--format", "kaldi", *option)
        assert refused.exit_code == 2 and f"{option[0]} is for --format" in refused.output
