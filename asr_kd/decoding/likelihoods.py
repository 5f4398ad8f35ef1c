"""From posteriors to the scores that a search adds up: scaled likelihoods.

Shapes:  T frames of an utterance, C senones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def scaled_likelihoods(
    log_posteriors: NDArray[np.float32], log_priors: NDArray[np.float32], prior_scale: float
) -> NDArray[np.float32]:
    """(T, C) log-likelihoods up to a constant per frame: log posterior - prior_scale * log prior.

    Raises:
      ValueError: the numbers of senones differ.
    """
    if log_posteriors.shape[-1] != log_priors.shape[-1]:
        raise ValueError(f"{log_posteriors.shape[-1]} posteriors and {log_priors.shape[-1]} priors")
    likelihoods: NDArray[np.float32] = log_posteriors - np.float32(prior_scale) * log_priors
    return likelihoods
