"""From a trained model to the log posteriors of an utterance.

Shapes:  T frames of an utterance, C tied states, M members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asr_kd.acoustic.model import AcousticModel
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import WindowedFrames

FRAMES_AT_ONCE = 4096


def ensemble_log_mean(log_probabilities: Tensor) -> Tensor:
    """(M, B, C) log posteriors -> (B, C) log of the members' arithmetic mean."""
    mean: Tensor = torch.logsumexp(log_probabilities, dim=0).sub(math.log(log_probabilities.shape[0]))
    return mean


def log_posteriors(model: AcousticModel, store: FrameStore, utterance: int, member: int | None) -> np.ndarray:
    """(T, C) float32 natural-log posteriors of one utterance.

    Args:
      member: which member answers; None: the log of the members' arithmetic mean.
    """
    return (
        all_log_posteriors(model, store, utterance)[member]
        if member is not None
        else ensemble_log_posteriors(model, store, utterance)
    )


def all_log_posteriors(model: AcousticModel, store: FrameStore, utterance: int) -> np.ndarray:
    """(M, T, C) float32: every member's log posteriors."""
    return np.concatenate([part.cpu().numpy() for part in _parts(model, store, [utterance])], axis=1)


def ensemble_log_posteriors(model: AcousticModel, store: FrameStore, utterance: int) -> np.ndarray:
    """(T, C) float32: the log of the members' arithmetic mean."""
    return np.concatenate([ensemble_log_mean(part).cpu().numpy() for part in _parts(model, store, [utterance])])


def first_members_log_posteriors(
    model: AcousticModel, store: FrameStore, utterances: Sequence[int]
) -> list[np.ndarray]:
    """(T, C) float32 for each utterance, by the first member; a short one costs no more than its frames."""
    found = np.concatenate([part[0].cpu().numpy() for part in _parts(model, store, utterances)])
    ends = np.cumsum(np.diff(store.offsets)[np.asarray(utterances)])
    return np.split(found, ends[:-1])


def _parts(model: AcousticModel, store: FrameStore, utterances: Sequence[int]) -> list[Tensor]:
    windows = WindowedFrames(
        store,
        left=model.settings.left_context,
        right=model.settings.right_context,
        device=str(model.device),
        utterances=np.asarray(utterances),
    )
    frames = torch.arange(windows.num_frames, device=model.device)
    return [model.log_probabilities(windows.inputs(part)) for part in frames.split(FRAMES_AT_ONCE)]
