"""TIMIT's sample, by the commands: the aligner beside human annotators; a slice of recipes/timit/run.sh end to end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from kaldialign import edit_distance
from lhotse.recipes.timit import get_phonemes

from asr_kd.cli import main
from asr_kd.io.files import read_json_lines

ROOT = Path(__file__).parents[1]
SPEAKERS = ("DR1/FVMH0", "DR2/FAEM0", "DR3/FALK0", "DR1/MCPM0", "DR2/MARC0", "DR3/MADC0")
TRAINING = {"epochs": 4, "batch_size": 256, "learning_rate": 3.0e-3}
SMALL = {
    "systems": {
        "teacher": {
            "model": {"width": 64, "front": {"channels": [4, 8]}, "chunk_frames": 20},
            "training": TRAINING | {"batch_size": 200, "epochs": 12, "learning_rate": 4.0e-3},
        },
        "direct": {"seeds": 1, "model": {"layers": 1, "width": 48}, "training": TRAINING},
        "distilled": {"seeds": 1, "model": {"layers": 1, "width": 48}, "training": TRAINING},
        "monophone": None,
    },
    "features": {"speeds": [1.0]},
    "evaluation": {"bootstrap_samples": 200},
}
DECODING = {"search_beam": 10.0, "output_beam": 4.0, "acoustic_scales": [0.2, 0.3], "word_penalties": [-1.0, 0.0]}
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
    announced = run(tmp_path, "align", "--compare", "timit", str(sample))
    assert "128 utterances compared, 32 references have no alignment here" in announced  # the two SA of each speaker
    compared = json.loads((tmp_path / "exp" / "align_compare" / "compare.json").read_text())
    actual, shifted = compared["phones"], compared["with_offsets"]["phones"]
    assert actual["boundaries"] > 4000 and actual["unmatched"] == 0
    assert actual["within_20ms"] >= 0.845, actual
    assert shifted["within_20ms"] >= 0.855 and shifted["mean_abs_ms"] < actual["mean_abs_ms"], shifted

    manual_config = tmp_path / "manual_config.yaml"
    manual = {"base": str(CONF), "alignment": {"labels": "manual", "rounds": 2, "learn_from": "train"}}
    manual_config.write_text(yaml.safe_dump(manual))
    shutil.copy(CONF.parent / "phones.txt", tmp_path)
    assert "0 utterances failed" in run(tmp_path, "align", "--nj", "1", config=manual_config)
    run(tmp_path, "align", "--compare", "timit", str(sample), config=manual_config)
    actual = json.loads((tmp_path / "exp" / "align_compare" / "compare.json").read_text())["phones"]
    assert actual["within_10ms"] == 1.0 and actual["mean_abs_ms"] < 3  # what rounding to frames leaves


def test_boundaries_between_words_are_found_from_the_words_alone(shared: Path, tmp_path: Path) -> None:
    sample = shared / "data" / "timit-sample"
    if not sample.is_dir():
        pytest.skip("no TIMIT sample in the folder `shared`")
    config = CONF.parent / "align_words.yaml"
    run(tmp_path, "prepare", "--corpus-dir", str(sample), "--nj", "1", config=config)
    run(tmp_path, "features", "--nj", "1", config=config)
    assert "0 utterances failed" in run(tmp_path, "align", "--nj", "1", config=config)
    run(tmp_path, "align", "--compare", "timit", str(sample), config=config)
    compared = json.loads((tmp_path / "exp" / "align_compare" / "compare.json").read_text())
    assert compared["words"]["boundaries"] > 1200 and compared["words"]["unmatched"] == 0
    assert compared["words"]["within_20ms"] >= 0.70, compared["words"]
    assert compared["with_offsets"]["words"]["within_20ms"] >= 0.74, compared["with_offsets"]["words"]


@pytest.fixture(scope="module")
def slice_of_timit(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers of the sample, in a copy that may be damaged."""
    sample = shared / "data" / "timit-sample" / "data" / "TRAIN"
    if not sample.is_dir():
        pytest.skip("no TIMIT sample in the folder `shared`")
    folder = tmp_path_factory.mktemp("timit")
    for speaker in SPEAKERS:
        shutil.copytree(sample / speaker, folder / "TRAIN" / speaker)
    return folder


def small_config(folder: Path, name: str) -> Path:
    """The named config of the recipe, with everything made small."""
    (folder / "conf").mkdir(exist_ok=True)
    shutil.copy(CONF.parent / "phones.txt", folder / "conf")
    config = folder / "conf" / name
    small = {"base": str(CONF.parent / name), "decoding": DECODING, "alignment": {"leaves": 150}} | SMALL
    config.write_text(yaml.safe_dump(small))
    return config


