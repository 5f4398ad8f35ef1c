"""Kaldi's tables: the lines of an .scp, and archives of integer vectors such as alignments, binary or text.

The vectors are read here and not by kaldi-native-io, which takes an archive that is cut short for a whole one.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from asr_kd.errors import UserError
from asr_kd.io.files import open_text

_BYTES = 4
_INTEGER = np.dtype([("bytes", "i1"), ("value", "<i4")])  # each number is preceded by its size
_DAMAGED = (ValueError, OverflowError, EOFError, zlib.error, gzip.BadGzipFile)


def script_entries(file: Path) -> Iterator[tuple[str, str]]:
    """(key, "file:offset"); a file's relative name is relative to the current folder or to the .scp's.

    Raises:
      UserError: the file cannot be read, or a line is wrong or names a command.
    """
    with open_text(file, "the .scp", "write it again as UTF-8") as lines:
        for number, line in enumerate(lines, 1):
            name, _, where = line.strip().partition(" ")
            where = where.strip()
            if not where:
                raise UserError(f"{file}:{number}: this is no line of an utterance id and a file.")
            if where.startswith("|") or where.endswith("|"):  # Kaldi would run it
                raise UserError(f"{file}:{number}: this names a command, not a file; write its output to a file.")
            yield name, where if file_of(where).exists() else str(file.parent / where)


def file_of(where: str) -> Path:
    """Returns the file in which an object lies: `where` without the offset and the range of rows."""
    return Path(re.sub(r":\d+(\[.*\])?$", "", where))


def read_token(archive: IO[bytes]) -> str:
    """Reads up to the next space; returns "" at the end of the file."""
    characters = bytearray()
    while (character := archive.read(1)) not in (b"", b" "):
        characters += character
    return characters.decode("utf-8", errors="replace").strip()


def read_int_vectors(file: Path) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """(key, (n,) integers) of an .scp or of an archive, which may be gzipped, in order.

    Raises:
      UserError: a file is missing, cut short or damaged, or holds something else.
    """
    if file.suffix == ".scp":
        for name, where in script_entries(file):
            with opened_at(where) as archive:
                yield name, _vector(archive, file_of(where), name)
        return
    with _opened(file) as archive:
        while name := _key(archive, file):
            yield name, _vector(archive, file, name)


def opened_at(where: str) -> IO[bytes]:
    """The archive of "file:offset", or of a file alone, at the object.

    Raises:
      UserError: the file cannot be read.
    """
    place = file_of(where)
    archive = _opened(place)
    archive.seek(0 if place == Path(where) else int(where.rpartition(":")[2]))
    return archive


def _opened(file: Path) -> IO[bytes]:
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        return cast(IO[bytes], gzip.open(file)) if packed else file.open("rb")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check that the folder is whole.") from None


def _key(archive: IO[bytes], file: Path) -> str:
    try:
        name = read_token(archive)
    except _DAMAGED:
        name = "\n"
    if len(name.split()) > 1 or name == "\n":
        raise _wrong(file, name)
    return name


def _vector(archive: IO[bytes], file: Path, name: str) -> NDArray[np.int32]:
    """What follows a key: binary, or the rest of a line of text."""
    try:
        first = archive.read(1)
        if first not in (b"\0", b""):
            line = first if first == b"\n" else first + archive.readline()
            return np.array([int(number) for number in line.split()], np.int32)
        mark, (count,) = archive.read(1), np.frombuffer(archive.read(_INTEGER.itemsize), _INTEGER)
        numbers = np.frombuffer(archive.read(int(count["value"]) * _INTEGER.itemsize), _INTEGER)
        if mark == b"B" and len(numbers) == count["value"] and (numbers["bytes"] == _BYTES).all():
            return numbers["value"].astype(np.int32)
    except _DAMAGED:
        pass
    raise _wrong(file, name)


def _wrong(file: Path, name: str) -> UserError:
    return UserError(
        f"{file}: what it has of {name.strip()[:60]!r} is cut short or no vector of integers; write it again, one "
        "phone for each frame (ali-to-phones --per-frame=true)."
    )
