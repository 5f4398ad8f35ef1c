"""Batches: chunks of frames with their context, drawn in the order of training.

L = 1 draws single frames, as fully connected nets are trained; a larger L draws chunks of consecutive frames of one
utterance, whose work along time a convolutional net shares.

Shapes:  N frames of the set, K chunks of L frames in a batch, D dimensions of a frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from asr_kd.frames.sampler import BLOCK_FRAMES, ChunkSampler, block_order, epoch_order, in_batches
from asr_kd.frames.source import Context
from asr_kd.frames.windows import BlockedFrames, Windows

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """The part of a batch that one of several processes has: `chunks` from number `first` on, of `of_all`.

    Attributes:
      num_valid: valid frames of the whole batch.
    """

    first: int
    chunks: int
    of_all: int
    num_valid: int


@dataclass(frozen=True)
class Batch:
    """K chunks of L frames.

    Attributes:
      frames: (K * L,) int64 on the host, the number of each frame; past the end of an utterance its last frame.
      inputs: (K, L + left + right, D) float32 on the model's device.
      valid: (K * L,) bool on the host; frames that are False weigh nothing, in value and in gradient. None: all are
        valid.
      context: of the inputs. None: that of the model that they are for.
      share: where it is a part of a batch; None: it is a whole one.
      targets: what the criterion has read for it ahead of its step; None: nothing.
    """

    frames: Tensor
    inputs: Tensor
    valid: Tensor | None = None
    context: Context | None = None
    share: Share | None = None
    targets: Any = None

    @property
    def length(self) -> int:
        """The number of frames in a chunk, L."""
        return len(self.frames) // len(self.inputs)

    @property
    def first_frames(self) -> Tensor:
        """(K,) int64 on the host, of each chunk."""
        return self.frames[:: self.length]

    def inputs_in(self, context: Context) -> Tensor:
        """(K, L + left + right, D): the inputs as a model of this context sees them, a view.

        Raises:
          ValueError: the inputs have fewer frames.
        """
        if self.context is None or context == self.context:
            return self.inputs
        return self.inputs[:, context.frames_within(self.context)]

    @cached_property
    def num_valid(self) -> int:
        """How many of the frames are valid."""
        return len(self.frames) if self.valid is None else int(np.count_nonzero(self.valid.numpy()))

    @property
    def num_valid_of_all(self) -> int:
        """How many of the frames of the whole batch are valid."""
        return self.num_valid if self.share is None else self.share.num_valid

    def entries(self, table: Tensor) -> Tensor:
        """(N, ...) table of numbers per frame -> (K * L, ...), where the table is."""
        return table[self.frames.to(table.device, non_blocking=True)]


class Batches:
    """All batches of a training.

    Args:
      batch_size: frames of a batch; at least one chunk.
      length: L.
      seed: the order is a function of (seed, epoch).
      valid: (N,) bool, the frames to learn from; None: all.
      pin_memory: frame numbers are in pinned memory, which an accelerator copies without making the host wait.
      part: (k, n): of each batch only the k-th of n parts, counted from 0.
    """

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        *,
        length: int = 1,
        seed: int,
        valid: np.ndarray | None = None,
        pin_memory: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._pin_memory, self._part = pin_memory, part
        self._windows, self._length, self._seed, self._valid = windows, length, seed, valid
        self._all_frames = int(windows.offsets[-1])
        if valid is not None and valid.shape != (self._all_frames,):
            raise ValueError(f"valid is {valid.shape}, but there are {self._all_frames} frames")
        self.num_frames = self._all_frames if valid is None else int(np.count_nonzero(valid))  # of an epoch
        self._per_batch = max(1, batch_size // length)
        # a set that is held whole may have been given other blocks
        self._block_frames = windows.block_frames if isinstance(windows, BlockedFrames) else BLOCK_FRAMES
        self._chunks = (
            None if length == 1 else ChunkSampler(windows.offsets, length, valid=valid, block_frames=self._block_frames)
        )
        draws = self.num_frames if self._chunks is None else self._chunks.num_chunks
        self.steps_per_epoch = -(-draws // self._per_batch)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start_batch` on."""
        skip = start_batch * self._per_batch
        if isinstance(self._windows, BlockedFrames):
            self._windows.expect([*self._block_order(epoch), *self._block_order(epoch + 1)[:1]])
        if self._chunks is not None:
            for chunks in in_batches(self._chunks.epoch(self._seed, epoch, skip), self._per_batch):
                yield self._chunk_batch(chunks)
            return
        order = epoch_order(
            self._all_frames,
            seed=self._seed,
            epoch=epoch,
            block_frames=self._block_frames,
            valid=self._valid,
            skip=skip,
        )
        for numbers in in_batches(order, self._per_batch):
            yield self._frame_batch(numbers)

    def _block_order(self, epoch: int) -> list[int]:
        if self._chunks is not None:
            return self._chunks.block_order(self._seed, epoch)
        return block_order(-(-self._all_frames // self._block_frames), self._seed, epoch)

    def _chunk_batch(self, chunks: np.ndarray) -> Batch:
        share, valid = self._share(len(chunks)), self._valid
        if share is None:
            return chunk_batch(self._windows, chunks, self._length, valid, pin_memory=self._pin_memory)
        weighs = chunk_frames(self._windows, chunks, self._length, valid)[1]
        mine = chunks[share.first : share.first + share.chunks]
        batch = chunk_batch(self._windows, _or_first(mine, chunks), self._length, valid, pin_memory=self._pin_memory)
        return _as_share(batch, replace(share, num_valid=int(np.count_nonzero(weighs))))

    def _frame_batch(self, numbers: np.ndarray) -> Batch:
        share = self._share(len(numbers))
        mine = numbers if share is None else numbers[share.first : share.first + share.chunks]
        frames = _tensor(_or_first(mine, numbers), self._pin_memory)
        batch = Batch(frames, self._windows.inputs(frames), context=self._windows.context)
        return batch if share is None else _as_share(batch, share)

    def _share(self, chunks: int) -> Share | None:
        part, parts = self._part
        if parts == 1:
            return None
        first, end = (chunks * number // parts for number in (part, part + 1))
        return Share(first, end - first, chunks, chunks)


def _or_first(mine: np.ndarray, all_of_them: np.ndarray) -> np.ndarray:
    """A process that has nothing of a batch goes through the step with its first chunk, which then does not count."""
    return mine if len(mine) else all_of_them[:1]


def _as_share(batch: Batch, share: Share) -> Batch:
    valid = batch.valid if share.chunks else torch.zeros(len(batch.frames), dtype=torch.bool)
    return replace(batch, valid=valid, share=share)


def chunk_batch(
    windows: Windows, chunks: np.ndarray, length: int, valid: np.ndarray | None = None, *, pin_memory: bool = False
) -> Batch:
    """The batch of (K, 3) chunks as `ChunkSampler` gives them."""
    frames, weighs = chunk_frames(windows, chunks, length, valid)
    inputs = windows.inputs(_tensor(chunks[:, 0].copy(), pin_memory), length)
    valid_frames = _tensor(weighs.ravel(), pin_memory)
    return Batch(_tensor(frames.ravel(), pin_memory), inputs, valid_frames, windows.context)


def chunk_frames(
    windows: Windows, chunks: np.ndarray, length: int, valid: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(K, L) the number of each frame of (K, 3) chunks, and (K, L) bool whether it is learnt from."""
    first, begin, end = (chunks[:, k, None] for k in range(3))
    numbers = first + np.arange(length)
    weighs = (numbers >= begin) & (numbers < end)
    frames = np.minimum(numbers, windows.offsets[np.searchsorted(windows.offsets, first, side="right")] - 1)
    if valid is not None:
        weighs &= valid[frames]
    return frames, weighs


def _tensor(array: np.ndarray, pin_memory: bool) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if pin_memory else tensor


def prefetched(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """The same items (not None), drawn by another thread up to `depth` ahead; its error is raised where it is due."""
    pool = ThreadPoolExecutor(1)
    try:
        waiting = deque(pool.submit(next, items, None) for _ in range(depth))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, items, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
