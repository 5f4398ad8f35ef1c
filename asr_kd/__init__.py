"""asr_kd: distil an ensemble of DNN-HMM acoustic models into one small model, and measure what it was worth."""

from asr_kd import processor as _processor

__version__ = "0.1.0"

_processor.choose_mkl_code_path(_processor.cpu_flags())
