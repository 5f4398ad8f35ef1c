"""asr_kd: distil an ensemble of DNN-HMM acoustic models into one small model, and measure what it was worth."""

from asr_kd.version import __version__ as __version__
