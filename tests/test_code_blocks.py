"""The Python that documents show runs, on a small recipe that has run; the YAML is taken by what reads it."""

from __future__ import annotations

import re
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import asr_kd
from asr_kd.frames.store import FrameStore
from asr_kd.stages.new import new_recipe
from asr_kd.workspace.config_files import load_config
from asr_kd.workspace.queues import open_queue

from .recipe import RATE, finished_recipe, run

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("recipes/*/README.md"))]
BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
    for path in DOCUMENTS
    if path.name != "extend.md"  # whose code test_registries.py puts in its place
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S))
]

YAML = {
    str(path.relative_to(ROOT)): blocks
    for path in DOCUMENTS
    if path.name != "extend.md"
    and (blocks := re.findall(r"^```yaml\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S))
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current folder of somebody who has run the commands beside the blocks."""
    config, here = finished_recipe(tmp_path_factory), tmp_path_factory.mktemp("reader")
    (here / "recipes").mkdir()
    (here / "recipes" / "prompts").symlink_to(config.parent.parent)
    onnx = ["--precision", "float32", "--set", "dev"]
    run(
        config,
        [
            ["export", "distilled", str(here / "phone"), "--format", "recogniser"],
            ["export", "distilled", str(here / "out"), *onnx],
            ["export", "distilled", str(here / "out-streaming"), "--streaming", *onnx],
        ],
    )
    samples, _ = soundfile.read(config.parent.parent / "corpus" / "test" / "test00.wav", dtype="float32")
    soundfile.write(here / "call.mp3", samples, RATE, format="MP3")
    sounds = here / "recipes" / "prompts" / "download" / "sounds"
    sounds.mkdir(parents=True, exist_ok=True)
    soundfile.write(sounds / "confbridge-only-one.wav", samples, RATE)
    return here


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_python_in_documents_runs(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    samples, _ = soundfile.read("recipes/prompts/corpus/test/test00.wav", dtype="float32")
    features = FrameStore.open(Path("recipes/prompts/data/frames/dev")).normalised(0)
    names: dict[str, Any] = {
        "features": features,
        "samples": samples,
        "chunks": np.split(features, range(20, len(features), 20)),
        "blocks": np.split(samples, range(800, len(samples), 800)),
    }
    exec(compile(block, "document", "exec"), names)
    if "Fbank(" in block:
        np.testing.assert_allclose(names["features"], asr_kd.fbank(samples[None], RATE, 40), rtol=1e-5, atol=1e-5)
    scores = names.get("log_posteriors")
    assert scores is None or np.isfinite(np.asarray(scores)).all()


def test_there_are_such_blocks() -> None:
    assert len(BLOCKS) >= 4
    assert YAML.keys() == {"README.md", "docs/cluster.md"}


def test_the_config_of_the_readme_is_one(tmp_path: Path) -> None:
    (block,) = YAML["README.md"]
    (tmp_path / "config.yaml").write_text("corpus: {name: folder}\n" + block)
    config = load_config(tmp_path / "config.yaml")
    assert config.systems["distilled"].targets is not None and config.compare[0].teacher == "teacher"


def test_speech_without_transcripts_is_a_few_lines_in_the_recipe_of_own_speech(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "own-speech.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^and name it in the config:\n\n((?: {4}.*\n)+)", text, re.MULTILINE)
    new_recipe(tmp_path / "ukrainian", "folder", "uk")
    conf = tmp_path / "ukrainian" / "conf"
    (conf / "more.yaml").write_text("base: config.yaml\n" + textwrap.dedent(block))
    before, after = load_config(conf / "config.yaml"), load_config(conf / "more.yaml")
    targets = before.systems["distilled"].targets
    assert targets is not None
    distilled = replace(before.systems["distilled"], targets=replace(targets, extra=("more",)))
    systems = before.systems | {"distilled": distilled}
    assert after == replace(before, systems=systems, untranscribed=after.untranscribed)
    assert after.untranscribed["more"].parts == ("more",)


@pytest.mark.slow
def test_the_options_of_a_queue_reach_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as sbatch, which only notes what it is given."""
    (tmp_path / "slurm.yaml").write_text(*YAML["docs/cluster.md"])
    for name, script in {
        "sbatch": f'cat "$1" >>{tmp_path}/submitted; echo Submitted batch job 7',
        "scancel": "",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.chdir(tmp_path)
    with open_queue("slurm", tmp_path / "slurm.yaml", None) as queue:
        end = time.monotonic() + 60
        while (jobs := _submitted(tmp_path).count("#SBATCH -p long\n")) < 16 and time.monotonic() < end:
            time.sleep(0.05)
        assert jobs == queue.jobs == 16 and not queue.refused
    for option in ("-t 04:00:00", "--mem=6G", "--cpus-per-task=1", "--exclusive=user"):
        assert _submitted(tmp_path).count(f"#SBATCH {option}\n") == 16, option
    assert (tmp_path / "logs").is_dir()


def _submitted(folder: Path) -> str:
    file = folder / "submitted"
    return file.read_text() if file.exists() else ""
