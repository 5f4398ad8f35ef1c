"""Linear discriminants of a window of frames, from which a model learns sooner than from the window itself.

Neighbouring frames and neighbouring mel bins are much alike: a window's directions differ in variance by a factor of
some 10^5, and a learning rate that suits one does not suit another. Linear discriminant analysis with within-class
whitening; as in Kaldi's `nnet-get-feature-transform` (Povey, Zhang, Khudanpur 2015, arXiv 1410.7455), a direction with
between-class variance s is rescaled to total variance s + FACTOR instead of s + 1. Directions that discriminate little
can be dropped.

The map is fixed, and `FrameModel.fold_input_transform` multiplies it into the first layer of a trained model: what is
saved and deployed is an ordinary model.

Shapes:  N frames, I = W * D numbers of a window, J discriminants, C senones; n inputs of a `Scatter` at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asr_kd.frames.source import Context, FrameSource
from asr_kd.frames.windows import WindowedFrames

log = logging.getLogger(__name__)

FACTOR = 1e-4  # the within-class factor of Kaldi's get_lda.sh
RIDGE = 1e-3  # of the mean variance, added to each: few frames span few directions, the others would have variance 0
MOST_FRAMES = 300_000  # that the statistics are of, and the rest of the last utterance
_UTTERANCES, _FRAMES = 64, 4096  # whose windows are in memory at once; in float64


class Scatter:
    """How inputs scatter within their classes and between them: counts (C,), sums (C, D) and all products (D, D)."""

    def __init__(self, num_classes: int, num_dims: int) -> None:
        self.counts = np.zeros(num_classes, np.int64)
        self.sums = np.zeros((num_classes, num_dims))
        self.products = np.zeros((num_dims, num_dims))

    def add(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        """Inputs (n, D), whose products are taken in their own type and added up in float64; labels (n,) in [0, C)."""
        if not len(labels):
            return
        self.counts += np.bincount(labels, minlength=len(self.counts))
        self.products += inputs.T @ inputs
        order = np.argsort(labels, kind="stable")
        present, firsts = np.unique(labels[order], return_index=True)
        self.sums[present] += np.add.reduceat(inputs[order].astype(np.float64, copy=False), firsts, axis=0)

    @property
    def mean(self) -> np.ndarray:
        """(D,) of all inputs."""
        return self.sums.sum(0) / self.counts.sum()

    def within(self, ridge: float) -> np.ndarray:
        """(D, D) covariance around the classes' means; `ridge` of the mean variance is added to each variance."""
        within = (self.products - self._squares()) / self.counts.sum()
        within += ridge * np.trace(within) / len(within) * np.eye(len(within))
        return within

    def between(self) -> np.ndarray:
        """(D, D) covariance of the classes' means, each as often as it has inputs."""
        return self._squares() / self.counts.sum() - np.outer(self.mean, self.mean)

    def _squares(self) -> np.ndarray:
        """(D, D) sum over inputs of the product of their class's mean with itself."""
        return (self.sums / np.maximum(self.counts, 1)[:, None]).T @ self.sums


@dataclass(frozen=True)
class InputTransform:
    """inputs @ weight - offset.

    Attributes:
      weight: (I, J) float32.
      offset: (J,) float32.
    """

    weight: Tensor
    offset: Tensor


def linear_discriminants(
    source: FrameSource, labels: np.ndarray, context: Context, *, num_senones: int, count: int
) -> InputTransform:
    """The `count` directions in which the senones differ most; on average their variance is 1.

    Args:
      labels: (N,) senones of the source's frames; negative: to be left out.
      context: of a window.
      num_senones: C; at most C - 1 directions discriminate.

    Raises:
      ValueError: no frame has a label, or `count` exceeds the numbers of a window.
    """
    num_inputs = context.width * source.num_dims
    if count > num_inputs:
        raise ValueError(
            f"model.lda_dims is {count}, but a window of {context.left} + 1 + {context.right} frames has {num_inputs} "
            "numbers: lda_dims can be that at most"
        )
    log.info("computing %d linear discriminants of %d inputs", count, num_inputs)
    scatter = Scatter(num_senones, num_inputs)
    for inputs, senones in _windows_and_labels(source, labels, context):
        scatter.add(inputs, senones)
    if not scatter.counts.any():
        raise ValueError("there are no linear discriminants: no frame has a label")
    unit = np.linalg.inv(np.linalg.cholesky(scatter.within(RIDGE)))
    between, vectors = np.linalg.eigh(unit @ scatter.between() @ unit.T)
    variances = between[::-1][:count].clip(0) + FACTOR
    strongest = np.ascontiguousarray(vectors[:, ::-1][:, :count])  # BLAS takes no negative strides
    directions = unit.T @ strongest
    weight = directions * np.sqrt(variances / (variances + 1 - FACTOR) / variances.mean())
    return InputTransform(torch.from_numpy(weight).float(), torch.from_numpy(scatter.mean @ weight).float())


def random_transform(num_inputs: int, count: int) -> InputTransform | None:
    """A transform of that shape, to measure its time; None where `count` is 0."""
    if not count:
        return None
    random = torch.Generator().manual_seed(0)
    return InputTransform(torch.randn(num_inputs, count, generator=random) / num_inputs**0.5, torch.zeros(count))


def _windows_and_labels(
    source: FrameSource, labels: np.ndarray, context: Context
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(n, I) float64 windows and (n,) labels of utterances drawn at random, always the same ones."""
    offsets = source.offsets
    labelled = np.diff(np.concatenate([[0], np.cumsum(labels >= 0)])[offsets])
    order = np.random.default_rng(0).permutation(len(source.ids))
    enough = int(np.searchsorted(np.cumsum(labelled[order]), MOST_FRAMES)) + 1
    chosen = np.sort(order[:enough])
    for first in range(0, len(chosen), _UTTERANCES):
        utterances = chosen[first : first + _UTTERANCES]
        windows = WindowedFrames(source, context, utterances=utterances)
        senones = np.concatenate([labels[offsets[u] : offsets[u + 1]] for u in utterances])
        for frames in torch.from_numpy(np.flatnonzero(senones >= 0)).split(_FRAMES):
            yield windows.inputs(frames).flatten(1).double().numpy(), senones[frames.numpy()]
