"""recipes/librispeech/run.sh on a slice of real LibriSpeech: through, and again from the middle."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SPEAKERS = ["19", "27", "32", "911", "909", "61", "121"]  # the first five in training, one of which dev gets

TRAINING = {"epochs": 2, "learning_rate": 3.0e-3}
SMALL = {"layers": 1, "width": 48}
CONFIG = {
    "corpus": {"name": "librispeech", "sampling_rate": 16000, "dev_speakers": 3},
    "sets": {"train": ["train-clean-100"], "dev": [], "test": ["test-clean"]},
    "lang": {"guess_pronunciations": True, "prune": 1e-6},
    "alignment": {"rounds": 4, "leaves": 150},
    "systems": {
        "teacher": {
            "model": {"kind": "tdnn", "width": 64, "dilations": [1, 2, 3], "dropout": 0.1, "chunk_frames": 100},
            "members": 2,
            "training": {"epochs": 2, "batch_size": 500, "learning_rate": 3.0e-3},
        },
        "direct": {"model": SMALL, "training": TRAINING},
        "distilled": {"model": SMALL, "training": TRAINING, "targets": {"from": "teacher"}},
    },
    "compare": [{"direct": "direct", "distilled": "distilled", "teacher": "teacher"}],
    "decoding": {
        "search_beam": 10.0,
        "output_beam": 4.0,
        "max_active": 1000,
        "acoustic_scales": [0.1, 0.15],
        "word_penalties": [0.0],
    },
    "evaluation": {"bootstrap_samples": 200},
}  # fmt: skip


@pytest.fixture(scope="module")
def slice_of_librispeech(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("librispeech") / "LibriSpeech"
    sample, left_out = shared / "data" / "librispeech", []
    for part, count in (("train-clean-100", 32), ("test-clean", 3)):  # utterances to keep of each chapter
        for transcripts in (sample / "opus" / part).glob("*/*/*.trans.txt"):
            if transcripts.parts[-3] in SPEAKERS:
                chapter = corpus / transcripts.relative_to(sample / "opus").parent
                chapter.mkdir(parents=True)
                names = [line.split()[0] for line in transcripts.read_text().splitlines()]
                left_out += [chapter / f"{name}.flac" for name in names[count:]]
    for recording in left_out:
        recording.touch()  # what is there is not unpacked
    unpack = [sys.executable, sample / "unpack.py", corpus.parent, "--speakers", *SPEAKERS]
    subprocess.run(unpack, check=True, capture_output=True)
    for recording in left_out:
        recording.unlink()
    for transcripts in corpus.rglob("*.trans.txt"):
        lines = transcripts.read_text().splitlines(keepends=True)
        there = [line for line in lines if (transcripts.parent / f"{line.split()[0]}.flac").exists()]
        transcripts.write_text("".join(there))
    return corpus


def recipe(tmp_path: Path, *options: object) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "conf" / "slice.yaml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(yaml.safe_dump(CONFIG))
    command = [ROOT / "recipes/librispeech/run.sh", "--config", config, "--work-dir", tmp_path, "--nj", 2, *options]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run([str(word) for word in command], text=True, capture_output=True, env=environment)


def test_the_recipe_runs_through_and_from_the_middle(slice_of_librispeech: Path, tmp_path: Path) -> None:
    done = recipe(tmp_path, "--corpus-dir", slice_of_librispeech)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "exp/report/results.json").read_text())
    assert results["corpus"] == "librispeech" and results["alignment"]["failed"] == []
    systems = {system["name"]: system for system in results["systems"]}
    assert set(systems) == {"direct", "teacher", "distilled"}
    # chance is under 1 in 100; two epochs on minutes of speech get this far
    assert systems["teacher"]["frame_accuracy"]["test"] > 0.15
    assert 0.2 < systems["teacher"]["wer"]["test"] < 1.0
    assert all(0.2 < system["per"]["test"] < 0.75 for system in systems.values())
    # the time-delay nets know better than the small net that hard labels make, and the distilled one learns it
    surprise = {name: system["cross_entropy"]["test"] for name, system in systems.items()}
    assert max(surprise["teacher"], surprise["distilled"]) < surprise["direct"] - 0.05
    assert results["data"]["guessed_pronunciations"] > 0 and not results["data"]["shared_speakers"]

    made = (tmp_path / "exp/report/results.json").stat().st_mtime_ns
    again = recipe(tmp_path, "--stage", "5", "--corpus-dir", slice_of_librispeech)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "Stage 8" in again.stderr and "Stage 4" not in again.stderr
    assert (tmp_path / "exp/report/results.json").stat().st_mtime_ns == made


def test_a_missing_part_is_one_sentence_and_status_2(slice_of_librispeech: Path, tmp_path: Path) -> None:
    done = recipe(tmp_path, "--corpus-dir", slice_of_librispeech, "--dev-parts", "dev-clean", "--stop-stage", "1")
    assert done.returncode == 2
    assert "has no part 'dev-clean', only test-clean, train-clean-100" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
