"""The random order of frames: a function of (seed, epoch) alone, so that resuming needs no sampler state.

A set of up to `chunk_frames` frames is one permutation. A larger one is cut into chunks of that many neighbouring
frames; chunks come in random order, and frames in random order inside their chunk, so that only a chunk or two of
features need be in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

CHUNK_FRAMES = 1 << 26  # 186 hours: 5.4 GB of 40-dimensional float16 features, half a GB of frame numbers


def epoch_order(
    num_frames: int,
    *,
    seed: int,
    epoch: int,
    chunk_frames: int = CHUNK_FRAMES,
    valid: np.ndarray | None = None,
    skip: int = 0,
) -> Iterator[np.ndarray]:
    """Yields the frame numbers of an epoch in the order of training, (n,) int64 for each chunk.

    Args:
      valid: (num_frames,) bool, the frames to draw from; None: all.
      skip: leave out this many from the front (chunks that are skipped whole cost nothing).
    """
    if valid is not None and valid.shape != (num_frames,):
        raise ValueError(f"valid is {valid.shape}, but there are {num_frames} frames")
    chunks = -(-num_frames // chunk_frames)
    for chunk in np.random.default_rng([seed, epoch]).permutation(chunks).tolist():
        begin, end = chunk * chunk_frames, min(num_frames, (chunk + 1) * chunk_frames)
        count = end - begin if valid is None else int(np.count_nonzero(valid[begin:end]))
        if skip >= count:
            skip -= count
            continue
        frames = np.arange(begin, end) if valid is None else begin + np.flatnonzero(valid[begin:end])
        order = np.random.default_rng([seed, epoch, chunk + 1]).permutation(frames.astype(np.int64, copy=False))
        yield order[skip:]
        skip = 0


def frame_batches(
    num_frames: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start_batch: int = 0,
    valid: np.ndarray | None = None,
    chunk_frames: int = CHUNK_FRAMES,
) -> Iterator[np.ndarray]:
    """Yields the batches of an epoch from number `start_batch` on, (B,) int64; the last may be short.

    Every valid frame comes exactly once per epoch.
    """
    if batch_size < 1:
        raise ValueError(f"a batch cannot have {batch_size} frames")
    rest = np.empty(0, dtype=np.int64)
    skip = start_batch * batch_size
    for order in epoch_order(num_frames, seed=seed, epoch=epoch, chunk_frames=chunk_frames, valid=valid, skip=skip):
        order = np.concatenate([rest, order]) if len(rest) else order
        whole = len(order) // batch_size * batch_size
        for start in range(0, whole, batch_size):
            yield order[start : start + batch_size]
        rest = order[whole:]
    if len(rest):
        yield rest
