"""Batches: chunks of frames with their context, drawn in the order of training.

L = 1 draws single frames, as fully connected nets are trained; a larger L draws chunks of consecutive frames of one
utterance, whose work along time a convolutional net shares.

Shapes:  N frames of the set, K chunks of L frames in a batch, D dimensions of a frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from asr_kd.frames.sampler import ChunkSampler, epoch_order, in_batches
from asr_kd.frames.source import Context
from asr_kd.frames.windows import Windows

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """K chunks of L frames.

    Attributes:
      frames: (K * L,) int64 on the host, the number of each frame; past the end of an utterance its last frame.
      inputs: (K, L + left + right, D) float32 on the model's device.
      valid: (K * L,) bool on the host; frames that are False weigh nothing, in value and in gradient. None: all are
        valid.
      context: of the inputs. None: that of the model that they are for.
    """

    frames: Tensor
    inputs: Tensor
    valid: Tensor | None = None
    context: Context | None = None

    @property
    def length(self) -> int:
        """L."""
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
    ) -> None:
        self._pin_memory = pin_memory
        self._windows, self._length, self._seed, self._valid = windows, length, seed, valid
        self._all_frames = int(windows.offsets[-1])
        if valid is not None and valid.shape != (self._all_frames,):
            raise ValueError(f"valid is {valid.shape}, but there are {self._all_frames} frames")
        self.num_frames = self._all_frames if valid is None else int(np.count_nonzero(valid))  # of an epoch
        self._per_batch = max(1, batch_size // length)
        self._chunks = None if length == 1 else ChunkSampler(windows.offsets, length, valid=valid)
        draws = self.num_frames if self._chunks is None else self._chunks.num_chunks
        self.steps_per_epoch = -(-draws // self._per_batch)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start_batch` on."""
        skip = start_batch * self._per_batch
        if self._chunks is not None:
            for chunks in in_batches(self._chunks.epoch(self._seed, epoch, skip), self._per_batch):
                yield chunk_batch(self._windows, chunks, self._length, self._valid, pin_memory=self._pin_memory)
            return
        order = epoch_order(self._all_frames, seed=self._seed, epoch=epoch, valid=self._valid, skip=skip)
        for numbers in in_batches(order, self._per_batch):
            frames = _tensor(numbers, self._pin_memory)
            yield Batch(frames, self._windows.inputs(frames), context=self._windows.context)


def chunk_batch(
    windows: Windows, chunks: np.ndarray, length: int, valid: np.ndarray | None = None, *, pin_memory: bool = False
) -> Batch:
    """The batch of (K, 3) chunks as `ChunkSampler` gives them."""
    first, begin, end = (chunks[:, k, None] for k in range(3))
    numbers = first + np.arange(length)
    weighs = (numbers >= begin) & (numbers < end)
    frames = np.minimum(numbers, windows.offsets[np.searchsorted(windows.offsets, first, side="right")] - 1)
    if valid is not None:
        weighs &= valid[frames]
    inputs = windows.inputs(_tensor(chunks[:, 0].copy(), pin_memory), length)
    valid_frames = _tensor(weighs.ravel(), pin_memory)
    return Batch(_tensor(frames.ravel(), pin_memory), inputs, valid_frames, windows.context)


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
