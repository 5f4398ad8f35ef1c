"""Soft targets of ranges of utterances, each of which any process can compute.

An utterance's targets depend on nothing but the utterance: on CPUs each is computed by one thread, so that it does not
matter how utterances are spread over processes.

Shapes:  T frames of an utterance, C senones, M members of an ensemble.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr_kd.acoustic.model import FrameModel
from asr_kd.acoustic.model_files import load_model
from asr_kd.distillation.loss import ensemble_distribution
from asr_kd.distillation.settings import TargetsConfig
from asr_kd.distillation.store import TopK, cuts_nothing, restore, truncate
from asr_kd.errors import UserError
from asr_kd.frames.sampler import fold_of_utterances
from asr_kd.frames.store import FrameStore
from asr_kd.kernels.switch import one_thread

FRAMES_AT_ONCE = 2048  # longer utterances go through the teachers in parts
SAMPLE_FRAMES = 20000  # from which the mean distribution is estimated
SUMS = ("retained_mass", "kl", "entropy", "entries")
MAX_SHARD_FRAMES = 1 << 16
_MAX_SHARD_ENTRIES = 1 << 22  # 50 MB that one process sends to another


@dataclass(frozen=True)
class TeacherFolder:
    """A trained system whose distribution is learnt.

    Attributes:
      members: how many of its models answer together, the first ones; the others are the same model from other seeds.
      folds: 0: every member answers for every utterance. K: member m answers for fold m modulo K alone, on which it was
        not trained.
      weight: of its distribution, relative to the others'; its members share it.
    """

    folder: Path
    members: int = 1
    folds: int = 0
    weight: float = 1.0

    def load(self, device: str | torch.device) -> FrameModel:
        return load_model(self.folder, device).first_members(self.members)


@dataclass(frozen=True)
class TargetsTask:
    """The utterances, the teachers, and what to store of the mean of their distributions."""

    frames_folder: Path
    teachers: tuple[TeacherFolder, ...]
    settings: TargetsConfig
    num_senones: int
    device: str

    @property
    def artefacts(self) -> tuple[Path, ...]:
        """What a process must see for it."""
        return self.frames_folder, *(teacher.folder for teacher in self.teachers)

    @property
    def exact(self) -> bool:
        return cuts_nothing(self.settings.keep_mass, self.settings.max_entries, self.num_senones)

    @property
    def max_entries(self) -> int:
        """The largest number of entries that are stored for a frame."""
        return min(self.settings.max_entries, self.num_senones)

    def shards(self, offsets: np.ndarray, first: int = 0) -> Iterator[tuple[int, int]]:
        """(first, end) of ranges of utterances that are worked on at a time, from utterance `first` on."""
        size = min(MAX_SHARD_FRAMES, _MAX_SHARD_ENTRIES // self.max_entries)
        while first < len(offsets) - 1:
            end = max(first + 1, int(np.searchsorted(offsets, offsets[first] + size, side="right")) - 1)
            yield first, end
            first = end


@dataclass(frozen=True)
class Shard:
    """Utterances `first` to `end` (exclusive); `mean_distribution` is (C,)."""

    task: TargetsTask
    first: int
    end: int
    mean_distribution: np.ndarray


@dataclass(frozen=True)
class SoftTargetShard:
    """What is stored of a shard, and sums over its frames by name of SUMS.

    Mass of the stored entries, KL(full || restored), entropy of the full distribution, entries.
    """

    targets: TopK
    sums: dict[str, float]


def compute_soft_targets(shard: Shard) -> SoftTargetShard:
    """Runs the teachers over the utterances of a shard."""
    task, settings = shard.task, shard.task.settings
    mean_distribution = torch.from_numpy(shard.mean_distribution).to(task.device)
    parts: list[TopK] = []
    sums = dict.fromkeys(SUMS, 0.0)
    with _threads(task):
        for full in _distributions(task, range(shard.first, shard.end)):
            part = truncate(full, keep_mass=settings.keep_mass, max_entries=settings.max_entries)
            parts.append(part)
            for name, value in truncation_sums(full, part, mean_distribution).items():
                sums[name] += value
    return SoftTargetShard(TopK.concatenate(parts), sums)


def truncation_sums(full: Tensor, stored: TopK, mean_distribution: Tensor) -> dict[str, float]:
    """The sums of `SoftTargetShard` for (B, C) log distributions and what is stored of them."""
    return {
        "retained_mass": float(np.exp(stored.log_probabilities.astype(np.float64)).sum()),
        "kl": _expected(full, full - restore(stored, mean_distribution)),
        "entropy": -_expected(full, full),
        "entries": float(len(stored.ids)),
    }


def _expected(log_probabilities: Tensor, values: Tensor) -> float:
    """The sum of p * value; where p is 0, whatever the value (its own log is -inf), it adds nothing."""
    probabilities = log_probabilities.exp()
    return float(torch.where(probabilities > 0, probabilities * values, torch.zeros_like(values)).sum())


def estimate_mean_distribution(task: TargetsTask, seed: int) -> tuple[np.ndarray, float]:
    """The (C,) float32 mean distribution over a random sample of utterances, and the mean number of stored entries."""
    store, settings = _loaded(task).store, task.settings
    order = np.random.default_rng(seed).permutation(len(store.ids))
    enough = int(np.searchsorted(np.cumsum(np.diff(store.offsets)[order]), SAMPLE_FRAMES)) + 1
    total = torch.zeros(task.num_senones, device=task.device)
    entries = frames = 0
    with _threads(task):
        for full in _distributions(task, sorted(order[:enough].tolist())):
            total += full.exp().sum(0)
            frames += len(full)
            entries += len(truncate(full, keep_mass=settings.keep_mass, max_entries=settings.max_entries).ids)
    return (total / total.sum()).cpu().numpy(), entries / frames


@dataclass(frozen=True)
class _Loaded:
    """What a process has opened for a task."""

    store: FrameStore
    models: tuple[tuple[FrameModel, ...], ...]  # for each teacher, and each of its folds: those that answer for it
    folds: tuple[np.ndarray, ...]  # (U,) for each teacher


@functools.lru_cache(maxsize=1)  # of this process: its current task
def _loaded(task: TargetsTask) -> _Loaded:
    store = FrameStore.open(task.frames_folder)
    models = [_by_fold(teacher.load(task.device), teacher.folds) for teacher in task.teachers]
    folds = [fold_of_utterances(store, max(1, teacher.folds)) for teacher in task.teachers]
    return _Loaded(store, tuple(models), tuple(folds))


def clear_cache() -> None:
    """Frees the teachers of this process."""
    _loaded.cache_clear()


def _by_fold(model: FrameModel, folds: int) -> tuple[FrameModel, ...]:
    if folds < 2:
        return (model,)
    return tuple(model.select_members(list(range(fold, model.members, folds))) for fold in range(folds))


def _distributions(task: TargetsTask, utterances: Sequence[int]) -> Iterator[Tensor]:
    """(B, C) natural-log distributions at the settings' temperature, of the frames of these utterances in order."""
    loaded = _loaded(task)
    for utterance in utterances:
        features = torch.from_numpy(loaded.store.normalised(utterance)).to(task.device)
        models = [of_fold[folds[utterance]] for of_fold, folds in zip(loaded.models, loaded.folds, strict=True)]
        for first in range(0, len(features), FRAMES_AT_ONCE):
            end = min(first + FRAMES_AT_ONCE, len(features))
            logits = [_logits(model, features, first, end) for model in models]
            mean = _mean_distribution(logits, [teacher.weight for teacher in task.teachers], task.settings)
            if bool(torch.isnan(mean).any()):
                name = loaded.store.ids[utterance]
                raise UserError(
                    f"utterance {name}: the teachers' distribution is not finite; train the teachers again."
                )
            yield mean


def _mean_distribution(logits: Sequence[Tensor], teachers: Sequence[float], settings: TargetsConfig) -> Tensor:
    """(M, B, C) of each teacher, whose members count alike, and the weight of each -> (B, C)."""
    weights = None
    if len(logits) > 1:
        shares = [weight / sum(teachers) for weight in teachers]
        parts = [torch.full(part.shape[:2], share / len(part)) for part, share in zip(logits, shares, strict=True)]
        weights = torch.cat(parts).to(logits[0].device)
    members = logits[0] if weights is None else torch.cat(list(logits))
    return ensemble_distribution(members, temperature=settings.temperature, mean=settings.mean, weights=weights)


@torch.no_grad()
def _logits(model: FrameModel, features: Tensor, first: int, end: int) -> Tensor:
    """(M, end - first, C) of some frames of an utterance, which the model sees with the frames around them."""
    start = max(0, first - model.context.left)
    part = features[start : end + model.context.right]
    return model.member_logits(part)[:, first - start : end - start]


def _threads(task: TargetsTask) -> contextlib.AbstractContextManager[None]:
    return one_thread() if torch.device(task.device).type == "cpu" else contextlib.nullcontext()
