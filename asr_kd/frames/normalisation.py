"""From log-mel energies to what models see: a mean is subtracted, and what is left is scaled.

The mean is that of a group (a speaker, or an utterance) or, as a recogniser can know it while somebody speaks, a
running one. The scale is that of the training set, or of a speaker. The sums that both follow from are in float64.

Shapes:  N frames of a set, D mel bins, G groups, T frames of an utterance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_kd.frames.features import FRAME_SHIFT, FeaturesConfig

CMVN = "cmvn.npz"  # file of the arrays of a `Normalisation`
MEAN_PRIOR = 200  # frames at the training set's mean that a running mean begins with; Kaldi's `--global-frames`
VARIANCE_PRIOR = 1000  # frames of the training set's variance that count with those of a speaker: ten seconds
LEAST_VARIANCE = 1e-6
_PORTION = 512  # frames of which running means are computed at once: what fits the cache

Floats = NDArray[np.float32]
Sums = NDArray[np.float64]


@dataclass(frozen=True)
class RunningMean:
    """The mean of the frames up to each one, itself included; the past counts less and less.

    Before the first frame there are MEAN_PRIOR frames at the training set's mean. Each new frame multiplies the weight
    of all before it by 1 - FRAME_SHIFT / seconds, so that their count approaches seconds / FRAME_SHIFT. Unlike the
    sliding window of Kaldi's online-cmvn this needs no frame of the past: its state is D sums and their count.

    Attributes:
      prior: (D,) float32 mean of the training set.
      seconds: how long the memory is.

    >>> mean = RunningMean(np.zeros(1, np.float32), seconds=6.0)
    >>> means, state = mean.means(np.full((600, 1), 3.0), mean.start())
    >>> [round(float(m), 2) for m in means[[0, 99, 199, 599], 0]], round(float(state[-1]), 1)
    ([0.01, 1.06, 1.63, 2.51], 453.0)
    """

    prior: Floats
    seconds: float

    def start(self) -> Sums:
        """(D + 1,) float64, the state before the first frame: the sums, and last the count."""
        return float(MEAN_PRIOR) * np.append(self.prior.astype(np.float64), 1.0)

    def means(self, frames: np.ndarray, state: Sums) -> tuple[Sums, Sums]:
        """(T, D) frames, at least one, after those that `state` has -> (T, D) float64 means, and the next state.

        Frames may come in any portions: no mean depends on a later frame.
        """
        decay = 1 - FRAME_SHIFT / self.seconds
        sums = np.ones((len(frames), len(state)))
        sums[:, :-1] = frames
        sums[0] += decay * state
        # each pass doubles how many frames a sum has: log2(T) passes over all frames in place of T small steps
        step = 1
        while step < len(sums):
            sums[step:] += decay**step * sums[:-step]
            step *= 2
        return sums[:, :-1] / sums[:, -1:], sums[-1]

    def subtract(self, frames: Floats) -> None:
        """Subtracts from each of the (T, D) frames of an utterance its running mean, in place."""
        state = self.start()
        for first in range(0, len(frames), _PORTION):
            portion = frames[first : first + _PORTION]
            means, state = self.means(portion, state)
            portion -= means


@dataclass(frozen=True)
class Normalisation:
    """How a set is normalised; on disk `cmvn.npz`.

    Attributes:
      means: (G, D) float32, of each group.
      scale: (D,) float32, 1 / standard deviation over the training set, after its means are subtracted.
      scales: (G, D) float32, of each group, with `variance: speaker`; else None.
      running: with `mean: running`, what is subtracted instead of `means`; else None.
      prior_frames: how many frames at the mean of `means` count with those of a group that the set does not have.
    """

    means: Floats
    scale: Floats
    scales: Floats | None = None
    running: RunningMean | None = None
    prior_frames: int = 0

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Normalisation:
        """Builds a normalisation from the arrays that `arrays` returned; raises KeyError where one is missing."""
        running = None
        if "prior" in arrays:
            running = RunningMean(arrays["prior"], float(arrays["running_seconds"]))
        prior_frames = int(arrays["prior_frames"]) if "prior_frames" in arrays else 0
        return cls(arrays["means"], arrays["scale"], arrays.get("scales"), running, prior_frames)

    def arrays(self) -> dict[str, np.ndarray]:
        """What `of_arrays` reads."""
        arrays: dict[str, np.ndarray] = {"means": self.means, "scale": self.scale}
        if self.scales is not None:
            arrays["scales"] = self.scales
        if self.running is not None:
            arrays |= {"prior": self.running.prior, "running_seconds": np.array(self.running.seconds)}
        if self.prior_frames:
            arrays["prior_frames"] = np.array(self.prior_frames)
        return arrays

    def check(self, num_dims: int) -> None:
        """Raises ValueError where the parts do not fit together, or are no numbers to divide by."""
        ok = self.means.ndim == 2 and self.means.shape[1] == num_dims and self.scale.shape == (num_dims,)
        ok = ok and (self.scales is None or self.scales.shape == self.means.shape)
        if not ok or (self.running is not None and self.running.prior.shape != (num_dims,)):
            raise ValueError(f"cmvn.npz does not have {num_dims} dimensions")
        arrays = [self.means, self.scale, *([] if self.scales is None else [self.scales])]
        if self.running is not None:
            arrays += [self.running.prior, np.array(self.running.seconds)]
        if not all(np.isfinite(array).all() for array in arrays) or not (self.scale > 0).all():
            raise ValueError("cmvn.npz has numbers that are not finite, or no scales")
        if self.prior_frames < 0:
            raise ValueError("cmvn.npz has a negative number of frames")
        if not len(self.means) or (self.running is not None and self.running.seconds <= FRAME_SHIFT):
            raise ValueError("cmvn.npz has no mean")

    def apply(self, frames: Floats, group: int) -> None:
        """Normalises the (T, D) frames of an utterance of a group, in place."""
        if self.running is None:
            frames -= self.means[group]
        else:
            self.running.subtract(frames)
        frames *= self.scale if self.scales is None else self.scales[group]

    def of_unknown_speaker(self, features: np.ndarray) -> Floats:
        """(T, D) raw features of an utterance that is a group of its own -> normalised, float32."""
        frames: Floats = features.astype(np.float32)
        self.of_new_group([features]).apply(frames, 0)
        return frames

    def of_new_group(self, utterances: Sequence[np.ndarray]) -> Normalisation:
        """Returns the normalisation of a new group, number 0, from the (T, D) raw features of its utterances.

        The variance with which `scales` are made is that about the mean that is subtracted.
        """
        sums = np.zeros((2, self.scale.size))
        for features in utterances:
            exact = features.astype(np.float64)
            sums += exact.sum(0), np.square(exact).sum(0)
        count = sum(map(len, utterances))
        of_group, squares = sums / count
        mean = (sums[0] + self.prior_frames * self.prior) / (count + self.prior_frames)
        scales = self.scales
        if scales is not None:
            variances = squares - 2 * mean * of_group + np.square(mean)
            scales = shrunk_scales(variances, count, self.scale)[None]
        return Normalisation(mean[None].astype(np.float32), self.scale, scales, self.running)

    def running_mean(self, seconds: float) -> RunningMean:
        """What is subtracted while somebody speaks: its own running mean, or else one that begins with all its means.

        Args:
          seconds: of the memory, where it has none of its own.
        """
        return self.running or RunningMean(self.prior.astype(np.float32), seconds)

    def for_new_speech(self) -> Normalisation:
        """What is needed for speech of others: one group in place of all, with the mean of their means."""
        scales = None if self.scales is None else self.scales[:1]
        return replace(self, means=self.prior[None].astype(np.float32), scales=scales)

    @property
    def prior(self) -> Sums:
        """(D,) float64 mean of the groups' means: what is known of a group before it is heard."""
        mean: Sums = self.means.astype(np.float64).mean(0)
        return mean


