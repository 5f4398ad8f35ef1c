"""The asr-kd commands that documents show are run, each document's in their order, by readers with small recipes.

Elsewhere: `run.sh` of each recipe (tests/test_prompts_recipe.py and so on), Dask's commands (tests/test_two_hosts.py),
`make` (tests/test_documents.py). Not run: RESULTS.md, whose commands are those of measurements, and those of NOT_RUN.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr_kd.io.yaml_files import dump_yaml, load_yaml, merged

from . import test_documents
from .recipe import LEXICON, RATE, finished_recipe, say
from .stages.test_new import TINY
from .typed import typed, typed_script

ROOT = Path(__file__).parents[1]
# pattern -> why
NOT_RUN = {
    "asr-kd serve": "it serves until it is stopped: tests/serve",
    "--executor dask:": "needs workers: tests/test_two_hosts.py, and a queue: tests/workspace/test_cluster.py",
    "full960.yaml": "times nets of 6 x 2048 units: tests/stages/test_plan_workers.py",
    "--compare timit": "reads TIMIT's own files: tests/stages/test_align_timit.py",
    "asr-kd new": "what it writes is run below",
    "mine/run.sh": "the same",
}
# what readers put in the place of what is shown; the small recipe's teacher has two members
STANDS_FOR = {"--config ...": "--config recipes/librispeech/conf/mini.yaml", "--member 3": "--member 1"}
RECIPES = {"recipes/prompts": "demo", "recipes/librispeech": "mini", "recipes/timit": "align", ".": "config"}
WORDS = {"BA": "Ба", "BI": "би", "SA": "са", "SI": "си", "BASI": "баси"}  # what the tones are to be in Ukrainian


def commands(path: Path) -> list[str]:
    """Those of asr-kd, and what readers with speech of their own type besides."""
    return test_documents.commands(path, r"(?:asr-kd |sed |[\w-]+/run\.sh)")


DOCUMENTS = [
    str(path.relative_to(ROOT))
    for path in test_documents.DOCUMENTS
    if path.name not in ("RESULTS.md", "own-speech.md") and commands(path)
]


def test_what_is_not_run_is_shown_somewhere() -> None:
    lines = [line for document in DOCUMENTS for line in commands(ROOT / document)]
    assert len(DOCUMENTS) >= 6
    assert all(any(pattern in line for line in lines) for pattern in NOT_RUN)


@pytest.fixture
def here(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a reader: a clone whose recipes are small and have run, and recordings."""
    finished = finished_recipe(tmp_path_factory)
    monkeypatch.chdir(tmp_path)
    for folder, config in RECIPES.items():
        shutil.copytree(finished.parent.parent, folder, dirs_exist_ok=True)
        (Path(folder) / "conf" / finished.name).rename(Path(folder) / "conf" / f"{config}.yaml")
    rng = np.random.default_rng(5)
    for name in ("call.mp3", "meeting.wav", "new.mp3"):
        soundfile.write(name, say(["BA", "SI"], rng), RATE)
    Path("recipes/prompts/download/sounds").mkdir(parents=True, exist_ok=True)
    shutil.copy("meeting.wav", "recipes/prompts/download/sounds/confbridge-only-one.wav")
    shutil.copytree("corpus", "LibriSpeech")
    shutil.copytree("corpus", "TIMIT")
    shutil.copytree("corpus/test", "LibriSpeech/test-other")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_documents_run(document: str, here: Path) -> None:
    shutil.copy(here / "data" / "lm" / "G.arpa", "FILE")
    typed("asr-kd align --config conf/config.yaml --export textgrid DIR")
    shutil.copytree("LibriSpeech", "DIR/LibriSpeech")
    lines = [line for line in commands(ROOT / document) if not any(pattern in line for pattern in NOT_RUN)]
    for line in lines:
        for shown, meant in STANDS_FOR.items():
            line = line.replace(shown, meant)
        line = re.sub(r"(--grid [\w.]+=[\d.]+,[\d.]+)[\d.,]*", r"\1", line)  # two values say as much
        assert typed(line), line
        if "--add-set" in line:  # the sentence or the run.sh that follows
            for stage in ("features", "align"):
                typed(f"asr-kd {stage} --nj 1 --config recipes/librispeech/conf/mini.yaml")


def sentences(speakers: str, count: int) -> Iterator[tuple[str, list[str]]]:
    """Each speaker with what he or she says, `count` times."""
    rng = np.random.default_rng(3)
    for speaker in speakers.split():
        for _ in range(count):
            yield speaker, rng.choice(list(LEXICON), rng.integers(2, 5)).tolist()


def in_ukrainian(words: list[str]) -> str:
    return " ".join(WORDS[word] for word in words) + "!"


@pytest.fixture
def speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the reader of own-speech.md has: MP3s and transcripts in folders, and a corpus as Common Voice ships it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    for number, (speaker, words) in enumerate(sentences("olena taras ivan oksana petro daria", 6)):
        recording = Path("speech/train") / speaker / f"{number % 6:03d}.mp3"
        recording.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(recording, say(words, rng), RATE)
        recording.with_suffix(".txt").write_text(in_ukrainian(words) + "\n")
    shutil.copy("speech/train/olena/000.mp3", "new.mp3")
    clips = Path("cv-corpus/uk/clips")
    clips.mkdir(parents=True)
    for part, speakers in (("train", "a b c d"), ("dev", "e"), ("test", "f")):
        rows = ["client_id\tpath\tsentence\tup_votes"]
        for number, (speaker, words) in enumerate(sentences(speakers, 6)):
            name = f"common_voice_uk_{part}{number}.mp3"
            soundfile.write(clips / name, say(words, rng).repeat(48_000 // RATE), 48_000)
            rows.append(f"{speaker}\t{name}\t{in_ukrainian(words)}\t2")
        (clips.parent / f"{part}.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


def make_small(config: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Changes a config; returns what it said before."""
    settings = load_yaml(config)
    config.write_text(dump_yaml(merged(settings, changes)))
    return settings


@pytest.mark.slow
def test_own_speech_gets_from_a_folder_of_mp3s_to_captions(speech: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")  # run.sh calls asr-kd
    *lines, captions = [line for line in commands(ROOT / "docs" / "own-speech.md") if "cv-uk" not in line]
    assert [line.split()[0] for line in lines] == ["asr-kd", "sed", "asr-kd", "ukrainian/run.sh"]
    for line in lines:
        typed(line)
        if line.startswith("sed"):
            settings = make_small(speech / "ukrainian/conf/config.yaml", TINY)
            assert settings["corpus"]["folder_is_speaker"] is True
    report = Path("ukrainian/exp/report/index.html").read_text(encoding="utf-8")
    assert "character error rate" in report
    assert "new.mp3\t" in typed(captions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "recipe", "changes"),
    [
        ("quick-start.md", "mine", TINY),
        ("own-speech.md", "cv-uk", {key: value for key, value in TINY.items() if key != "corpus"}),
    ],
)
def test_a_recipe_that_was_written_runs(document: str, recipe: str, changes: dict[str, Any], speech: Path) -> None:
    new, run = [line for line in commands(ROOT / "docs" / document) if re.search(rf"\b{recipe}\b", line)]
    typed(new)
    make_small(speech / recipe / "conf" / "config.yaml", changes)
    typed_script(run, speech / "noted")
    report = (speech / recipe / "exp" / "report" / "index.html").read_text(encoding="utf-8")
    assert "character error rate" in report
