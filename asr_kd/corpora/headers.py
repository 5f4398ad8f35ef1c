"""Headers of audio files that promise more than is there, which libsndfile reads without an error."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from asr_kd.corpora.sources import BadAudio

_UNKNOWN_LENGTH = 0x7FFF0000  # a program that writes to a pipe promises so many bytes or more
_UNKNOWN_LONG_LENGTH = 1 << 62


def check_header(file: BinaryIO, name: str) -> None:
    """Checks WAV (RF64 too) and NIST SPHERE, whatever the file's name; leaves the file at its beginning.

    Args:
      name: of the recording, for messages.

    Raises:
      BadAudio: the file is empty, shorter than its header says, or compressed in a way that libsndfile does not read.
    """
    if file.seek(0, io.SEEK_END) == 0:
        raise BadAudio(f"{name} is empty; record it again")
    _check_wav_length(file, name)
    _check_sphere(file, name)
    file.seek(0)


def _check_sphere(file: BinaryIO, name: str) -> None:
    """NIST SPHERE's header is text, as long as its second line says."""
    file.seek(0)
    if file.read(8) != b"NIST_1A\n":
        return
    header = file.read(1016).decode("ascii", "replace")
    fields = {line.split()[0]: line.split()[-1] for line in header.splitlines()[1:] if len(line.split()) == 3}
    try:
        start, samples, width = int(header.split()[0]), int(fields["sample_count"]), int(fields["sample_n_bytes"])
        channels = int(fields.get("channel_count", 1))
    except (KeyError, ValueError, IndexError):
        return  # libsndfile decides
    if "shorten" in fields.get("sample_coding", ""):
        raise BadAudio(f"{name} is compressed with shorten, which libsndfile does not read; convert it with sph2pipe")
    promised, present = samples * width * channels, file.seek(0, io.SEEK_END) - start
    if fields.get("sample_coding", "pcm") == "pcm" and present < promised:
        raise BadAudio(
            f"{name} is cut short: its header promises {promised} bytes, {present} are there; fetch it again"
        )


def _check_wav_length(file: BinaryIO, name: str) -> None:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RIFX", b"RF64") or head[8:] != b"WAVE":
        return  # libsndfile decides
    order, long_length = ">" if head[:4] == b"RIFX" else "<", None
    while len(chunk := file.read(8)) == 8:
        kind, length = struct.unpack(f"{order}4sI", chunk)
        left = size - file.tell()
        if kind == b"ds64" and len(lengths := file.read(16)) == 16:  # RF64: lengths of 64 bits
            long_length = struct.unpack("<QQ", lengths)[1]
            length -= 16
        if kind == b"data":
            unknown = length >= _UNKNOWN_LENGTH and (long_length is None or long_length >= _UNKNOWN_LONG_LENGTH)
            if length >= _UNKNOWN_LENGTH and long_length is not None:
                length = long_length
            if length == 0 < left:
                raise BadAudio(f"{name}: its header promises no samples, but {left} bytes follow; write it to a file")
            if left < length and not unknown:
                raise BadAudio(
                    f"{name} is cut short: its header promises {length} bytes, {left} are there; fetch it again"
                )
            return
        file.seek(length + length % 2, io.SEEK_CUR)
    raise BadAudio(f"{name} is cut short: it ends inside its header; fetch it again")
