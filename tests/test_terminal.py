"""Words, ids and names of files that a terminal cannot show, or that are no UTF-8, end no command and lose nothing."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from asr_kd.cli import main
from asr_kd.commands import write_any_text
from asr_kd.corpora.audio import Audio, AudioFormat, check_audio
from asr_kd.corpora.listing import CorpusManifest, Utterance
from asr_kd.errors import printable

from .stages.conftest import RATE, write_wav

BYTES = os.fsdecode(b"caf\xe9")  # Latin-1: no UTF-8


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", "דוגמה क्षि caf\\udce9\n"),
        ("ascii", "דוגמה क्षि caf\\udce9\n"),  # as UTF-8: nothing else says what the terminal shows
        ("iso8859-8", "דוגמה \\u0915\\u094d\\u0937\\u093f caf\\udce9\n"),
    ],
)
def test_what_a_terminal_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str, written: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    write_any_text()
    click.echo(f"דוגמה क्षि {BYTES}")
    stream.flush()
    shown = stream.buffer.getvalue().decode("utf-8" if encoding == "ascii" else encoding)  # type: ignore[attr-defined]
    assert shown == written


def test_every_command_sets_its_streams_up() -> None:
    runner = CliRunner(charset="latin-1")
    result = runner.invoke(main, ["config", "--show", "--config", f"дом/{BYTES}.yaml"])
    assert result.exit_code == 2 and "\\u0434\\u043e\\u043c/caf" in result.output


def test_folders_whose_names_are_no_utf8_are_refused_before_any_work(tmp_path: Path) -> None:
    good, bad = (make_config(tmp_path / name) for name in ("cafe", BYTES))
    for config, corpus, what in ((bad, good.parent, "work folder"), (good, bad.parent, "corpus's folder")):
        result = CliRunner().invoke(main, ["prepare", "--config", str(config), "--corpus-dir", str(corpus)])
        assert result.exit_code == 2 and "caf\\xe9" in result.output
        assert f"the name of the {what} is not UTF-8; rename it" in result.output


def make_config(root: Path) -> Path:
    (root / "conf").mkdir(parents=True)
    (root / "conf" / "a.yaml").write_text("corpus: {name: folder}\n")
    return root / "conf" / "a.yaml"


def test_the_log_file_has_all_words_in_any_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from asr_kd.commands import _logging

    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    # pytest keeps what is logged, and xdist's workers cannot send on what is no UTF-8
    monkeypatch.setattr(logging.getLogger("asr_kd"), "propagate", False)
    with _logging(tmp_path / "log" / "a.log", optional=False):
        logging.getLogger("asr_kd").info("דוגמה %s", BYTES)
    assert (tmp_path / "log" / "a.log").read_text(encoding="utf-8").endswith("דוגמה caf\\udce9\n")


def test_printable_shows_the_bytes_of_a_name() -> None:
    assert printable(f"/a/{BYTES}.wav") == "/a/caf\\xe9.wav"
    assert printable("שלום") == "שלום" and printable("\ud800") == "\\ud800"


def test_a_recording_is_read_by_any_name(tmp_path: Path) -> None:
    """So that transcribe takes it; corpora name their recordings in text, and refuse it."""
    write_wav(tmp_path / "a.wav")
    path = (tmp_path / "a.wav").rename(tmp_path / f"{BYTES}.wav")
    assert check_audio(path, AudioFormat(RATE)).samples == RATE


def test_recordings_whose_names_are_no_utf8_are_refused_by_name() -> None:
    good = Utterance("a", Audio(Path("train/a.wav")), "A", "s", "train")
    listing = CorpusManifest([good, Utterance("b", Audio(Path(f"{BYTES}/b.wav")), "B", "s", "train")], [])
    listing.refuse(BYTES, "train", f"train/{BYTES}.wav has no transcript; add a line to text")
    listing.refuse("c", "train", f"{BYTES}/c.wav is missing")
    usable = listing.only_utf8()
    assert usable.utterances == [good]
    assert [(problem.utterance, problem.reason) for problem in usable.problems] == [
        ("caf\\xe9", "the name of its recording is not UTF-8; rename it"),
        ("c", "caf\\xe9/c.wav is missing"),
        ("b", "caf\\xe9/b.wav: the name of its recording is not UTF-8; rename it"),
    ]
