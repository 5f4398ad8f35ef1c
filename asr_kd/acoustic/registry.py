"""The kinds of model that `model.kind` can name. A new one is a file with its settings and module, and a line here.

A builder is named by a string, so that reading a config loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from asr_kd.acoustic.settings import DnnConfig, ModelConfig, TdnnConfig


@dataclass(frozen=True)
class ModelKind:
    """A kind's settings, and the class of its models.

    Attributes:
      model: "module:Class" of an `asr_kd.acoustic.model.FrameModel`.
    """

    settings: type[ModelConfig]
    model: str


MODELS: dict[str, ModelKind] = {
    "dnn": ModelKind(DnnConfig, "asr_kd.acoustic.dnn:Dnn"),
    "tdnn": ModelKind(TdnnConfig, "asr_kd.acoustic.tdnn:Tdnn"),
}
