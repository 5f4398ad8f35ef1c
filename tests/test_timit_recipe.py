"""The aligner on TIMIT's sample, by the commands: aligned from the order of the phones, held against hands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from asr_kd.cli import main

CONF = Path(__file__).parents[1] / "recipes" / "timit" / "conf" / "align.yaml"


def run(work: Path, *arguments: str, config: Path = CONF) -> str:
    options = ["--config", str(config), "--work-dir", str(work)]
    result = CliRunner().invoke(main, [arguments[0], *options, *arguments[1:]], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_boundaries_between_phones_are_where_hands_put_them(shared: Path, tmp_path: Path) -> None:
    sample = shared / "data" / "timit-sample"
    if not sample.is_dir():
        pytest.skip("no TIMIT sample in the folder `shared`")
    prepared = run(tmp_path, "prepare", "--corpus-dir", str(sample), "--nj", "1")
    assert "train: 96 utterances" in prepared and "test: 16 utterances" in prepared
    run(tmp_path, "features", "--nj", "1")
    assert "0 utterances failed" in run(tmp_path, "align", "--nj", "1")
    told = run(tmp_path, "align", "--compare", "timit", str(sample))
    assert "128 utterances compared, 32 references have no alignment here" in told  # the two SA of each speaker
    compared = json.loads((tmp_path / "exp" / "align_compare" / "compare.json").read_text())
    found, shifted = compared["phones"], compared["shifted"]["phones"]
    assert found["boundaries"] > 4000 and found["unmatched"] == 0
    assert found["within_20ms"] >= 0.845, found
    assert shifted["within_20ms"] >= 0.855 and shifted["mean_abs_ms"] < found["mean_abs_ms"], shifted

    by_hand = tmp_path / "by_hand.yaml"
    settings = yaml.safe_load(CONF.read_text())
    settings["alignment"] |= {"labels": "manual", "rounds": 2}
    by_hand.write_text(yaml.safe_dump(settings))
    shutil.copy(CONF.parent / "phones.txt", tmp_path)
    assert "0 utterances failed" in run(tmp_path, "align", "--nj", "1", config=by_hand)
    run(tmp_path, "align", "--compare", "timit", str(sample), config=by_hand)
    found = json.loads((tmp_path / "exp" / "align_compare" / "compare.json").read_text())["phones"]
    assert found["within_10ms"] == 1.0 and found["mean_abs_ms"] < 3  # what rounding to frames leaves
