"""asr_kd: distil an ensemble of DNN-HMM acoustic models into one small model, and measure what it was worth."""

from asr_kd.processor import choose_mkl_code_path, features

__version__ = "0.1.0"

choose_mkl_code_path(features())
