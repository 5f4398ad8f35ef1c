"""Soft targets on disk: the largest entries of each frame's distribution, ragged, and the mass left over.

A folder holds `ids.npy` (E,) uint16 or int32, `log_probabilities.npy` (E,) float16 (float32 where nothing is cut),
`offsets.npy` (N + 1,) int64: frame n owns entries offsets[n]:offsets[n + 1], `log_residual_mass.npy` (N,) float16, and
`mean_distribution.npy` (C,) float32, the mean over all frames, estimated from a sample. The residual mass is spread
over the entries that were cut in proportion to the mean distribution. Frames are numbered as in the FrameStore; a
frame without entries has no target.

Shapes:  N frames of the set, E entries stored in all, B frames in a batch, C senones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
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
from asr_kd.kernels.transfer import on_device

LOG_NO_MASS = -60.0  # stands for a residual mass of zero, which float16 has no logarithm for
_FIRST_TOPK = 64  # most frames need no more entries, and topk of 64 is much faster than of several hundred


class SoftTargetsError(UserError):
    """A folder of soft targets is damaged, or is not for these frames."""


def stored_bytes(num_frames: int, entries: float, *, exact: bool) -> float:
    """Size of a store on disk with that many entries a frame on average."""
    return num_frames * (entries * (6 if exact else 4) + 10)


@dataclass(frozen=True)
class TopK:
    """The largest entries of B frames, flat: frame b owns counts[b] entries in a row."""

    ids: np.ndarray  # (E,) int64
    log_probabilities: np.ndarray  # (E,) float32
    counts: np.ndarray  # (B,) int64; 0: the frame has no target
    log_residual_mass: np.ndarray  # (B,) float32

    @classmethod
    def concatenate(cls, parts: Sequence[TopK]) -> TopK:
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @classmethod
    def absent(cls, frames: int) -> TopK:
        """Returns the entries of frames without targets: none."""
        return cls(
            np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(frames, np.int64), np.zeros(frames, np.float32)
        )


def truncate(log_probabilities: Tensor, *, keep_mass: float, max_entries: int) -> TopK:
    """Returns for each frame the smallest set of entries that holds `keep_mass`, at most `max_entries`.

    Args:
      log_probabilities: (B, C).
    """
    count = min(max_entries, log_probabilities.shape[1])
    exact = cuts_nothing(keep_mass, max_entries, log_probabilities.shape[1])
    values, ids = log_probabilities.topk(count if exact else min(_FIRST_TOPK, count), dim=-1)
    mass = values.exp().cumsum(-1)
    if not exact and values.shape[1] < count:
        short = (mass[:, -1] < keep_mass).nonzero().squeeze(1)
        padding = (0, count - values.shape[1])
        values, ids = F.pad(values, padding, value=-math.inf), F.pad(ids, padding)
        values[short], ids[short] = log_probabilities[short].topk(count, dim=-1)
        mass = values.exp().cumsum(-1)
    # an entry is needed as long as the mass before it is too small
    needed = torch.ones_like(mass, dtype=torch.bool)
    if not exact:
        needed[:, 1:] = (mass[:, :-1] < keep_mass) & (values[:, 1:] > -math.inf)
    residual = (1 - torch.where(needed, values.exp(), torch.zeros_like(values)).double().sum(-1)).clamp_min(0)
    log_residual = torch.full_like(residual, LOG_NO_MASS) if exact else residual.log().clamp_min(LOG_NO_MASS)
    return TopK(
        ids[needed].cpu().numpy(),
        values[needed].float().cpu().numpy(),
        needed.sum(-1).cpu().numpy(),
        log_residual.float().cpu().numpy(),
    )


def cuts_nothing(keep_mass: float, max_entries: int, num_senones: int) -> bool:
    """Whether a store with these settings holds whole distributions."""
    return keep_mass >= 1 and max_entries >= num_senones


class SoftTargetWriter:
    """Appends frames in order; `close` completes the folder. Memory does not grow with the set.

    In a folder that a killed writer left, it continues after the last commit.

    Args:
      mean_distribution: (C,).
      exact: store float32 log-probabilities, for a store that cuts nothing.

    Attributes:
      note: the caller's note of the last commit; None in a new folder.
    """

    def __init__(self, folder: Path, num_senones: int, mean_distribution: np.ndarray, *, exact: bool) -> None:
        self._folder, self._mean_distribution = folder, mean_distribution
        self._types = {
            "ids": np.dtype(np.uint16 if num_senones <= 1 << 16 else np.int32),
            "log_probabilities": np.dtype(np.float32 if exact else np.float16),
            "log_residual_mass": np.dtype(np.float16),
            "offsets": np.dtype(np.int64),
        }
        self._log = AppendLog(folder, [f"{name}.npy" for name in self._types])
        self._files = {name: self._log.files[f"{name}.npy"] for name in self._types}
        self.note: Any = None
        self._frames = self._entries = 0
        if self._log.note is None:
            for file in self._files.values():
                reserve_header(file)
            self._files["offsets"].write(bytes(8))
        else:
            self._frames, self._entries, self.note = (self._log.note[key] for key in ("frames", "entries", "note"))

    def append(self, targets: TopK) -> None:
        ends = self._entries + np.cumsum(targets.counts, dtype=np.int64)
        columns = (targets.ids, targets.log_probabilities, targets.log_residual_mass, ends)
        for (name, dtype), column in zip(self._types.items(), columns, strict=True):
            self._files[name].write(column.astype(dtype).tobytes())
        self._frames += len(targets.counts)
        self._entries += len(targets.ids)

    def commit(self, note: Any) -> None:
        """Commits what was appended, where the last commit was some time ago; `note` is the caller's plain data."""
        self._log.commit_if_due(lambda: {"frames": self._frames, "entries": self._entries, "note": note})

    def close(self) -> None:
        lengths = (self._entries, self._entries, self._frames, self._frames + 1)
        for (name, dtype), length in zip(self._types.items(), lengths, strict=True):
            write_header(self._files[name], dtype, (length,))
        np.save(self._folder / "mean_distribution.npy", self._mean_distribution.astype(np.float32))
        self._log.finish()


