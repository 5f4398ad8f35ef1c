"""Weighted transducers as plain arrays, and the way to kaldifst and back.

kaldifst reads and writes only named files, so both ways go through OpenFst's binary format in a temporary file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kaldifst
import numpy as np

from asr_kd.errors import UserError
from asr_kd.io.files import full_disk_is_an_error

# OpenFst's header: magic number, "vector", "standard", version 2, no flags, properties expanded | mutable.
_MAGIC = 0x7EB2FDD6
_HEADER = struct.pack("<ii6si8siiq", _MAGIC, 6, b"vector", 8, b"standard", 2, 0, 3)
_COUNTS = struct.Struct("<qqq")  # start state, states, arcs
_INT = np.dtype("<i4")


@dataclass(frozen=True)
class Fst:
    """A transducer over the tropical semiring; A arcs in any order, S states, labels 0 are epsilon.

    src, dst, ilabel, olabel: (A,) int32. cost: (A,) float32, natural -log. final: (S,) float32, inf: not final.
    """

    src: np.ndarray
    dst: np.ndarray
    ilabel: np.ndarray
    olabel: np.ndarray
    cost: np.ndarray
    final: np.ndarray
    start: int = 0

    @property
    def num_states(self) -> int:
        return len(self.final)

    @property
    def num_arcs(self) -> int:
        return len(self.src)


@dataclass(frozen=True)
class Lattice:
    """A lattice of Kaldi's: graph and acoustic costs apart; A arcs sorted by source, S states, state 0 the start.

    src, dst, output: (A,) int32. graph, acoustic: (A,) float32, natural -log. final: (S,) float32, graph cost of ending
    there, inf: not final.
    """

    src: np.ndarray
    dst: np.ndarray
    output: np.ndarray
    graph: np.ndarray
    acoustic: np.ndarray
    final: np.ndarray


def with_one_end(lattice: Lattice) -> Lattice:
    """The same lattice with arcs without output from each final state to one more, which alone is final."""
    ends, last = np.flatnonzero(np.isfinite(lattice.final)).astype(np.int32), len(lattice.final)
    nothing = np.zeros(len(ends), np.int32)
    src = np.concatenate([lattice.src, ends])
    order = np.argsort(src, kind="stable")
    columns = {
        "dst": (lattice.dst, nothing + last),
        "output": (lattice.output, nothing),
        "graph": (lattice.graph, lattice.final[ends]),
        "acoustic": (lattice.acoustic, nothing.astype(np.float32)),
    }
    final = np.full(last + 1, np.inf, np.float32)
    final[last] = 0.0
    rest = {name: np.concatenate(both)[order].astype(both[0].dtype) for name, both in columns.items()}
    return Lattice(src=src[order], final=final, **rest)


def spans(keys: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns where each key's rows begin and end once they are sorted by key: two (size,) int64."""
    last = np.cumsum(np.bincount(keys, minlength=size))
    return np.concatenate([[0], last[:-1]]), last


def numbers_in(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers in the ranges [first, last), and for each the range it comes from."""
    lengths = last - first
    entry = np.repeat(np.arange(len(lengths)), lengths)
    return first[entry] + np.arange(len(entry)) - np.repeat(np.cumsum(lengths) - lengths, lengths), entry


def to_kaldifst(fst: Fst) -> Any:
    """The same transducer as a kaldifst.StdVectorFst; arcs of one state keep their order."""
    states, arcs = fst.num_states, fst.num_arcs
    order = np.argsort(fst.src, kind="stable")
    counts = np.bincount(fst.src, minlength=states).astype("<i8")
    # Each state is written as final weight (4 bytes), number of arcs (8), arcs (16 each): all of it in 4-byte words.
    body = np.empty(3 * states + 4 * arcs, _INT)
    first_arc = np.cumsum(counts) - counts
    at = 3 * np.arange(states) + 4 * first_arc
    body[at] = fst.final.astype("<f4").view(_INT)
    body[at + 1], body[at + 2] = counts.view(_INT).reshape(-1, 2).T
    at = 3 * (fst.src[order].astype(np.int64) + 1) + 4 * np.arange(arcs)
    body[at] = fst.ilabel[order]
    body[at + 1] = fst.olabel[order]
    body[at + 2] = fst.cost[order].astype("<f4").view(_INT)
    body[at + 3] = fst.dst[order]
    with _temporary_file() as path:
        path.write_bytes(_HEADER + _COUNTS.pack(fst.start, states, arcs) + body.tobytes())
        return kaldifst.StdVectorFst.read(str(path))


def from_kaldifst(fst: Any) -> Fst:
    """The arrays of a kaldifst.StdVectorFst, arcs sorted by source state."""
    start, final, src, arcs = _read(fst, weights=1)
    ilabel, olabel, cost, dst = np.ascontiguousarray(arcs.T)
    return Fst(src, dst, ilabel, olabel, cost.view(np.float32), final[:, 0], start)


def from_lattice(lattice: Any) -> Lattice:
    """The arrays of a kaldifst.Lattice.

    Raises:
      ValueError: it does not start in state 0.
    """
    start, final, src, arcs = _read(lattice, weights=2)
    if start != 0:
        raise ValueError(f"the lattice starts in state {start}")
    _, output, graph, acoustic, dst = np.ascontiguousarray(arcs.T)
    return Lattice(src, dst, output, graph.view(np.float32), acoustic.view(np.float32), final.sum(1))


def _read(fst: Any, weights: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """The parts of a kaldifst object whose weights are so many numbers each.

    Returns:
      The start state; (S, weights) float32 final weights; (A,) int32 sources; (A, 3 + weights) int32 the rest of each
      arc: input label, output label, weights, destination.
    """
    with _temporary_file() as path:
        if not fst.write(str(path)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raw = path.read_bytes()
    states = fst.num_states
    counts = np.array([fst.num_arcs(state) for state in range(states)], np.int64)
    head, width = weights + 2, weights + 3  # words of a state's head (weights, number of arcs), and of an arc
    size = 4 * int(head * states + width * counts.sum())
    body = np.frombuffer(raw, _INT, offset=len(raw) - size)  # after the header
    heads = head * np.arange(states) + width * (np.cumsum(counts) - counts)
    is_arc = np.ones(len(body), bool)
    is_arc[(heads[:, None] + np.arange(head)).ravel()] = False
    final = body[heads[:, None] + np.arange(weights)].view(np.float32)
    return fst.start, final, np.repeat(np.arange(states, dtype=np.int32), counts), body[is_arc].reshape(-1, width)


@contextlib.contextmanager
def _temporary_file() -> Iterator[Path]:
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # it tried to write in each
        raise UserError(f"{error.strerror}; set TMPDIR to a folder that can be written.") from None
    with full_disk_is_an_error(folder), tempfile.TemporaryDirectory(prefix="asr_kd.", dir=folder) as name:
        yield Path(name) / "fst"
