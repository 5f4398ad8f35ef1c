"""Whole runs with copies of other vocal tracts, variances of speakers and running means: all stages do the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from asr_kd.acoustic.model_files import load_model
from asr_kd.frames.features import fbank
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import read_json_lines
from asr_kd.workspace.work import Workspace

from ..recipe import CONFIG, make_recipe, run

KINDS = [
    {"warps": [1.0, 1.1], "variance": "speaker"},
    {"mean": "running", "running_seconds": 2.0},
]


@pytest.mark.parametrize("features", KINDS, ids=["warps and variance", "running mean"])
def test_a_recording_is_recognised_as_its_set_is(tmp_path: Path, features: dict[str, Any]) -> None:
    config = make_recipe(tmp_path)
    direct = CONFIG["systems"]["direct"] | {"seeds": 1}
    settings = CONFIG | {"features": features, "systems": {"direct": direct}, "compare": []}
    settings["alignment"] = CONFIG["alignment"] | {"rounds": 2}
    config.write_text(yaml.safe_dump(settings))
    outputs = run(config, [["prepare"], ["features"], ["align"], ["train"], ["decode", "--decoder", "kaldi"]])
    assert f"{40 * len(features.get('warps', [1]))} utterances" in outputs[1]
    work = Workspace(tmp_path, config)
    rows = read_json_lines(work.decoded("direct", "dev") / "hyps.jsonl")
    recordings = [str(tmp_path / "corpus" / "dev" / f"{row['utterance']}.wav") for row in rows]
    transcribe = ["transcribe", "--system", "direct", *recordings]
    exported = tmp_path / "posteriors"
    lines, _ = run(config, [transcribe, ["export-posteriors", "direct", str(exported), "--set", "dev"]])
    words = [line.rpartition("\t")[2].split() for line in lines.splitlines() if "\t" in line]
    assert words == [row["hyp"] for row in rows] and any(words)
    normalisation = FrameStore.open(work.frames("train")).normalisation
    samples, rate = soundfile.read(recordings[0], dtype="float32")
    normalised = normalisation.of_unknown_speaker(fbank(samples[None], rate, 40).astype(np.float16))
    expected = load_model(work.exp("direct"), torch.device("cpu")).log_posteriors(normalised)
    with np.load(exported / f"{rows[0]['utterance']}.npz") as file:
        np.testing.assert_allclose(file["log_posteriors"], expected, atol=1e-3)
