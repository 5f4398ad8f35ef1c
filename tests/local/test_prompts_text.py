"""The text that the prompts' language model is made from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "recipes" / "prompts" / "local" / "write_text.py"


def write_text(corpus: Path, conf: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "en", str(corpus), str(conf)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_is_what_training_prompts_say_and_nothing_of_dev_and_test(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "split.tsv").write_text("b\ttrain\na\ttrain\nheld\tdev\nscored\ttest\nnoise\ttrain\nlost\t-\n")
    (tmp_path / "en" / "corrections.txt").write_text("a\tWhat the recording says\n")
    (tmp_path / "core-sounds-en.txt").write_text(
        "a: What the text says\nb: Press  one.   Press two.\nheld: Held out\nscored: Scored\nnoise:\nlost: Not there\n"
    )
    done = write_text(tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["What the recording says", "Press one. Press two."]


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    done = write_text(tmp_path, tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("write_text.py: ") and len(done.stderr.splitlines()) == 1