def shrunk_scales(variances: np.ndarray, frames: np.ndarray | int, scale: Floats) -> Floats:
    """1 / standard deviation of groups; the fewer frames one has, the closer to that of the training set.

    The variance is the mean of a group's own and that of the training set, weighted by the group's frames and by
    VARIANCE_PRIOR: three seconds of speech count for 23 %, a minute for 86 %.

    Args:
      variances: (..., D) of each group about its mean. frames: (..., 1) of each group.
      scale: (D,) of the training set.
    """
    of_training = 1 / np.square(scale.astype(np.float64))
    shrunk = (frames * variances + VARIANCE_PRIOR * of_training) / (frames + VARIANCE_PRIOR)
    return (1 / np.sqrt(np.maximum(shrunk, LEAST_VARIANCE))).astype(np.float32)


@dataclass
class _Group:
    number: int
    frames: int
    total: Sums  # (D,)
    squares: Sums | None  # (D,) with `variance: speaker`


class SetStatistics:
    """Sums over the utterances of a set, from which its `Normalisation` follows.

    Args:
      config: its `mean`, `variance` and `running_seconds` count.
      training: normalisation of the training set; None: this is the training set.
    """

    def __init__(self, num_dims: int, config: FeaturesConfig, training: Normalisation | None) -> None:
        self._dims, self._config, self._training = num_dims, config, training
        self._groups: dict[str, _Group] = {}
        self._squares = np.zeros(num_dims)
        # of the running mean that begins with m: the frames minus it are d - b m with d, b independent of m, which is
        # not known before the last frame; so the sums of d^2, d b and b^2 (in all columns)
        self._running: Sums | None = None
        if config.mean == "running" and training is None:
            self._running = np.zeros((3, num_dims))

    def add(self, name: str, frames: Sums) -> int:
        """Adds the (T, D) frames of an utterance of a group; returns the group's number."""
        if name not in self._groups:
            squares = np.zeros(self._dims) if self._config.variance == "speaker" else None
            self._groups[name] = _Group(len(self._groups), 0, np.zeros(self._dims), squares)
        group, squared = self._groups[name], np.square(frames).sum(0)
        group.frames += len(frames)
        group.total += frames.sum(0)
        self._squares += squared
        if group.squares is not None:
            group.squares += squared
        if self._running is not None:
            self._running += self._of_running_mean(frames)
        return group.number

    def _of_running_mean(self, frames: Sums) -> Sums:
        zero, one = (RunningMean(np.full(self._dims, m, np.float32), self._config.running_seconds) for m in (0, 1))
        rest = frames - zero.means(frames, zero.start())[0]
        share = one.means(np.zeros_like(frames), one.start())[0]
        return np.stack([np.square(rest).sum(0), (rest * share).sum(0), np.square(share).sum(0)])

    def note(self) -> dict[str, Any]:
        """The sums so far as plain data; `restore` reads them."""
        note: dict[str, Any] = {
            "squares": self._squares.tolist(),
            "groups": [[name, group.frames, group.total.tolist()] for name, group in self._groups.items()],
        }
        if self._config.variance == "speaker":
            note["squares of groups"] = [
                group.squares.tolist() for group in self._groups.values() if group.squares is not None
            ]
        if self._running is not None:
            note["running"] = self._running.tolist()
        return note

    def restore(self, note: Mapping[str, Any]) -> None:
        """Takes over the sums of a note."""
        self._squares = np.array(note["squares"])
        squares = map(np.array, note.get("squares of groups", ())) if self._config.variance == "speaker" else None
        for number, (name, frames, total) in enumerate(note["groups"]):
            self._groups[name] = _Group(number, frames, np.array(total), None if squares is None else next(squares))
        if self._running is not None:
            self._running = np.array(note["running"])

    def arrays(self) -> dict[str, np.ndarray]:
        """What `cmvn.npz` holds: see `Normalisation`, and the frames and names of the groups."""
        groups = self._groups.values()
        totals = np.stack([group.total for group in groups])
        frames = np.array([group.frames for group in groups], dtype=np.int64)
        means = totals / frames[:, None]
        if self._training is None:
            prior = (totals.sum(0) / frames.sum()).astype(np.float32)
            variance = self._squares_about(prior, (totals * means).sum(0)) / frames.sum()
            scale = (1 / np.sqrt(np.maximum(variance, LEAST_VARIANCE))).astype(np.float32)
            running = RunningMean(prior, self._config.running_seconds) if self._config.mean == "running" else None
        else:
            scale, running = self._training.scale, self._training.running
        scales = None
        if self._config.variance == "speaker":
            of_groups = np.stack([group.squares for group in groups if group.squares is not None])
            scales = shrunk_scales(of_groups / frames[:, None] - np.square(means), frames[:, None], scale)
        normalisation = Normalisation(means.astype(np.float32), scale.astype(np.float32), scales, running)
        return normalisation.arrays() | {"frames": frames, "names": np.array(list(self._groups))}

    def _squares_about(self, prior: Floats, of_means: Sums) -> Sums:
        """(D,) sum of the squares of the training set's frames, after what `Normalisation.apply` subtracts."""
        if self._running is None:
            return self._squares - of_means
        of_rest, of_both, of_share = self._running
        mean = prior.astype(np.float64)
        squares: Sums = of_rest - 2 * mean * of_both + np.square(mean) * of_share
        return squares
