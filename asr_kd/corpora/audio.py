"""Whether a recording can be used: whole, mono, at the right rate, with finite samples that are not all the same."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".wav", ".flac")
_UNKNOWN_LENGTH = 0x7FFF0000  # a program that writes to a pipe promises so many bytes or more
_NO_LENGTH = 1 << 62  # samples: what libsndfile says where it cannot know
_BLOCK = 1 << 20  # samples


class BadAudio(Exception):
    """Why a recording cannot be used, and what to do."""


def check_audio(path: Path, sampling_rate: int) -> int:
    """Reads all of a recording and returns its number of samples; raises as `read_audio` does."""
    return len(read_audio(path, sampling_rate))


def read_audio(path: Path, sampling_rate: int) -> NDArray[np.float32]:
    """(n,) all samples of a recording, from -1 to 1.

    Raises:
      BadAudio: the file is missing, damaged, cut short, of another rate, not mono, not finite or digital silence.
    """
    import soundfile

    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".wav":
                _check_wav_length(path, file)
                _check_sphere(path, file)
        with soundfile.SoundFile(path) as sound:
            if sound.samplerate != sampling_rate:
                raise BadAudio(
                    f"{path} has {sound.samplerate} Hz, the config says {sampling_rate}; "
                    "convert it, or set corpus.sampling_rate"
                )
            if sound.channels != 1:
                raise BadAudio(f"{path} has {sound.channels} channels; make it mono")
            promised = sound.frames
            # from the beginning to the end: FLAC of unknown length and GSM cannot be sought in
            sound.seekable = lambda: False
            blocks = [sound.read(_BLOCK, dtype="float32")]
            while len(blocks[-1]) == _BLOCK:
                blocks.append(sound.read(_BLOCK, dtype="float32"))
            samples: NDArray[np.float32] = np.concatenate(blocks)
    except FileNotFoundError:
        raise BadAudio(f"{path} is missing; put it there, or delete its transcript") from None
    except OSError as error:
        raise BadAudio(f"{path} cannot be read ({error.strerror}); check the file's rights") from None
    except soundfile.LibsndfileError as error:
        raise BadAudio(f"{path} is damaged ({error.error_string.rstrip('.')}); fetch it again") from None
    if len(samples) < promised < _NO_LENGTH:
        raise BadAudio(f"{path} is cut short: {len(samples)} of {promised} samples; fetch it again")
    if len(samples) == 0:
        raise BadAudio(f"{path} holds no samples; record it again")
    if not np.isfinite(samples).all():
        raise BadAudio(f"{path} holds samples that are not finite (NaN); write it again")
    if samples.min() == samples.max():
        raise BadAudio(f"{path} is digital silence; record it again, or delete its transcript")
    return samples


def _check_sphere(path: Path, file: BinaryIO) -> None:
    """Refuses NIST SPHERE that is cut short or compressed; its header is text, as long as its second line says."""
    file.seek(0)
    if file.read(8) != b"NIST_1A\n":
        return
    header = file.read(1016).decode("ascii", "replace")
    fields = {line.split()[0]: line.split()[-1] for line in header.splitlines()[1:] if len(line.split()) == 3}
    try:
        start, samples, width = int(header.split()[0]), int(fields["sample_count"]), int(fields["sample_n_bytes"])
    except (KeyError, ValueError, IndexError):
        return  # libsndfile decides
    if "shorten" in fields.get("sample_coding", ""):
        raise BadAudio(f"{path} is compressed with shorten, which libsndfile does not read; convert it with sph2pipe")
    present = path.stat().st_size - start
    if fields.get("sample_coding", "pcm") == "pcm" and present < samples * width:
        raise BadAudio(
            f"{path} is cut short: its header promises {samples * width} bytes, {present} are there; fetch it again"
        )


def _check_wav_length(path: Path, file: BinaryIO) -> None:
    """libsndfile reads a truncated WAV without an error, so the header is compared with the file's size."""
    size = path.stat().st_size
    head = file.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RIFX") or head[8:] != b"WAVE":
        return  # libsndfile decides
    order = "<" if head[:4] == b"RIFF" else ">"
    while len(chunk := file.read(8)) == 8:
        name, length = struct.unpack(f"{order}4sI", chunk)
        left = size - file.tell()
        if name == b"data":
            if length == 0 < left:
                raise BadAudio(f"{path}: its header promises no samples, but {left} bytes follow; write it to a file")
            if left < length < _UNKNOWN_LENGTH:
                raise BadAudio(
                    f"{path} is cut short: its header promises {length} bytes, {left} are there; fetch it again"
                )
            return
        file.seek(length + length % 2, 1)
    raise BadAudio(f"{path} is cut short: it ends inside its header; fetch it again")