class SoftTargetStore:
    """Reads a folder that SoftTargetWriter wrote.

    Raises:
      SoftTargetsError: a part is missing or damaged, or the store is not for `num_frames` frames.
    """

    def __init__(
        self, folder: Path, *, temperature: float, num_frames: int, device: str | torch.device = "cpu"
    ) -> None:
        try:
            self._ids = np.load(folder / "ids.npy", mmap_mode="r")
            self._values = np.load(folder / "log_probabilities.npy", mmap_mode="r")
            self._offsets = np.load(folder / "offsets.npy", mmap_mode="r")
            self._log_residual_mass = np.load(folder / "log_residual_mass.npy", mmap_mode="r")
            mean_distribution = np.load(folder / "mean_distribution.npy")
        except (OSError, ValueError) as error:
            raise SoftTargetsError(f"{folder}: the soft targets are damaged ({error})") from None
        if len(self._offsets) != num_frames + 1 or self._offsets[-1] != len(self._ids):
            raise SoftTargetsError(
                f"{folder} holds soft targets of {len(self._offsets) - 1} frames, but the training set has {num_frames}"
            )
        self.temperature = temperature
        self._mean_distribution = torch.from_numpy(mean_distribution).to(device)
        self._device = torch.device(device)

    @property
    def num_frames(self) -> int:
        return len(self._log_residual_mass)

    @property
    def bytes_per_frame(self) -> float:
        arrays = (self._ids, self._values, self._offsets, self._log_residual_mass)
        return sum(a.nbytes for a in arrays) / max(1, self.num_frames)

    def read(self, frames: np.ndarray) -> SoftTargets:
        """(B,) frame numbers -> the restored distributions of those frames."""
        first, end = self._offsets[frames], self._offsets[frames + 1]
        counts = end - first
        entries = np.repeat(first - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) + np.arange(counts.sum())
        targets = TopK(
            self._ids[entries].astype(np.int64),
            self._values[entries].astype(np.float32),
            counts,
            self._log_residual_mass[frames].astype(np.float32),
        )
        distributions = restore(targets, self._mean_distribution)
        present = None if counts.all() else on_device(counts > 0, self._device)
        return SoftTargets(distributions, self.temperature, present)


def restore(targets: TopK, mean_distribution: Tensor) -> Tensor:
    """(B, C) natural-log distributions: stored entries as they are, the residual spread as the mean distribution is.

    Each distribution is normalised, as its stored entries are rounded. One without entries is the mean distribution,
    on whose device all are.
    """
    device = mean_distribution.device
    rows = on_device(np.repeat(np.arange(len(targets.counts)), targets.counts), device)
    ids, log_residual_mass = on_device(targets.ids, device), on_device(targets.log_residual_mass, device)
    dense = mean_distribution.repeat(len(targets.counts), 1)
    dense[rows, ids] = 0.0
    cut = dense.sum(-1, keepdim=True).clamp_min(1e-30)
    dense = dense.clamp_min(1e-30).log() + (log_residual_mass.unsqueeze(1) - cut.log())
    dense[rows, ids] = on_device(targets.log_probabilities, device)
    return dense - torch.logsumexp(dense, -1, keepdim=True)
