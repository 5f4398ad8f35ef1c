"""From posteriors to what the search adds up: scaled likelihoods."""

from __future__ import annotations

import numpy as np


def scaled_likelihoods(log_posteriors: np.ndarray, log_priors: np.ndarray, scale: float) -> np.ndarray:
    """(N, C) log-likelihoods up to a constant per example: log posterior - scale * log prior."""
    likelihoods: np.ndarray = log_posteriors - np.float32(scale) * log_priors
    return likelihoods