def recipe(*options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [str(word) for word in (ROOT / "recipes/timit/run.sh", "--nj", 1, *options)]
    return subprocess.run(command, text=True, capture_output=True, env=environment)


def test_the_recipe_recognises_phones_and_reports_them(slice_of_timit: Path, tmp_path: Path) -> None:
    options = [
        "--config",
        small_config(tmp_path, "phones48.yaml"),
        "--work-dir",
        tmp_path,
        "--timit-dir",
        slice_of_timit,
    ]
    done = recipe(*options, "--dev-speakers", 1, "--test-speakers", 1)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "exp/report/results.json").read_text())
    assert results["corpus"] == "timit" and results["unit"] == "phone" and results["alignment"]["labels"] == "manual"
    systems = {system["name"]: system for system in results["systems"]}
    assert set(systems) == {"direct", "teacher", "distilled"}
    # a decoder that hears nothing has 1.0 and one that guesses more; minutes of speech get this far
    assert 0.2 < systems["teacher"]["wer"]["test"] < 0.75
    assert systems["teacher"]["with_silence"]["errors"]["test"]["words"] > systems["teacher"]["errors"]["test"]["words"]

    # counted again from the phones that were recognised, by lhotse's table of the 39
    classes = {phone.upper(): (name.upper() if name != "sil" else "") for phone, name in get_phonemes(39).items()}
    classes |= {"SIL": "", "VCL": "", "CL": ""}
    errors = words = 0
    for row in read_json_lines(tmp_path / "exp/decode/distilled/test/hyps.jsonl"):
        heard = [classes[phone] for phone in row["recognised"] if classes[phone]]
        speaker, sentence = row["utterance"].split("-")
        (times,) = slice_of_timit.rglob(f"{speaker}/{sentence}.PHN")
        said = [classes[line.split()[2].upper()] for line in times.read_text().splitlines()]
        said = [phone for phone in said if phone]
        errors += edit_distance(said, heard)["total"]
        words += len(said)
    assert words == systems["distilled"]["errors"]["test"]["words"]
    assert systems["distilled"]["wer"]["test"] == pytest.approx(errors / words)

    page = (tmp_path / "exp/report/index.html").read_text()
    assert "phone error rate" in page and "word error" not in page and 'id="with-silence"' in page
    again = recipe(*options, "--stage", "7")
    assert again.returncode == 0 and "index.html (up to date)" in again.stdout
    assert again.stdout.count("up to date") > 2  # each system on each set too


@pytest.mark.parametrize("name", ["phones48_own.yaml", "phones48_words.yaml"])
def test_labels_may_come_from_phones_or_from_words(slice_of_timit: Path, tmp_path: Path, name: str) -> None:
    config = small_config(tmp_path, name)
    split = ["--dev-speakers", "1", "--test-speakers", "1"]
    run(tmp_path, "prepare", "--corpus-dir", str(slice_of_timit), *split, "--nj", "1", config=config)
    run(tmp_path, "features", "--nj", "1", config=config)
    assert "0 utterances failed" in run(tmp_path, "align", "--nj", "1", config=config)
    run(tmp_path, "train", "direct", "--nj", "1", config=config)
    decoded = run(
        tmp_path, "decode", "--system", "direct", "--set", "dev", "--decoder", "kaldi", "--nj", "1", config=config
    )
    assert "PER" in decoded
    summary = json.loads((tmp_path / "exp/decode/direct/dev/summary.json").read_text())
    assert summary["unit"] == "phone" and 0.2 < summary["wer"] < 0.9
    references = {
        row["utterance"]: row["ref"] for row in read_json_lines(tmp_path / "exp/decode/direct/dev/hyps.jsonl")
    }
    assert all({"SIL", "IX", "VCL", "AO"}.isdisjoint(phones) for phones in references.values())


def test_a_bad_file_is_one_sentence_with_its_line_and_status_2(slice_of_timit: Path, tmp_path: Path) -> None:
    shutil.copytree(slice_of_timit, tmp_path / "timit")
    file = next((tmp_path / "timit").rglob("SI*.PHN"))
    lines = file.read_text().splitlines()
    first, end, phone = lines[2].split()
    file.write_text("\n".join([*lines[:2], f"{int(first) - 5} {end} {phone}", *lines[3:]]) + "\n")
    options = ["--config", small_config(tmp_path, "phones48.yaml"), "--work-dir", tmp_path, "--stop-stage", 1]
    done = recipe(*options, "--timit-dir", tmp_path / "timit", "--dev-speakers", 1, "--test-speakers", 1)
    assert done.returncode == 2 and f"{file}:3: {phone} overlaps with the phone before" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "data").exists()
    done = recipe(*options)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("run.sh: name the corpus")
