"""Which frames a model is trained on, and their random order.

The order is a function of (seed, epoch) alone, so that resuming needs no sampler state.

A set of up to `block_frames` frames is one permutation. A larger one is cut into blocks of that many neighbouring
frames; blocks come in random order, and frames (or chunks) in random order inside their block, so that only a block or
two of features, and the one that comes next, need be in memory.

Shapes:  N frames of the set, U utterances, K chunks, L frames of a chunk, M members of an ensemble.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from asr_kd.frames.store import FrameStore

BLOCK_FRAMES = 1 << 25  # 93 hours: 2.7 GB of 40-dimensional float16 features, a quarter of a GB of frame numbers


def block_order(blocks: int | np.ndarray, seed: int, epoch: int) -> list[int]:
    """The blocks (or 0 up to a number of them) in the order in which an epoch draws from them."""
    order: list[int] = np.random.default_rng([seed, epoch]).permutation(blocks).tolist()
    return order


def epoch_order(
    num_frames: int,
    *,
    seed: int,
    epoch: int,
    block_frames: int = BLOCK_FRAMES,
    valid: np.ndarray | None = None,
    skip: int = 0,
) -> Iterator[np.ndarray]:
    """Yields the frame numbers of an epoch in the order of training, (n,) int64 for each block.

    Args:
      valid: (num_frames,) bool, the frames to draw from; None: all.
      skip: leave out this many from the front (blocks that are skipped whole cost nothing).

    >>> [block.tolist() for block in epoch_order(5, seed=1, epoch=0)]
    [[2, 4, 0, 1, 3]]
    """
    for block in block_order(-(-num_frames // block_frames), seed, epoch):
        begin, end = block * block_frames, min(num_frames, (block + 1) * block_frames)
        count = end - begin if valid is None else int(np.count_nonzero(valid[begin:end]))
        if skip >= count:
            skip -= count
            continue
        frames = np.arange(begin, end) if valid is None else begin + np.flatnonzero(valid[begin:end])
        order = np.random.default_rng([seed, epoch, block + 1]).permutation(frames.astype(np.int64, copy=False))
        yield order[skip:]
        skip = 0


class ChunkSampler:
    """Chunks of L consecutive frames of one utterance, cut elsewhere in each epoch.

    An utterance of n frames has ceil(n / L) chunks, and each of its frames belongs to exactly one. A chunk that would
    reach over an edge of the utterance is moved inside, and overlaps its neighbour there. A chunk is a row (first,
    begin, end): it has the frames first to first + L, and is trained on those from `begin` up to `end`. In an
    utterance shorter than L frames the chunk reaches over the end.

    Args:
      offsets: (U + 1,) the first frame of each utterance, and the number of frames.
      valid: (N,) bool; an utterance with no valid frame has no chunk. None: all frames.

    >>> ChunkSampler(np.array([0, 7, 9]), 4).in_order()
    array([[0, 0, 4],
           [3, 4, 7],
           [7, 7, 9]])
    """

    def __init__(
        self, offsets: np.ndarray, length: int, *, valid: np.ndarray | None = None, block_frames: int = BLOCK_FRAMES
    ) -> None:
        drawn = slice(None) if valid is None else np.logical_or.reduceat(valid, offsets[:-1])
        self._begins, self._ends = offsets[:-1][drawn], offsets[1:][drawn]
        self._counts = -(-(self._ends - self._begins) // length)
        self._length, self._blocks = length, self._begins // block_frames
        self.num_chunks = int(self._counts.sum())

    def in_order(self) -> np.ndarray:
        """(num_chunks, 3) int64, every utterance cut from its first frame on."""
        return self._cut(np.arange(len(self._begins)), np.zeros(len(self._begins), np.int64))

    def block_order(self, seed: int, epoch: int) -> list[int]:
        """The blocks that have chunks, in the order in which an epoch draws from them."""
        return block_order(np.unique(self._blocks), seed, epoch)

    def epoch(self, seed: int, epoch: int, skip: int = 0) -> Iterator[np.ndarray]:
        """Yields the chunks of an epoch in the order of training, (n, 3) int64 for each block, but the first `skip`."""
        for block in self.block_order(seed, epoch):
            utterances = np.flatnonzero(self._blocks == block)
            count = int(self._counts[utterances].sum())
            if skip >= count:
                skip -= count
                continue
            rng = np.random.default_rng([seed, epoch, block + 1])
            lengths = self._ends[utterances] - self._begins[utterances]
            spare = self._counts[utterances] * self._length - lengths
            yield rng.permutation(self._cut(utterances, rng.integers(0, spare, endpoint=True)))[skip:]
            skip = 0

    def _cut(self, utterances: np.ndarray, early: np.ndarray) -> np.ndarray:
        """The chunks of these utterances; the first chunk of each would begin `early` frames before the utterance."""
        counts = self._counts[utterances]
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        begin, end, early = (np.repeat(a, counts) for a in (self._begins[utterances], self._ends[utterances], early))
        cut = begin - early + number * self._length
        first = np.maximum(begin, np.minimum(cut, end - self._length))
        return np.stack([first, np.maximum(cut, begin), np.minimum(cut + self._length, end)], axis=1)


def in_batches(parts: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The rows of all parts, `size` at a time; the last batch may be short."""
    rest: np.ndarray | None = None
    for part in parts:
        rows = part if rest is None or not len(rest) else np.concatenate([rest, part])
        whole = len(rows) // size * size
        for start in range(0, whole, size):
            yield rows[start : start + size]
        rest = rows[whole:]
    if rest is not None and len(rest):
        yield rest


def draw_fraction(store: FrameStore, fraction: float, seed: int) -> np.ndarray | None:
    """(N,) bool: the frames of a fraction of the utterances, at least one; None where that is all of them.

    Altered copies go with their original. With one seed, a smaller fraction is part of a larger one.
    """
    if fraction >= 1:
        return None
    original = _original_numbers(store)
    count = int(original.max()) + 1
    drawn = np.random.default_rng([seed, 3]).permutation(count)[: max(1, round(fraction * count))]
    return np.repeat(np.isin(original, drawn), np.diff(store.offsets))


def fold_of_utterances(store: FrameStore, folds: int) -> np.ndarray:
    """(U,) int64, the fold of each utterance; altered copies are in their original's."""
    return _original_numbers(store) % folds


def held_out_frames(store: FrameStore, folds: int, members: int) -> np.ndarray:
    """(M, N) bool: the frames of fold m modulo `folds`, on which member m does not train."""
    fold_of_frame = np.repeat(fold_of_utterances(store, folds), np.diff(store.offsets))
    return fold_of_frame[None, :] == (np.arange(members) % folds)[:, None]


def _original_numbers(store: FrameStore) -> np.ndarray:
    """(U,) int64: numbers of the utterances; an altered copy has the number of its original."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in store.originals])
