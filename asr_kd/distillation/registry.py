"""The losses that `targets.loss` can name. A new one is a function like `distillation_loss`, and a line here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Loss:
    """A distillation loss.

    Attributes:
      function: "module:function" with the arguments and result of `asr_kd.distillation.loss.distillation_loss`.
      needs_all_entries: it needs the teachers' whole distribution, not its largest entries alone.
    """

    function: str
    needs_all_entries: bool = False


LOSSES: dict[str, Loss] = {
    "kl": Loss("asr_kd.distillation.loss:distillation_loss"),
    "logits": Loss("asr_kd.distillation.loss:logit_matching", needs_all_entries=True),
}
