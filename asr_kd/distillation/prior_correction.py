"""Correction of output biases: a model whose classes came in other proportions than they will, put right.

A class that was rare (or missing) in the transfer set gets too little posterior mass. Adding an offset to its logit
restores it (Hinton, Vinyals, Dean 2015, section 3, which chooses the offset on the test set). Here no label is used:
either the offset makes the mean posterior on unlabelled examples equal to the known prior, or it is had from the
teacher's mean soft target alone. In speech the same operation is the decoder's: log-likelihoods, up to a constant,
are log posteriors less the log prior of the training set.

Shapes:  N examples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_WIDEST = 60.0  # nats; an offset beyond this would be no correction any more
_ROUNDS = 500


def add_offsets(log_posteriors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(N, C) log posteriors with (C,) offsets added to their logits, normalised again."""
    shifted = log_posteriors + offsets
    normalised: np.ndarray = shifted - np.logaddexp.reduce(shifted, axis=-1, keepdims=True)
    return normalised


def shared_offset(log_posteriors: np.ndarray, classes: Sequence[int], prior: float) -> float:
    """One offset for all of `classes` such that their mean posterior mass together is `prior`.

    Args:
      log_posteriors: (N, C) of unlabelled examples.
      prior: what share of the examples the classes are known to have, above 0 and below 1.
    """
    if not 0 < prior < 1:
        raise ValueError(f"a prior of {prior} leaves nothing to choose")
    # only the odds of the group matter: q -> q e^b / (q e^b + 1 - q)
    inside = np.logaddexp.reduce(log_posteriors[:, list(classes)], axis=1)
    outside = np.logaddexp.reduce(np.delete(log_posteriors, list(classes), axis=1), axis=1)
    odds = (inside - outside).astype(np.float64)

    def excess(offset: float) -> float:
        return float((1 / (1 + np.exp(-np.clip(odds + offset, -700, 700)))).mean() - prior)

    if excess(-_WIDEST) > 0 or excess(_WIDEST) < 0:
        raise ValueError(f"no offset within {_WIDEST:g} nats gives classes {list(classes)} a mass of {prior}")
    low, high = -_WIDEST, _WIDEST  # the mass grows with the offset: halving finds it
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return (low + high) / 2


def matching_offsets(log_posteriors: np.ndarray, priors: np.ndarray, tolerance: float = 1e-7) -> np.ndarray:
    """(C,) offsets, of mean zero, such that every class's mean posterior equals its prior.

    Each round adds log(prior / mean posterior) to every offset: iterative proportional fitting, which does not
    diverge.

    Args:
      log_posteriors: (N, C) of unlabelled examples.
      priors: (C,), above 0, summing to one.
    """
    offsets = np.zeros(log_posteriors.shape[1])
    for _ in range(_ROUNDS):
        mean = np.exp(add_offsets(log_posteriors.astype(np.float64), offsets)).mean(0)
        step = np.log(priors) - np.log(np.maximum(mean, 1e-300))
        offsets += np.clip(step, -_WIDEST, _WIDEST)
        if np.abs(step).max() < tolerance:
            break
    centred: np.ndarray = offsets - offsets.mean()
    return centred


def offsets_from_targets(priors: np.ndarray, mean_target: np.ndarray, temperature: float) -> np.ndarray:
    """(C,) offsets that need no example: T log(prior / mean soft target at T over the transfer set).

    A student that matches its targets at temperature T carries their proportions in its logits divided by T.
    """
    offsets: np.ndarray = temperature * (np.log(priors) - np.log(np.maximum(mean_target, 1e-300)))
    return offsets
