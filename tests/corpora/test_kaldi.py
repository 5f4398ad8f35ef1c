"""Kaldi's data folders become utterances; what is wrong in them is named by file and line, or by utterance."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_kd.corpora import kaldi
from asr_kd.corpora.audio import Audio, AudioFormat, read_audio
from asr_kd.corpora.listing import CorpusManifest, ReadRequest
from asr_kd.corpora.settings import HeldOut, KaldiConfig
from asr_kd.corpora.sources import Pipe, TarMember
from asr_kd.errors import UserError

RATE = 16000
SAMPLES = np.random.default_rng(0).integers(-3000, 3000, 2 * RATE).astype(np.int16)
TABLES = {
    "text": "a-1 hello world\na-2 good bye\nb-1 yes\n",
    "wav.scp": "a wav/a.wav\nb cat wav/a.wav |\n",
    "segments": "a-1 a 0 0.5\na-2 a 0.5 1.25\nb-1 b 1.5 -1\n",
    "utt2spk": "a-1 ann\na-2 ann\nb-1 bob\n",
    "spk2utt": "nobody reads this",
}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "wav").mkdir()
    soundfile.write(tmp_path / "wav" / "a.wav", SAMPLES, RATE)
    write(tmp_path, **TABLES)
    monkeypatch.chdir(tmp_path)  # where commands run
    return tmp_path


def write(corpus: Path, part: str = "train", **tables: str) -> None:
    (corpus / part).mkdir(exist_ok=True)
    for name, content in tables.items():
        (corpus / part / name).write_text(content, encoding="utf-8")


def read(corpus: Path, *parts: str, allow_pipes: bool = True) -> CorpusManifest:
    request = ReadRequest(corpus, corpus, KaldiConfig(), {"train": parts or ("train",)}, allow_pipes=allow_pipes)
    return kaldi.read(request)


def test_segments_of_files_and_commands_are_utterances(corpus: Path) -> None:
    listing = read(corpus)
    assert not listing.problems
    assert [(u.id, u.text, u.speaker) for u in listing.utterances] == [
        ("a-1", "hello world", "ann"), ("a-2", "good bye", "ann"), ("b-1", "yes", "bob"),
    ]  # fmt: skip
    assert [u.audio for u in listing.utterances] == [
        Audio(corpus / "wav/a.wav", 0.0, 0.5, recording="a"), Audio(corpus / "wav/a.wav", 0.5, 0.75, recording="a"),
        Audio(Pipe("cat wav/a.wav"), 1.5, None, recording="b"),
    ]  # fmt: skip
    for utterance, (first, end) in zip(listing.utterances, ((0, 8000), (8000, 20000), (24000, 32000)), strict=True):
        assert np.array_equal(read_audio(utterance.audio, AudioFormat(RATE)) * 32768, SAMPLES[first:end])
    assert [path.name for path in listing.transcripts] == ["text", "wav.scp", "segments", "utt2spk"]


def test_without_segments_and_speakers_recordings_are_utterances(corpus: Path) -> None:
    write(corpus, "plain", text="a hello\n", **{"wav.scp": f"a {corpus}/wav/a.wav\n"})
    (utterance,) = read(corpus, "plain").utterances
    assert (utterance.audio, utterance.speaker) == (Audio(corpus / "wav/a.wav"), "a")


def test_dev_can_be_drawn_by_speaker(corpus: Path) -> None:
    request = ReadRequest(corpus, corpus, KaldiConfig(dev=HeldOut(speakers=1)), {"train": ("train",), "dev": ()}, 2)
    listing = kaldi.read(replace(request, allow_pipes=True))
    assert {u.speaker for u in listing.of_set("train")} ^ {u.speaker for u in listing.of_set("dev")} == {"ann", "bob"}


def test_a_command_runs_only_where_that_is_allowed(corpus: Path) -> None:
    with pytest.raises(UserError, match=r"wav\.scp: recording b is the output of a command \(cat .*--allow-pipes"):
        read(corpus, allow_pipes=False)


def test_a_wav_inside_an_archive_is_read_from_there(corpus: Path) -> None:
    wav = (corpus / "wav/a.wav").read_bytes()
    (corpus / "all.ark").write_bytes(b"a " + wav + b"b " + wav)
    write(corpus, "ark", text="b hello\n", **{"wav.scp": f"b all.ark:{len(wav) + 4}\n"})
    (utterance,) = read(corpus, "ark").utterances
    assert utterance.audio == Audio(TarMember(corpus / "all.ark", len(wav) + 4, len(wav)))
    assert struct.unpack("<I", wav[4:8]) == (len(wav) - 8,)
    assert np.array_equal(read_audio(utterance.audio, AudioFormat(RATE)) * 32768, SAMPLES)
    write(corpus, "ark", **{"wav.scp": "b all.ark:3\n"})
    with pytest.raises(UserError, match=r"wav\.scp: recording b: no WAV is at byte 3 of .*all\.ark"):
        read(corpus, "ark")


MALFORMED = {
    "text": ("a-1 one\na-1 two\n", r"text:2: a-1 appears twice; delete one of the lines"),
    "wav.scp": ("a wav/a.wav\nb\n", r"wav\.scp:2: expected 'recording-id file' or .*, found 'b'; correct the line"),
    "segments": ("a-1 a 0 0.5\na-2 a 1 0.5\n", r"segments:2: expected 'utterance-id recording-id start end"),
    "utt2spk": ("a-1 ann\na-2 ann bob\n", r"utt2spk:2: expected 'utterance-id speaker-id', found 'a-2 ann bob'"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_line_is_named(corpus: Path, name: str) -> None:
    content, message = MALFORMED[name]
    write(corpus, **{name: content})
    with pytest.raises(UserError, match=message):
        read(corpus)


@pytest.mark.parametrize("name", ["text", "wav.scp"])
def test_a_missing_table_is_named(corpus: Path, name: str) -> None:
    (corpus / "train" / name).unlink()
    with pytest.raises(
        UserError, match=rf"train/{name}: cannot be read \(No such file.*\); name folders of Kaldi's form"
    ):
        read(corpus)


PROBLEMS = {
    "text": (
        "a-1 hello\na-2\n",
        {"a-2": "its transcript in .*text is empty", "b-1": "has no transcript; add a line to"},
    ),
    "wav.scp": ("a wav/a.wav\n", {"b-1": r"its recording b is not in .*wav\.scp; add a line, or delete its segment"}),
    "segments": ("a-1 a 0 1\n", {"a-2": "is not in .*segments; add a line", "b-1": "is not in .*segments"}),
    "utt2spk": ("a-1 ann\n", {"a-2": "has no speaker; add a line to .*utt2spk", "b-1": "has no speaker"}),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_an_utterance_that_lacks_something_is_named(corpus: Path, name: str) -> None:
    content, expected = PROBLEMS[name]
    write(corpus, **{name: content})
    listing = read(corpus)
    assert [problem.utterance for problem in listing.problems] == list(expected)
    assert {u.id for u in listing.utterances} == {"a-1", "a-2", "b-1"} - expected.keys()
    for problem, message in zip(listing.problems, expected.values(), strict=True):
        assert re.search(message, problem.reason)


def test_an_id_in_two_parts_is_refused(corpus: Path) -> None:
    write(corpus, "other", **TABLES)
    with pytest.raises(UserError, match=r"other: utterance a-1 is in .*train too; leave one of them out"):
        read(corpus, "train", "other")


def test_a_set_without_transcripts_needs_no_text(corpus: Path) -> None:
    (corpus / "train" / "text").unlink()
    parts = {"more": ("train",)}
    untranscribed = frozenset(parts)
    request = ReadRequest(corpus, corpus, KaldiConfig(), parts, allow_pipes=True, untranscribed=untranscribed)
    listing = kaldi.read(request)
    assert not listing.problems
    assert [(u.id, u.text, u.speaker) for u in listing.utterances] == [
        ("a-1", "", "ann"), ("a-2", "", "ann"), ("b-1", "", "bob")
    ]  # fmt: skip
    assert corpus / "train" / "text" not in listing.transcripts
    (corpus / "train" / "wav.scp").unlink()
    with pytest.raises(UserError, match="name folders of Kaldi's form under untranscribed:"):
        kaldi.read(request)
