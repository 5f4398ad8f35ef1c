"""asr_kd: distil an ensemble of DNN-HMM acoustic models into one small model, and measure what it was worth.

What is public is named here; it is imported when it is first used, so that `import asr_kd` loads neither torch nor
lhotse and changes nothing in the process.

>>> import asr_kd
>>> asr_kd.wer(["PRESS ONE NOW"], ["PRESS NOW"]).errors
1
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, Any

from asr_kd.version import __version__ as __version__

if TYPE_CHECKING:
    from asr_kd.acoustic.criteria import HardTargets as HardTargets
    from asr_kd.acoustic.model import FrameModel as FrameModel
    from asr_kd.acoustic.model import build_model as build_model
    from asr_kd.acoustic.model_files import save_model as save_model
    from asr_kd.acoustic.settings import DnnConfig as DnnConfig
    from asr_kd.acoustic.settings import TdnnConfig as TdnnConfig
    from asr_kd.acoustic.settings import TrainingConfig as TrainingConfig
    from asr_kd.acoustic.training import RunControl as RunControl
    from asr_kd.acoustic.training import TrainingData as TrainingData
    from asr_kd.acoustic.training import fit as fit
    from asr_kd.alignment.realignment import align as align
    from asr_kd.api import decode as decode
    from asr_kd.api import load_model as load_model
    from asr_kd.api import wer as wer
    from asr_kd.decoding.graph import read_graph as read_graph
    from asr_kd.distillation.loss import SoftTargets as SoftTargets
    from asr_kd.distillation.loss import distillation_loss as distillation_loss
    from asr_kd.distillation.loss import ensemble_distribution as ensemble_distribution
    from asr_kd.distillation.loss import logit_matching as logit_matching
    from asr_kd.distillation.store import SoftTargetStore as SoftTargetStore
    from asr_kd.distillation.targets import DistillationCriterion as DistillationCriterion
    from asr_kd.distillation.targets import StoredTargets as StoredTargets
    from asr_kd.distillation.targets import TableTargets as TableTargets
    from asr_kd.evaluation.bootstrap import compare as compare
    from asr_kd.evaluation.bootstrap import ratio_interval as ratio_interval
    from asr_kd.frames.features import fbank as fbank
    from asr_kd.frames.source import ArrayFrames as ArrayFrames
    from asr_kd.frames.store import FrameStore as FrameStore
    from asr_kd.frames.windows import windows_of as windows_of
    from asr_kd.lang.kneser_ney import estimate as estimate_ngrams
    from asr_kd.lang.lexicon import Lang as Lang
    from asr_kd.runtime.folder import load_recogniser as load
    from asr_kd.runtime.recogniser import Recogniser as Recogniser
    from asr_kd.workspace.config_files import load_config as load_config

_PUBLIC = {  # name -> where it is
    "load": "asr_kd.runtime.folder:load_recogniser",
    "Recogniser": "asr_kd.runtime.recogniser:Recogniser",
    "load_model": "asr_kd.api:load_model",
    "FrameModel": "asr_kd.acoustic.model:FrameModel",
    "build_model": "asr_kd.acoustic.model:build_model",
    "save_model": "asr_kd.acoustic.model_files:save_model",
    "DnnConfig": "asr_kd.acoustic.settings:DnnConfig",
    "TdnnConfig": "asr_kd.acoustic.settings:TdnnConfig",
    "TrainingConfig": "asr_kd.acoustic.settings:TrainingConfig",
    "fbank": "asr_kd.frames.features:fbank",
    "FrameStore": "asr_kd.frames.store:FrameStore",
    "ArrayFrames": "asr_kd.frames.source:ArrayFrames",
    "windows_of": "asr_kd.frames.windows:windows_of",
    "fit": "asr_kd.acoustic.training:fit",
    "TrainingData": "asr_kd.acoustic.training:TrainingData",
    "RunControl": "asr_kd.acoustic.training:RunControl",
    "HardTargets": "asr_kd.acoustic.criteria:HardTargets",
    "ensemble_distribution": "asr_kd.distillation.loss:ensemble_distribution",
    "SoftTargets": "asr_kd.distillation.loss:SoftTargets",
    "SoftTargetStore": "asr_kd.distillation.store:SoftTargetStore",
    "StoredTargets": "asr_kd.distillation.targets:StoredTargets",
    "TableTargets": "asr_kd.distillation.targets:TableTargets",
    "DistillationCriterion": "asr_kd.distillation.targets:DistillationCriterion",
    "distillation_loss": "asr_kd.distillation.loss:distillation_loss",
    "logit_matching": "asr_kd.distillation.loss:logit_matching",
    "Lang": "asr_kd.lang.lexicon:Lang",
    "estimate_ngrams": "asr_kd.lang.kneser_ney:estimate",
    "align": "asr_kd.alignment.realignment:align",
    "decode": "asr_kd.api:decode",
    "read_graph": "asr_kd.decoding.graph:read_graph",
    "wer": "asr_kd.api:wer",
    "ratio_interval": "asr_kd.evaluation.bootstrap:ratio_interval",
    "compare": "asr_kd.evaluation.bootstrap:compare",
    "load_config": "asr_kd.workspace.config_files:load_config",
}
__all__ = [  # noqa: RUF022
    "__version__",
    "load",
    "Recogniser",
    "load_model",
    "FrameModel",
    "build_model",
    "save_model",
    "DnnConfig",
    "TdnnConfig",
    "TrainingConfig",
    "fbank",
    "FrameStore",
    "ArrayFrames",
    "windows_of",
    "fit",
    "TrainingData",
    "RunControl",
    "HardTargets",
    "ensemble_distribution",
    "SoftTargets",
    "SoftTargetStore",
    "StoredTargets",
    "TableTargets",
    "DistillationCriterion",
    "distillation_loss",
    "logit_matching",
    "Lang",
    "estimate_ngrams",
    "align",
    "decode",
    "read_graph",
    "wer",
    "ratio_interval",
    "compare",
    "load_config",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = pkgutil.resolve_name(_PUBLIC[name])
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
