"""Correction of output biases, for a model that learnt from classes in other proportions than it will meet.

A class that was rare (or absent) in the transfer set gets too little posterior mass. An offset on its logit restores
it (Hinton, Vinyals, Dean 2015, section 3, which chooses the offset on the test set). Here no label is used: the
offset makes the mean posterior on unlabelled examples equal to the known prior, or follows from the teacher's mean soft
target alone. A speech decoder does the same: log-likelihoods are log posteriors minus the log prior of the training
set, up to a constant.

Shapes:  N examples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MAX_OFFSET = 60.0  # nats
_MAX_ROUNDS = 500


def add_offsets(log_posteriors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(N, C) log posteriors after (C,) offsets were added to their logits; normalised."""
    shifted = log_posteriors + offsets
    return shifted - np.logaddexp.reduce(shifted, axis=-1, keepdims=True)


def shared_offset(log_posteriors: np.ndarray, classes: Sequence[int], prior: float) -> float:
    """One offset for all of `classes` that makes the mean of their posterior mass equal to `prior`.

    Args:
      log_posteriors: (N, C) of unlabelled examples.
      prior: the known share of examples of these classes, above 0 and below 1.

    Raises:
      ValueError: the prior is out of range, or no offset within 60 nats reaches it.
    """
    if not 0 < prior < 1:
        raise ValueError(f"the prior {prior} must be above 0 and below 1")
    # only the odds of the group change: q -> q e^b / (q e^b + 1 - q)
    inside = np.logaddexp.reduce(log_posteriors[:, list(classes)], axis=1)
    outside = np.logaddexp.reduce(np.delete(log_posteriors, list(classes), axis=1), axis=1)
    odds = (inside - outside).astype(np.float64)

    def excess(offset: float) -> float:
        return float((1 / (1 + np.exp(-np.clip(odds + offset, -700, 700)))).mean() - prior)

    if excess(-_MAX_OFFSET) > 0 or excess(_MAX_OFFSET) < 0:
        raise ValueError(f"no offset within {_MAX_OFFSET:g} nats gives classes {list(classes)} a mass of {prior}")
    low, high = -_MAX_OFFSET, _MAX_OFFSET  # bisection: the mass grows with the offset
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return (low + high) / 2


def matching_offsets(log_posteriors: np.ndarray, priors: np.ndarray, tolerance: float = 1e-7) -> np.ndarray:
    """(C,) offsets, of mean zero, that make every class's mean posterior equal to its prior.

    Each round adds log(prior / mean posterior) to every offset: iterative proportional fitting, which does not
    diverge.

    Args:
      log_posteriors: (N, C) of unlabelled examples.
      priors: (C,), above 0, summing to one.
    """
    offsets = np.zeros(log_posteriors.shape[1])
    for _ in range(_MAX_ROUNDS):
        mean = np.exp(add_offsets(log_posteriors.astype(np.float64), offsets)).mean(0)
        step = np.log(priors) - np.log(np.maximum(mean, 1e-300))
        offsets += np.clip(step, -_MAX_OFFSET, _MAX_OFFSET)
        if np.abs(step).max() < tolerance:
            break
    return offsets - offsets.mean()


def offsets_from_targets(priors: np.ndarray, mean_target: np.ndarray, temperature: float) -> np.ndarray:
    """(C,) offsets from the targets alone: T log(prior / mean soft target at T over the transfer set).

    A student that matches its targets at temperature T has their proportions in its logits divided by T.
    """
    return temperature * (np.log(priors) - np.log(np.maximum(mean_target, 1e-300)))
