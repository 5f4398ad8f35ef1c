"""The ensemble's mean distribution at a temperature.

Shapes:  M members, B frames in a batch, C tied states.
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
    """
    if weights is None:
        weights = torch.full(logits.shape[:2], 1 / len(logits), dtype=logits.dtype, device=logits.device)
    on_cpu = logits.device.type == "cpu" and logits.dtype == torch.float32
    if mean == "arithmetic" and on_cpu and not (logits.requires_grad or weights.requires_grad):
        from asr_kd.kernels.distillation import fused_ensemble_mean  # here: numba takes half a second to load

        return fused_ensemble_mean(logits, weights.float(), temperature)
    tempered = F.log_softmax(logits.div(temperature), dim=-1)
    log_weights = weights.to(tempered.dtype).log()
    if mean == "arithmetic":
        return torch.logsumexp(tempered + log_weights.unsqueeze(-1), dim=0)
    return F.log_softmax((tempered * log_weights.exp().unsqueeze(-1)).sum(0), dim=-1)
