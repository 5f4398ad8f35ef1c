"""The asr-kd commands that documents show are run, each document's in their order, by readers with small recipes.

Not here: RESULTS.md, whose commands are those of measurements; other programs (`make`, `run.sh`; Dask's are in
tests/test_two_hosts.py); and the commands of NOT_RUN.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from asr_kd.cli import main
from asr_kd.io.yaml_files import dump_yaml, load_yaml, merged

from . import test_documents
from .recipe import LEXICON, RATE, finished_recipe, say
from .stages.test_new import TINY

ROOT = Path(__file__).parents[1]
# pattern -> why
NOT_RUN = {
    "asr-kd serve": "it serves until it is stopped: tests/serve",
    "--executor dask:": "needs workers: tests/test_two_hosts.py, and a queue: tests/workspace/test_cluster.py",
    "full960.yaml": "times nets of 6 x 2048 units: tests/stages/test_plan_workers.py",
    "--compare timit": "reads TIMIT's own files: tests/stages/test_align_timit.py",
    "asr-kd new": "what it writes is run by the test of own-speech.md",
}
# what readers put in the place of what is shown; the small recipe's teacher has two members
STANDS_FOR = {"--config ...": "--config recipes/librispeech/conf/mini.yaml", "--member 3": "--member 1"}
RECIPES = {"recipes/prompts": "demo", "recipes/librispeech": "mini", "recipes/timit": "align", ".": "config"}
WORDS = {"BA": "Ба", "BI": "би", "SA": "са", "SI": "си", "BASI": "баси"}  # what the tones are to be in Ukrainian


def commands(path: Path) -> list[str]:
    """Those of asr-kd, and what own-speech.md's reader types besides."""
    return test_documents.commands(path, r"(?:asr-kd |sed |ukrainian/)")


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
    shutil.copytree("corpus", "LibriSpeech")
    shutil.copytree("corpus", "TIMIT")
    shutil.copytree("corpus/test", "LibriSpeech/test-other")
    return tmp_path


def typed(line: str) -> str:
    """Runs a command as one who types it does; returns what it prints."""
    program, *arguments = shlex.split(line)
    if program != "asr-kd":
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, (line, result.output)
    return result.output


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


@pytest.mark.slow
def test_own_speech_gets_from_a_folder_of_mp3s_to_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    for speaker in ("olena", "taras", "ivan", "oksana", "petro", "daria"):
        folder = Path("speech/train") / speaker
        folder.mkdir(parents=True)
        for number in range(6):
            words = rng.choice(list(LEXICON), rng.integers(2, 5)).tolist()
            soundfile.write(folder / f"{number:03d}.mp3", say(words, rng), RATE)
            (folder / f"{number:03d}.txt").write_text(" ".join(WORDS[word] for word in words) + "!\n")
    shutil.copy("speech/train/olena/000.mp3", "new.mp3")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")  # run.sh calls asr-kd
    *lines, captions = [line for line in commands(ROOT / "docs" / "own-speech.md") if "cv-uk" not in line]
    assert [line.split()[0] for line in lines] == ["asr-kd", "sed", "asr-kd", "ukrainian/run.sh"]
    for line in lines:
        typed(line)
        if line.startswith("sed"):
            config = Path("ukrainian/conf/config.yaml")
            settings = load_yaml(config)
            assert settings["corpus"]["folder_is_speaker"] is True
            config.write_text(dump_yaml(merged(settings, TINY)))
    report = Path("ukrainian/exp/report/index.html").read_text(encoding="utf-8")
    assert "character error rate" in report
    assert "new.mp3\t" in typed(captions)
