"""Context windows by index arithmetic: the frames of a store on a device, normalised, edges repeated.

Every utterance is kept with its first frame repeated `left` times before it and its last `right` times after it.
Then a window of W frames is W * D numbers in a row, and all windows are one overlapping (strided) matrix that costs
no memory; a batch is one gather of its rows. On two CPU cores (torch 1.13.1, N = 300,000, D = 40, W = 26, B = 512 to
2,560) this moves 51 to 57 GB/s, where a plain copy moves 71 to 80 and a gather of the W single frames 15 to 24
(benchmarks/bench_windows.py).

Shapes:  N frames, D dimensions of a frame, W = left + 1 + right frames of a window, B frames in a batch.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from asr_kd.frames.sampler import CHUNK_FRAMES
from asr_kd.frames.store import FrameStore

_BLOCK_FRAMES = 1 << 18  # normalised at once on the way in


def windows_of(
    store: FrameStore, *, left: int, right: int, device: str | torch.device = "cpu", chunk_frames: int = CHUNK_FRAMES
) -> WindowedFrames | ChunkedFrames:
    """All windows of a store: held whole, or chunk by chunk where `asr_kd.frames.sampler` draws them so."""
    if store.num_frames <= chunk_frames:
        return WindowedFrames(store, left=left, right=right, device=device)
    return ChunkedFrames(store, left=left, right=right, device=device, chunk_frames=chunk_frames)


class WindowedFrames:
    """The frames of a store, or of some of its utterances, ready to be drawn in any order.

    Args:
      left, right: past and future frames of a window.
      dtype: what the frames are kept in; float16 halves the memory, `inputs` are float32 all the same.
      utterances: numbers of the utterances to hold; frames are then numbered 0, 1, ... through them in this order.
        None: all, and the numbers are the store's.
    """

    def __init__(
        self,
        store: FrameStore,
        *,
        left: int,
        right: int,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        utterances: np.ndarray | None = None,
    ):
        if left < 0 or right < 0:
            raise ValueError(f"a window cannot have {left} past and {right} future frames")
        chosen = np.arange(len(store.ids)) if utterances is None else np.asarray(utterances, dtype=np.int64)
        dims, width = store.num_dims, left + 1 + right
        lengths = np.diff(store.offsets)[chosen]
        self.num_frames = int(lengths.sum())
        self.num_inputs = width * dims
        self.device = torch.device(device)
        # frame n of the k-th utterance begins its window k * (left + right) rows further down than n
        shift = np.arange(len(chosen), dtype=np.int64) * (left + right)
        starts = np.arange(self.num_frames, dtype=np.int64) + np.repeat(shift, lengths)
        self._starts = torch.from_numpy(starts).to(self.device)
        rows = self.num_frames + len(chosen) * (left + right)
        self._frames = torch.empty((rows, dims), dtype=dtype, device=self.device)
        self._fill(store, chosen, left, right)
        # torch gathers 16-bit numbers one by one, four times slower than the same bytes as 32-bit ones
        self._paired = self._frames.element_size() == 2 and dims % 2 == 0
        cells = self._frames.view(torch.float32) if self._paired else self._frames
        count = max(0, rows - width + 1)
        self._windows = cells.as_strided((count, width * cells.shape[1]), (cells.shape[1], 1))

    def _fill(self, store: FrameStore, chosen: np.ndarray, left: int, right: int) -> None:
        block: list[np.ndarray] = []
        waiting = written = 0
        for k, utterance in enumerate(chosen.tolist()):
            frames = store.normalised(utterance)
            block += [np.repeat(frames[:1], left, axis=0), frames, np.repeat(frames[-1:], right, axis=0)]
            waiting += left + len(frames) + right
            if waiting >= _BLOCK_FRAMES or k == len(chosen) - 1:
                self._frames[written : written + waiting].copy_(torch.from_numpy(np.concatenate(block)))
                block, written, waiting = [], written + waiting, 0

    def inputs(self, frames: Tensor) -> Tensor:
        """(B,) int64 frame numbers -> (B, W * D) float32, oldest frame first, never across an utterance's edge."""
        # an index gathers the overlapping rows as they lie; index_select would first write all windows out
        found = self._windows[self._starts[frames.to(self.device)]]
        return (found.view(self._frames.dtype) if self._paired else found).float()


class ChunkedFrames:
    """Like WindowedFrames, for a set that does not fit: holds only the chunks that batches now come from.

    Meant for the order that `asr_kd.frames.sampler` gives beyond `chunk_frames`, in which each chunk is drawn empty
    before the next is begun (a batch may straddle two, so two are held).

    Args:
      chunk_frames: as given to `frame_batches`; chunk c has the frames c * chunk_frames up to (c + 1) * chunk_frames.
    """

    def __init__(
        self,
        store: FrameStore,
        *,
        left: int,
        right: int,
        chunk_frames: int,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float16,
    ):
        self.num_frames = store.num_frames
        self.num_inputs = (left + 1 + right) * store.num_dims
        self.device = torch.device(device)
        self._store, self._left, self._right, self._dtype = store, left, right, dtype
        self._chunk_frames = chunk_frames
        self._held: OrderedDict[int, tuple[int, WindowedFrames]] = OrderedDict()

    def inputs(self, frames: Tensor) -> Tensor:
        """(B,) int64 frame numbers of the store -> (B, W * D) float32."""
        numbers = frames.to(self.device)
        chunks = torch.div(numbers, self._chunk_frames, rounding_mode="floor")
        present = chunks.unique().tolist()
        if len(present) == 1:
            first, windows = self._chunk(present[0])
            return windows.inputs(numbers - first)
        result = torch.empty((len(numbers), self.num_inputs), device=self.device)
        for chunk in present:
            first, windows = self._chunk(chunk)
            result[chunks == chunk] = windows.inputs(numbers[chunks == chunk] - first)
        return result

    def _chunk(self, chunk: int) -> tuple[int, WindowedFrames]:
        """The first frame that is held, and the whole utterances that the chunk touches."""
        if chunk in self._held:
            self._held.move_to_end(chunk)
            return self._held[chunk]
        if len(self._held) == 2:
            self._held.popitem(last=False)
        offsets = self._store.offsets
        begin, end = chunk * self._chunk_frames, min((chunk + 1) * self._chunk_frames, self.num_frames)
        first = int(np.searchsorted(offsets, begin, side="right")) - 1
        last = int(np.searchsorted(offsets, end, side="left"))
        windows = WindowedFrames(
            self._store,
            left=self._left,
            right=self._right,
            device=self.device,
            dtype=self._dtype,
            utterances=np.arange(first, last),
        )
        self._held[chunk] = int(offsets[first]), windows
        return self._held[chunk]
