"""asr_kd: distil an ensemble of DNN-HMM acoustic models into one small model, and measure what it was worth."""

__version__ = "0.1.0"
