"""Binary Kaldi archives of matrices, and of sparse posteriors (Kaldi's type Posterior): where each object lies.

Shapes:  T frames of an utterance, C senones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from asr_kd.errors import UserError
from asr_kd.io.kaldi_tables import opened_at, read_token

_BINARY = b"\0B"
_INT = b"\4"  # a number's size stands before it; a matrix begins with its kind
_PAIR = np.dtype([("id_size", "i1"), ("id", "<i4"), ("value_size", "i1"), ("value", "<f4")])


def entries_of_archive(file: Path) -> Iterator[tuple[str, int]]:
    """(utterance, offset of its object), without reading the objects.

    Raises:
      UserError: the archive is no binary one of these types, or ends within an object.
    """
    size = file.stat().st_size
    with file.open("rb") as archive:
        while name := read_token(archive):
            offset = archive.tell()
            try:
                _skip(archive)
            except (KeyError, struct.error):
                raise UserError(
                    f"{file}: at {name} (byte {offset}) there is no binary Kaldi matrix or posterior"
                ) from None
            if archive.tell() > size:
                raise UserError(f"{file} ends within what {name} has")
            yield name, offset


def _skip(archive: IO[bytes]) -> None:
    if archive.read(2) != _BINARY:
        raise KeyError("text")
    first = archive.read(1)
    if first == _INT:
        (frames,) = struct.unpack("<i", archive.read(4))
        for _ in range(frames):
            archive.seek(_PAIR.itemsize * _count(archive), 1)
    else:
        archive.seek(_bytes_of_matrix(archive, (first + read_token(archive).encode()).decode()), 1)


def _count(archive: IO[bytes]) -> int:
    size, count = struct.unpack("<bi", archive.read(5))
    if size != 4 or count < 0:
        raise KeyError("no number")
    return int(count)


def _bytes_of_matrix(archive: IO[bytes], kind: str) -> int:
    """Reads a matrix's header, as in Kaldi's kaldi-matrix.cc and compressed-matrix.cc; returns the size of the rest."""
    if kind in ("FM", "DM"):
        _, rows, _, columns = struct.unpack("<bibi", archive.read(10))
        return int(rows * columns * {"FM": 4, "DM": 8}[kind])
    _, _, rows, columns = struct.unpack("<ffii", archive.read(16))
    bytes_per_entry, bytes_per_column = {"CM": (1, 8), "CM2": (2, 0), "CM3": (1, 0)}[kind]
    return int(rows * columns * bytes_per_entry + columns * bytes_per_column)


def is_sparse(where: str) -> bool:
    """Whether "file:offset" is a list of pairs, not a matrix; False where it cannot be read."""
    try:
        with opened_at(where) as archive:
            return archive.read(3) == _BINARY + _INT
    except UserError:
        return False


def read_sparse(where: str, num_senones: int) -> NDArray[np.float32]:
    """(T, C) posteriors of "file:offset", whose pairs are of a senone, counted from 0, and its posterior.

    Raises:
      UserError: it is damaged, or has a senone that there is none of.
    """
    rows = []
    with opened_at(where) as archive:
        try:
            archive.seek(3, 1)
            (frames,) = struct.unpack("<i", archive.read(4))
            for _ in range(frames):
                count = _count(archive)
                pairs = np.frombuffer(archive.read(_PAIR.itemsize * count), _PAIR, count)
                rows.append((pairs["id"], pairs["value"]))
        except (KeyError, ValueError, struct.error):
            raise UserError(f"{where}: the posteriors are damaged at frame {len(rows)}") from None
    matrix = np.zeros((len(rows), num_senones), np.float32)
    for row, (ids, values) in zip(matrix, rows, strict=True):
        if len(ids) and not (ids.min() >= 0 and ids.max() < num_senones):
            raise UserError(
                f"{where}: a pair is of senone {ids.max() if ids.min() >= 0 else ids.min()}, but the tree has senones "
                f"0 to {num_senones - 1}; posteriors of transition ids become those of senones by post-to-pdf-post."
            )
        np.add.at(row, ids, values)
    return matrix
