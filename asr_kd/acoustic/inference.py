"""The posteriors of many short utterances at once.

`FrameModel.log_posteriors` serves one utterance; a call of its own costs a short utterance more than its frames do.

Shapes:  U utterances, T frames of an utterance, D dimensions of a frame, C senones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from asr_kd.acoustic.model import FRAMES_AT_ONCE, FrameModel


@torch.no_grad()
def first_member_log_posteriors(model: FrameModel, features: Sequence[np.ndarray]) -> list[np.ndarray]:
    """(T, D) normalised frames of U utterances -> (T, C) float32 natural-log posteriors, by the first member.

    The utterances are read as one, each with its edges repeated; frames that mix two of them are dropped.
    """
    left, right = model.context.left, model.context.right
    padded = [np.pad(frames, ((left, right), (0, 0)), mode="edge") for frames in features]
    rows = torch.from_numpy(np.concatenate(padded)).to(model.device)
    count = len(rows) - left - right
    parts = [
        model(rows[None, first : first + FRAMES_AT_ONCE + left + right])[0].log_softmax(-1).cpu().numpy()
        for first in range(0, count, FRAMES_AT_ONCE)
    ]
    everything = np.concatenate(parts)
    firsts = np.cumsum([0] + [len(rows) for rows in padded[:-1]])
    return [everything[first : first + len(frames)] for first, frames in zip(firsts, features, strict=True)]
