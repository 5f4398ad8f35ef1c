"""Weighted transducers as plain arrays, and the way to kaldifst and back.

kaldifst reads and writes only named files, so both ways go through OpenFst's binary format in a temporary file.
"""

from __future__ import annotations

import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kaldifst
import numpy as np

# OpenFst's header: magic number, "vector", "standard", version 2, no flags, properties expanded | mutable.
_HEADER = struct.pack("<ii6si8siiq", 0x7EB2FDD6, 6, b"vector", 8, b"standard", 2, 0, 3)
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
    with tempfile.TemporaryDirectory(prefix="asr_kd.") as folder:
        path = Path(folder) / "fst"
        path.write_bytes(_HEADER + _COUNTS.pack(fst.start, states, arcs) + body.tobytes())
        return kaldifst.StdVectorFst.read(str(path))


def from_kaldifst(fst: Any) -> Fst:
    """The arrays of a kaldifst.StdVectorFst, arcs sorted by source state."""
    with tempfile.TemporaryDirectory(prefix="asr_kd.") as folder:
        path = Path(folder) / "fst"
        fst.write(str(path))
        raw = path.read_bytes()
    start, states, _ = _COUNTS.unpack_from(raw, len(_HEADER))
    body = np.frombuffer(raw[len(_HEADER) + _COUNTS.size :], _INT)
    counts = np.empty(states, np.int64)
    at = 0
    for state in range(states):
        counts[state] = body[at + 1]
        at += 3 + 4 * int(body[at + 1])
    heads = 3 * np.arange(states) + 4 * (np.cumsum(counts) - counts)
    is_arc = np.ones(len(body), bool)
    is_arc[(heads[:, None] + np.arange(3)).ravel()] = False
    ilabel, olabel, cost, dst = np.ascontiguousarray(body[is_arc].reshape(-1, 4).T)
    src = np.repeat(np.arange(states, dtype=np.int32), counts)
    return Fst(src, dst, ilabel, olabel, cost.view(np.float32), body[heads].view(np.float32), start)
