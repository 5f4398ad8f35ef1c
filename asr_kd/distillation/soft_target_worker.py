"""Runs of training frames -> those entries of the ensemble's distribution that are kept; each in any process.

What a frame's entries are does not depend on how the runs are spread over processes: the batches are the same, and on
CPUs each is computed by one thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from asr_kd.acoustic.model import AcousticModel, load_model
from asr_kd.distillation.store import Kept, restore, truncate
from asr_kd.distillation.targets import OnlineTargets
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import ChunkedFrames
from asr_kd.kernels.malloc import disable_malloc_trim
from asr_kd.kernels.threads import one_thread
from asr_kd.stages.train import answers_for
from asr_kd.workspace.config import SoftTargetsConfig

FRAMES_AT_ONCE = 2048
SAMPLE_FRAMES = 20000  # from which the mean distribution is estimated
SUMS = ("retained_mass", "kl", "entropy", "entries")
_LONGEST = 1 << 16  # frames of a run
_MOST_ENTRIES = 1 << 22  # of a run: 50 MB on their way from one process to another


@dataclass(frozen=True)
class Ensemble:
    """Where a process finds frames and teachers, and what it is to keep of their distribution."""

    frames: Path
    teachers: Path
    settings: SoftTargetsConfig
    num_states: int
    device: str

    @property
    def exact(self) -> bool:
        """Nothing is cut off."""
        return self.settings.keep_mass >= 1 and self.settings.max_entries >= self.num_states

    @property
    def most_entries(self) -> int:
        """Of a frame."""
        return min(self.settings.max_entries, self.num_states)

    @property
    def run_frames(self) -> int:
        """Frames that are worked on at a time, a whole number of batches."""
        return FRAMES_AT_ONCE * max(1, min(_LONGEST, _MOST_ENTRIES // self.most_entries) // FRAMES_AT_ONCE)


@dataclass(frozen=True)
class Run:
    """Frames `first` to `end` (exclusive); `background` is the (C,) mean distribution."""

    ensemble: Ensemble
    first: int
    end: int
    background: np.ndarray


@dataclass(frozen=True)
class SoftTargetShard:
    """What is kept of a run, and sums over its frames by name of SUMS: mass, KL(full || restored), entropy, entries."""

    kept: Kept
    sums: dict[str, float]


def compute_soft_targets(run: Run) -> SoftTargetShard:
    """Runs the teachers over the frames of a run."""
    disable_malloc_trim()  # not in `sample`: the process that asks for one may only wait for helpers afterwards
    ensemble, settings = run.ensemble, run.ensemble.settings
    background = torch.from_numpy(run.background).to(ensemble.device)
    found: list[Kept] = []
    sums = dict.fromkeys(SUMS, 0.0)
    with _threads_of(ensemble):
        for full in _distributions(ensemble, torch.arange(run.first, run.end)):
            kept = truncate(full, keep_mass=settings.keep_mass, max_entries=settings.max_entries)
            restored = restore(kept, background)
            found.append(kept)
            sums["retained_mass"] += float(np.exp(kept.log_probabilities.astype(np.float64)).sum())
            sums["kl"] += float((full.exp() * (full - restored)).sum())
            sums["entropy"] -= float((full.exp() * full).sum())
            sums["entries"] += len(kept.ids)
    names = ("ids", "log_probabilities", "counts", "rest")
    return SoftTargetShard(Kept(*(np.concatenate([getattr(kept, name) for kept in found]) for name in names)), sums)


def sample(ensemble: Ensemble, seed: int) -> tuple[np.ndarray, float]:
    """The (C,) float32 mean distribution over a random sample of frames, and how many entries one of them keeps."""
    num_frames, settings = _loaded(ensemble)[1].num_frames, ensemble.settings
    drawn = torch.randperm(num_frames, generator=torch.Generator().manual_seed(seed))[:SAMPLE_FRAMES].sort().values
    total = torch.zeros(ensemble.num_states, device=ensemble.device)
    entries = 0
    with _threads_of(ensemble):
        for full in _distributions(ensemble, drawn):
            total += full.exp().sum(0)
            entries += len(truncate(full, keep_mass=settings.keep_mass, max_entries=settings.max_entries).ids)
    return (total / total.sum()).cpu().numpy(), entries / len(drawn)


def forget() -> None:
    """Frees the teachers of this process."""
    _loaded.cache_clear()


def _distributions(ensemble: Ensemble, frames: torch.Tensor) -> Iterator[torch.Tensor]:
    """(B, C) natural-log distributions at the settings' temperature, for each batch of the (ascending) frames."""
    provider, windows = _loaded(ensemble)
    for part in frames.to(ensemble.device).split(FRAMES_AT_ONCE):
        yield provider.targets(part, windows.inputs(part)).log_probabilities


@lru_cache(maxsize=1)
def _loaded(ensemble: Ensemble) -> tuple[OnlineTargets, ChunkedFrames]:
    store, teachers = FrameStore.open(ensemble.frames), load_model(ensemble.teachers, ensemble.device)
    model = teachers.settings
    windows = ChunkedFrames(
        store,
        left=model.left_context,
        right=model.right_context,
        chunk_frames=ensemble.run_frames,
        device=ensemble.device,
        dtype=torch.float32,
    )
    return online_targets(ensemble.settings, store, teachers), windows


def online_targets(settings: SoftTargetsConfig, store: FrameStore, teachers: AcousticModel) -> OnlineTargets:
    """The ensemble's own answers; out of fold where the settings want that."""
    folds = settings.out_of_fold
    members = answers_for(store, folds, teachers.members) if folds > 1 else None
    return OnlineTargets(teachers, temperature=settings.temperature, mean=settings.mean, members=members)


def _threads_of(ensemble: Ensemble) -> contextlib.AbstractContextManager[None]:
    return one_thread() if ensemble.device == "cpu" else contextlib.nullcontext()
