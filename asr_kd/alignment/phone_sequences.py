"""The phones of each aligned utterance, with the pronunciations that the alignment chose and its silences.

From them a phone bigram is estimated, and recognised phones are compared with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.set_alignment import SEGMENTS, read_array


def phone_sequences(segments: NDArray[np.int32], num_utterances: int) -> Iterator[NDArray[np.int32]]:
    """The phones of each utterance, in order, silence included; empty where an utterance has no alignment.

    Args:
      segments: (K, 5) of a set, sorted by utterance: see `set_alignment`.

    >>> segments = np.array([[0, 0, -1, 0, 9], [0, 7, 0, 9, 14], [2, 5, 0, 0, 6]], np.int32)
    >>> [phones.tolist() for phones in phone_sequences(segments, 3)]
    [[0, 7], [], [5]]
    """
    bounds = np.searchsorted(segments[:, 0], np.arange(num_utterances + 1))
    for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield np.asarray(segments[first:end, 1], np.int32)


def read_phone_sequences(folder: Path, num_utterances: int) -> Iterator[NDArray[np.int32]]:
    """Reads the phones of each utterance, as `phone_sequences` yields them, from a set's alignment on disk.

    Raises:
      UserError: the alignment is missing or damaged.
    """
    return phone_sequences(read_array(folder / SEGMENTS), num_utterances)
