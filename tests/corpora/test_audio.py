"""What libsndfile can read is read whole, from pipes and devices too; what it cannot is named with the reason."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_kd.corpora.audio import AudioFormat, BadAudio, read_audio

RATE = 16000
FORMAT = AudioFormat(RATE)
SAMPLES = np.random.default_rng(0).integers(-3000, 3000, 40000).astype(np.int16)


def flac_of_unknown_length(path: Path) -> None:
    """As an encoder that writes to a pipe leaves it: no number of samples in its header."""
    soundfile.write(path, SAMPLES, RATE)
    content = bytearray(path.read_bytes())
    place = len(b"fLaC") + 4 + 13  # the last 36 bits before the checksum in STREAMINFO
    content[place] &= 0xF0
    content[place + 1 : place + 5] = bytes(4)
    path.write_bytes(content)


def wav_of_length(path: Path, promised: int) -> None:
    soundfile.write(path, SAMPLES, RATE)
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", promised)
    path.write_bytes(content)


def test_flac_without_a_length_is_read_to_its_end(tmp_path: Path) -> None:
    flac_of_unknown_length(tmp_path / "a.flac")
    assert np.array_equal(read_audio(tmp_path / "a.flac", FORMAT), SAMPLES / np.float32(32768))


@pytest.mark.parametrize("promised", [0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF], ids=hex)
def test_wav_written_to_a_pipe_is_read_to_its_end(tmp_path: Path, promised: int) -> None:
    wav_of_length(tmp_path / "a.wav", promised)
    assert np.array_equal(read_audio(tmp_path / "a.wav", FORMAT), SAMPLES / np.float32(32768))


def test_wav_that_promises_nothing_says_so(tmp_path: Path) -> None:
    wav_of_length(tmp_path / "a.wav", 0)
    with pytest.raises(BadAudio, match=r"its header promises no samples, but 80000 bytes follow; write it to a file"):
        read_audio(tmp_path / "a.wav", FORMAT)


def test_wav_that_promises_more_than_is_there_is_cut_short(tmp_path: Path) -> None:
    wav_of_length(tmp_path / "a.wav", 2 * len(SAMPLES) + 2)
    with pytest.raises(BadAudio, match=r"a\.wav is cut short: its header promises 80002 bytes, 80000 are there"):
        read_audio(tmp_path / "a.wav", FORMAT)


SUBTYPES = ["GSM610", "ULAW", "ALAW", "PCM_24", "FLOAT", "DOUBLE", "IMA_ADPCM", "MS_ADPCM"]
KINDS = [(form, subtype) for form in ("WAV", "WAVEX") for subtype in SUBTYPES if soundfile.check_format(form, subtype)]


@pytest.mark.parametrize(("form", "subtype"), KINDS)
def test_every_kind_of_wav_is_read(tmp_path: Path, form: str, subtype: str) -> None:
    soundfile.write(tmp_path / "a.wav", SAMPLES, RATE, subtype=subtype, format=form)
    read = read_audio(tmp_path / "a.wav", FORMAT)
    assert read.dtype == np.float32 and len(SAMPLES) <= len(read) < len(SAMPLES) + 1100  # coded in blocks
    assert np.corrcoef(read[: len(SAMPLES)], SAMPLES)[0, 1] > 0.5


def test_long_recordings_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in (1000, len(SAMPLES), len(SAMPLES) + 1):
        monkeypatch.setattr("asr_kd.corpora.audio._BLOCK", block)
        for name in ("a.wav", "a.flac"):
            soundfile.write(tmp_path / name, SAMPLES, RATE)
            assert np.array_equal(read_audio(tmp_path / name, FORMAT), SAMPLES / np.float32(32768))


def sphere(coding: str) -> bytes:
    fields = f"sample_count -i {len(SAMPLES)}\nsample_n_bytes -i 2\nchannel_count -i 1\nsample_coding -s26 {coding}\n"
    return f"NIST_1A\n   1024\n{fields}end_head\n".encode().ljust(1024) + SAMPLES.tobytes()[:1000]


def test_shortened_sphere_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(sphere("pcm,embedded-shorten-v2.00"))
    with pytest.raises(BadAudio, match=r"compressed with shorten.*convert it with sph2pipe"):
        read_audio(tmp_path / "a.wav", FORMAT)
    (tmp_path / "a.wav").write_bytes(sphere("pcm"))
    with pytest.raises(BadAudio, match=r"cut short: its header promises 80000 bytes, 1000 are there"):
        read_audio(tmp_path / "a.wav", FORMAT)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    soundfile.write(tmp_path / name, SAMPLES, RATE)
    (tmp_path / name).chmod(0)
    if os.access(tmp_path / name, os.R_OK):  # root may read everything

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BadAudio, match=rf"{name} cannot be read \(Permission denied\); check the file's rights"):
        read_audio(tmp_path / name, FORMAT)
