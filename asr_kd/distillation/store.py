"""Soft targets on disk: ragged top entries per frame with log-probabilities, and the left-over mass.

A folder holds `ids.npy` (E,) uint16 or int32, `log_probabilities.npy` (E,) float16 (float32 where everything is
kept), `offsets.npy` (N + 1,) int64: frame n owns entries offsets[n]:offsets[n + 1], `rest.npy` (N,) float16, the log
of the mass left over, and `background.npy` (C,) float32, the mean distribution over all frames. The left-over mass
is given back to the entries that were not kept in proportion to the background. Frames are numbered as in the
FrameStore.

Shapes:  N frames of the set, E entries kept in all, B frames in a batch, C tied states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from asr_kd.distillation.loss import SoftTargets
from asr_kd.errors import UserError
from asr_kd.io.append_log import AppendLog, reserve_header, write_header

# below this the left-over mass is taken for none (float16 cannot hold a smaller log anyway)
LOG_NOTHING = -60.0
_AT_ONCE = 1 << 22  # frames
_FEW = 64  # entries that most frames need no more than: they are found sooner than some hundreds


def stored_bytes(num_frames: int, entries: float, *, exact: bool) -> float:
    """What a store takes on disk, with so many entries a frame; see the module on its files."""
    return num_frames * (entries * (6 if exact else 4) + 14)


@dataclass(frozen=True)
class Kept:
    """The kept entries of B frames, flat: frame b owns counts[b] entries in a row."""

    ids: np.ndarray  # (E,) int64
    log_probabilities: np.ndarray  # (E,) float32
    counts: np.ndarray  # (B,) int64
    rest: np.ndarray  # (B,) float32, log of the left-over mass


def truncate(log_probabilities: Tensor, *, keep_mass: float, max_entries: int) -> Kept:
    """For each frame the smallest set of entries that holds `keep_mass`, at most `max_entries`.

    Args:
      log_probabilities: (B, C).
    """
    count = min(max_entries, log_probabilities.shape[1])
    everything = keep_mass >= 1 and max_entries >= log_probabilities.shape[1]
    values, ids = log_probabilities.topk(count if everything else min(_FEW, count), dim=-1)
    mass = values.exp().cumsum(-1)
    if not everything and values.shape[1] < count:
        short = (mass[:, -1] < keep_mass).nonzero().squeeze(1)
        missing = (0, count - values.shape[1])
        values, ids = F.pad(values, missing, value=-math.inf), F.pad(ids, missing)
        values[short], ids[short] = log_probabilities[short].topk(count, dim=-1)
        mass = values.exp().cumsum(-1)
    # an entry is needed while the mass before it falls short
    needed = torch.ones_like(mass, dtype=torch.bool)
    if not everything:
        needed[:, 1:] = (mass[:, :-1] < keep_mass) & (values[:, 1:] > -math.inf)
    left = (1 - torch.where(needed, values.exp(), torch.zeros_like(values)).double().sum(-1)).clamp_min(0)
    rest = left.log().clamp_min(LOG_NOTHING) if not everything else torch.full_like(left, LOG_NOTHING)
    return Kept(
        ids[needed].cpu().numpy(),
        values[needed].float().cpu().numpy(),
        needed.sum(-1).cpu().numpy(),
        rest.float().cpu().numpy(),
    )


class SoftTargetWriter:
    """Appends frames in order; `close` makes the folder whole. Nothing that grows with the set is held in memory.

    A folder in which a killed writer had made a mark is gone on with from there.
    """

    def __init__(self, folder: Path, num_states: int, background: np.ndarray, *, exact: bool) -> None:
        """`exact`: float32 log-probabilities, for a store that cuts nothing."""
        self._folder, self._background = folder, background
        self._types = {
            "ids": np.dtype(np.uint16 if num_states <= 1 << 16 else np.int32),
            "log_probabilities": np.dtype(np.float32 if exact else np.float16),
            "rest": np.dtype(np.float16),
            "counts": np.dtype(np.int32),
        }
        self._growing = AppendLog(folder, [self._file(name) for name in self._types])
        self.note: Any = self._growing.note  # what the last mark said
        self._frames = self._entries = 0
        if self.note is not None:
            self._frames, self._entries, self.note = self.note["frames"], self.note["entries"], self.note["note"]
        else:
            for name in self._types:
                reserve_header(self._growing.files[self._file(name)])

    @staticmethod
    def _file(name: str) -> str:
        return f"{name}.npy"

    def append(self, kept: Kept) -> None:
        arrays = {
            "ids": kept.ids,
            "log_probabilities": kept.log_probabilities,
            "rest": kept.rest,
            "counts": kept.counts,
        }
        for name, array in arrays.items():
            self._growing.files[self._file(name)].write(array.astype(self._types[name]).tobytes())
        self._frames += len(kept.counts)
        self._entries += len(kept.ids)

    def commit(self, note: Any) -> None:
        """Now and then notes that all so far is whole, with what the caller wants to know then (plain data)."""
        self._growing.commit_if_due(lambda: {"frames": self._frames, "entries": self._entries, "note": note})

    def close(self) -> None:
        for name, dtype in self._types.items():
            length = self._frames if name in ("rest", "counts") else self._entries
            write_header(self._growing.files[self._file(name)], dtype, (length,))
        self._growing.close()
        counts = self._folder / self._file("counts")
        _write_offsets(counts, self._folder / "offsets.npy")
        np.save(self._folder / "background.npy", self._background.astype(np.float32))
        counts.unlink()
        self._growing.finish()


def _write_offsets(counts: Path, target: Path) -> None:
    of_frames = np.load(counts, mmap_mode="r") if counts.stat().st_size > 128 else np.zeros(0, np.int32)
    offsets = np.lib.format.open_memmap(target, mode="w+", dtype=np.int64, shape=(len(of_frames) + 1,))
    offsets[0] = 0
    for first in range(0, len(of_frames), _AT_ONCE):
        sums = offsets[first] + np.cumsum(of_frames[first : first + _AT_ONCE], dtype=np.int64)
        offsets[first + 1 : first + 1 + len(sums)] = sums
    offsets.flush()


class SoftTargetStore:
    """Reads a folder that SoftTargetWriter made."""

    def __init__(
        self, folder: Path, *, temperature: float, num_frames: int, device: str | torch.device = "cpu"
    ) -> None:
        """Memory-maps the folder.

        Raises:
          UserError: a part is missing or the store is not for `num_frames` frames.
        """
        try:
            self._ids = np.load(folder / "ids.npy", mmap_mode="r")
            self._values = np.load(folder / "log_probabilities.npy", mmap_mode="r")
            self._offsets = np.load(folder / "offsets.npy", mmap_mode="r")
            self._rest = np.load(folder / "rest.npy", mmap_mode="r")
            background = np.load(folder / "background.npy")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder}: the soft targets are damaged ({error}); delete the folder and make them again."
            ) from None
        if len(self._offsets) != num_frames + 1 or self._offsets[-1] != len(self._ids):
            raise UserError(
                f"{folder} holds soft targets of {len(self._offsets) - 1} frames, but the training set has "
                f"{num_frames}; make them again with asr-kd soft-targets."
            )
        self.temperature = temperature
        self._background = torch.from_numpy(background).to(device)
        self._device = torch.device(device)

    @property
    def num_frames(self) -> int:
        return len(self._rest)

    @property
    def bytes_per_frame(self) -> float:
        arrays = (self._ids, self._values, self._offsets, self._rest)
        return sum(a.nbytes for a in arrays) / max(1, self.num_frames)

    def read(self, frames: np.ndarray) -> SoftTargets:
        """(B,) frame numbers -> the restored distributions of those frames."""
        first, last = self._offsets[frames], self._offsets[frames + 1]
        counts = last - first
        flat = np.repeat(first - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) + np.arange(counts.sum())
        kept = Kept(
            self._ids[flat].astype(np.int64),
            self._values[flat].astype(np.float32),
            counts,
            self._rest[frames].astype(np.float32),
        )
        return SoftTargets(restore(kept, self._background, self._device), self.temperature)


def restore(kept: Kept, background: Tensor, device: torch.device | None = None) -> Tensor:
    """(B, C) natural-log distributions: kept entries as they are, the rest spread as the background is.

    Rows are normalised: rounding to float16 leaves a row's sum a little off one.
    """
    device = device or background.device
    rows = torch.from_numpy(np.repeat(np.arange(len(kept.counts)), kept.counts)).to(device)
    ids = torch.from_numpy(kept.ids).to(device)
    rest = torch.from_numpy(kept.rest).to(device)
    dense = background.to(device).repeat(len(kept.counts), 1)
    dense[rows, ids] = 0.0
    left = dense.sum(-1, keepdim=True).clamp_min(1e-30)
    dense = dense.clamp_min(1e-30).log() + (rest.unsqueeze(1) - left.log())
    dense[rows, ids] = torch.from_numpy(kept.log_probabilities).to(device)
    return dense - torch.logsumexp(dense, -1, keepdim=True)
