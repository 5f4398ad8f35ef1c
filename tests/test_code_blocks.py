"""The Python that documents show runs, on a small recipe that has run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import asr_kd
from asr_kd.frames.store import FrameStore

from .recipe import RATE, finished_recipe, run

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("recipes/*/README.md"))]
BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
    for path in DOCUMENTS
    if path.name != "extend.md"  # whose code test_registries.py puts in its place
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S))
]


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
