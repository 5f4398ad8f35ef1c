"""The ensemble's mean distribution at a temperature.

Shapes:  M members, B frames in a batch, C senones.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Mean = Literal["arithmetic", "geometric"]


def ensemble_distribution(
    logits: Tensor, *, temperature: float, mean: Mean = "arithmetic", weights: Tensor | None = None
) -> Tensor:
    """Tempers each member, then averages.

    Args:
      logits: (M, B, C) logits or log posteriors of the members (they differ by a constant, which cancels).
      mean: "arithmetic": of probabilities; "geometric": of logits, normalised.
      weights: (M, B), how much each member counts in each frame, summing to one over members; None: all alike.

    Returns:
      (B, C) natural-log probabilities.

    Raises:
      ValueError: the weights are not (M, B).
    """
    if weights is None:
        weights = torch.full(logits.shape[:2], 1 / len(logits), dtype=logits.dtype, device=logits.device)
    if weights.shape != logits.shape[:2]:
        raise ValueError(f"weights are {tuple(weights.shape)}, logits {tuple(logits.shape)}")
    tempered, weights = F.log_softmax(logits.div(temperature), dim=-1), weights.to(logits.dtype).unsqueeze(-1)
    if mean == "arithmetic":
        return torch.logsumexp(tempered + weights.log(), dim=0)
    return F.log_softmax((tempered * weights).sum(0), dim=-1)
