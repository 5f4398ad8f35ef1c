"""Subsets of a training set, by utterance: a fraction of it, and folds. Altered copies go with their original.

Shapes:  N frames of the set, U utterances, M members of an ensemble.
"""

from __future__ import annotations

import numpy as np

from asr_kd.frames.store import FrameStore


def draw_fraction(store: FrameStore, fraction: float, seed: int) -> np.ndarray | None:
    """(N,) bool: the frames of a fraction of the utterances, at least one; None where that is all of them.

    With one seed, a smaller fraction is part of a larger one.
    """
    if fraction >= 1:
        return None
    original = _original_numbers(store)
    count = int(original.max()) + 1
    drawn = np.random.default_rng([seed, 3]).permutation(count)[: max(1, round(fraction * count))]
    return np.repeat(np.isin(original, drawn), np.diff(store.offsets))


def fold_of_utterances(store: FrameStore, folds: int) -> np.ndarray:
    """(U,) int64, the fold of each utterance."""
    return _original_numbers(store) % folds


def held_out_frames(store: FrameStore, folds: int, members: int) -> np.ndarray:
    """(M, N) bool: the frames of fold m modulo `folds`, on which member m does not train."""
    fold_of_frame = np.repeat(fold_of_utterances(store, folds), np.diff(store.offsets))
    return fold_of_frame[None, :] == (np.arange(members) % folds)[:, None]


def _original_numbers(store: FrameStore) -> np.ndarray:
    """(U,) int64: numbers of the utterances; an altered copy has the number of its original."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in store.originals])
