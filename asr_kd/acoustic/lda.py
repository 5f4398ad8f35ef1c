"""Linear discriminants of a window of frames, from which a net learns sooner than from the window itself.

Neighbouring frames and neighbouring mel bins are much alike: a window's loudest direction has some 10^5 times the
variance of its faintest, and a step that is right for the one is wrong for the other. Here the inputs are turned and
scaled first: the covariance within the tied states becomes the unit matrix, and of each direction then only so much
is kept as it differs between states: one with variance s between them gets the variance s + FACTOR in all, where plain
discriminants have s + 1. So Kaldi's nets have them (Povey, Zhang, Khudanpur 2015, arXiv 1410.7455, and its
`nnet-get-feature-transform`). Directions that tell little can be left out besides.

The map is fixed, and a trained net takes it into its first layer (`AcousticModel.folded`): what is saved and deployed
is a net like any other.

Shapes:  N frames, D numbers of a window, K discriminants, C tied states.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asr_kd.errors import UserError
from asr_kd.frames.scatter import Scatter
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import WindowedFrames

log = logging.getLogger(__name__)

FACTOR = 1e-4  # the within-class factor of Kaldi's get_lda.sh
RIDGE = 1e-3  # of the mean variance, added to each: few frames span few directions, the others must not seem quiet
MOST_FRAMES = 300_000  # that they are found from, and the rest of the last utterance
_UTTERANCES, _FRAMES = 64, 4096  # whose windows are held at once; in float64


@dataclass(frozen=True)
class InputTransform:
    """inputs @ weight - offset.

    Attributes:
      weight: (D, K) float32.
      offset: (K,) float32.
    """

    weight: Tensor
    offset: Tensor


def linear_discriminants(
    store: FrameStore, labels: np.ndarray, *, left: int, right: int, num_classes: int, count: int
) -> InputTransform:
    """The `count` directions in which the classes differ most; of all together the variance is 1 in the mean.

    Args:
      labels: (N,) classes of the store's frames; below 0: to be left out.
      left, right: past and future frames of a window.
      num_classes: C; at most C - 1 directions tell anything.

    Raises:
      UserError: no frame has a label, or a window has fewer numbers than discriminants are wanted.
    """
    num_inputs = (left + 1 + right) * store.num_dims
    if count > num_inputs:
        raise UserError(
            f"model.lda_dims is {count}, but a window of {left} + 1 + {right} frames has {num_inputs} numbers: "
            "that is the most."
        )
    log.info("finding %d linear discriminants of %d inputs", count, num_inputs)
    scatter = Scatter(num_classes, num_inputs)
    for inputs, classes in _drawn(store, labels, left, right):
        scatter.add(inputs, classes)
    if not scatter.counts.any():
        raise UserError(f"{store.folder} has no labelled frame, so that there are no linear discriminants of it.")
    unit = np.linalg.inv(np.linalg.cholesky(scatter.within(RIDGE)))
    variances, turned = np.linalg.eigh(unit @ scatter.between() @ unit.T)
    kept = variances[::-1][:count].clip(0) + FACTOR
    strongest = np.ascontiguousarray(turned[:, ::-1][:, :count])  # BLAS takes no matrix from right to left
    directions = unit.T @ strongest
    weight = directions * np.sqrt(kept / (kept + 1 - FACTOR) / kept.mean())
    return InputTransform(torch.from_numpy(weight).float(), torch.from_numpy(scatter.mean @ weight).float())


def made_up_transform(num_inputs: int, count: int) -> InputTransform | None:
    """One of that shape, to take the time of; None where `count` is 0."""
    if not count:
        return None
    random = torch.Generator().manual_seed(0)
    return InputTransform(torch.randn(num_inputs, count, generator=random) / num_inputs**0.5, torch.zeros(count))


def _drawn(store: FrameStore, labels: np.ndarray, left: int, right: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(n, D) float64 windows and (n,) labels of utterances drawn at random, always the same ones."""
    offsets = store.offsets
    labelled = np.diff(np.concatenate([[0], np.cumsum(labels >= 0)])[offsets])
    order = np.random.default_rng(0).permutation(len(store.ids))
    enough = int(np.searchsorted(np.cumsum(labelled[order]), MOST_FRAMES)) + 1
    chosen = np.sort(order[:enough])
    for first in range(0, len(chosen), _UTTERANCES):
        some = chosen[first : first + _UTTERANCES]
        windows = WindowedFrames(store, left=left, right=right, utterances=some)
        classes = np.concatenate([labels[offsets[u] : offsets[u + 1]] for u in some])
        for frames in torch.from_numpy(np.flatnonzero(classes >= 0)).split(_FRAMES):
            yield windows.inputs(frames).double().numpy(), classes[frames.numpy()]
