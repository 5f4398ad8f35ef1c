"""Context windows by index arithmetic: the frames of a source on a device, normalised, edges repeated.

Every utterance is stored with its first frame repeated `left` times before it and its last `right` times after it.
Then a window of W frames is W * D numbers in a row, and all windows are one overlapping (strided) matrix that costs
no memory; a batch is one gather of its rows. On two CPU cores (torch 1.13.1, N = 300,000, D = 40, W = 26, B = 512 to
2,560) this moves 51 to 57 GB/s, where a plain copy moves 71 to 80 and a gather of the W single frames 15 to 24
(benchmarks/bench_windows.py).

Shapes:  N frames, D dimensions of a frame, W = left + 1 + right frames of a window, K chunks of L frames in a batch.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from asr_kd.frames.sampler import BLOCK_FRAMES
from asr_kd.frames.source import Context, FrameSource
from asr_kd.kernels.transfer import on_device

_ROWS_AT_ONCE = 1 << 18  # normalised at once on the way in


class Windows(Protocol):
    """What models are trained on: chunks of frames with their context, by frame number."""

    @property
    def offsets(self) -> np.ndarray:
        """(U + 1,) int64, the first frame of each utterance, and the number of frames."""

    @property
    def context(self) -> Context:
        """The frames that a window has before and after the one it is for."""

    def inputs(self, frames: Tensor, length: int = 1) -> Tensor:
        """Chunks of L = `length` frames with their context.

        Args:
          frames: (K,) int64 on the host, the first frame of each chunk.

        Returns:
          (K, L + left + right, D) float32, oldest frame first. No chunk has frames of a second utterance: past the
          end its last frame is repeated.
        """


def windows_of(
    source: FrameSource, context: Context, *, device: str | torch.device = "cpu", block_frames: int = BLOCK_FRAMES
) -> WindowedFrames | BlockedFrames:
    """All windows of a source: in memory, or block by block where `asr_kd.frames.sampler` draws them so."""
    if source.num_frames <= block_frames:
        return WindowedFrames(source, context, device=device)
    return BlockedFrames(source, context, device=device, block_frames=block_frames)


class WindowedFrames:
    """The frames of a source, or of some of its utterances, ready to be drawn in any order.

    Args:
      dtype: what the frames are stored in; float16 halves the memory, `inputs` are float32 all the same.
      utterances: numbers of the utterances to load; frames are then numbered 0, 1, ... through them in this order.
        None: all, and the numbers are the source's.
    """

    def __init__(
        self,
        source: FrameSource,
        context: Context,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        utterances: np.ndarray | None = None,
    ):
        chosen = np.arange(len(source.ids)) if utterances is None else np.asarray(utterances, dtype=np.int64)
        dims = self.num_dims = source.num_dims
        lengths = np.diff(source.offsets)[chosen]
        self.offsets = np.append(0, np.cumsum(lengths))
        self.context, self.num_frames = context, int(lengths.sum())
        self.device = torch.device(device)
        # the window of frame n of the k-th utterance begins k * (left + right) rows further down than n
        shift = np.arange(len(chosen), dtype=np.int64) * context.frames
        starts = np.arange(self.num_frames, dtype=np.int64) + np.repeat(shift, lengths)
        self._starts = torch.from_numpy(starts).to(self.device)
        rows = self.num_frames + len(chosen) * context.frames
        self._frames = torch.empty((rows, dims), dtype=dtype, device=self.device)
        self._fill(source, chosen)
        # torch gathers 16-bit numbers one by one, four times slower than the same bytes as 32-bit ones
        self._paired = self._frames.element_size() == 2 and dims % 2 == 0
        self._cells = self._frames.view(torch.float32) if self._paired else self._frames
        count, width = max(0, rows - context.width + 1), self._cells.shape[1]
        self._windows = self._cells.as_strided((count, context.width * width), (width, 1))

    def _fill(self, source: FrameSource, chosen: np.ndarray) -> None:
        left, right = self.context.left, self.context.right
        parts: list[np.ndarray] = []
        waiting = written = 0
        for k, utterance in enumerate(chosen.tolist()):
            frames = source.normalised(utterance)
            parts += [np.repeat(frames[:1], left, axis=0), frames, np.repeat(frames[-1:], right, axis=0)]
            waiting += left + len(frames) + right
            if waiting >= _ROWS_AT_ONCE or k == len(chosen) - 1:
                self._frames[written : written + waiting].copy_(torch.from_numpy(np.concatenate(parts)))
                parts, written, waiting = [], written + waiting, 0

    def inputs(self, frames: Tensor, length: int = 1) -> Tensor:
        """See `Windows.inputs`."""
        first = self._starts[frames.to(self.device, non_blocking=True)]
        if length == 1:
            # an index gathers the overlapping rows as they lie; index_select would first write all windows out
            cells = self._windows[first]
        else:
            numbers = frames.numpy()
            ends = self.offsets[np.searchsorted(self.offsets, numbers, side="right")]
            last = on_device(ends - numbers + self.context.frames - 1, self.device)
            rows = torch.arange(length + self.context.frames, device=self.device)
            cells = self._cells[first.unsqueeze(1) + torch.minimum(rows, last.unsqueeze(1))]
        cells = cells.view(self._frames.dtype) if self._paired else cells
        return cells.float().view(len(frames), length + self.context.frames, self.num_dims)


_Block = tuple[int, WindowedFrames]  # its first frame that is in memory


class BlockedFrames:
    """The windows of a set that does not fit into memory: only the blocks that batches now come from are loaded.

    They are used like those of `WindowedFrames`, in the order that `asr_kd.frames.sampler` gives beyond `block_frames`:
    in it each block is drawn empty before the next is begun. A batch may straddle two, so two are in memory, and the
    one after them where it is known which that is: another thread loads it meanwhile.

    Args:
      block_frames: as given to the sampler; block b has the frames b * block_frames up to (b + 1) * block_frames.
    """

    def __init__(
        self,
        source: FrameSource,
        context: Context,
        *,
        block_frames: int,
        device: str | torch.device = "cpu",
    ):
        self.offsets, self.num_frames = source.offsets, source.num_frames
        self.context, self.device = context, torch.device(device)
        self.block_frames, self._source = block_frames, source
        self._loaded: OrderedDict[int, _Block] = OrderedDict()
        self._after: dict[int, int] = {}  # block -> the one that is drawn from next
        self._loader = ThreadPoolExecutor(1)
        self._coming: tuple[int, Future[_Block]] | None = None

    def expect(self, blocks: Sequence[int]) -> None:
        """Says in which order blocks will be drawn from, each but the last one once."""
        self._after = dict(itertools.pairwise(blocks))

    def inputs(self, frames: Tensor, length: int = 1) -> Tensor:
        """See `Windows.inputs`."""
        # a chunk belongs to the block in which its utterance begins, as in `ChunkSampler`
        numbers = frames.numpy()
        begins = numbers if length == 1 else self.offsets[np.searchsorted(self.offsets, numbers, side="right") - 1]
        blocks = torch.from_numpy(begins // self.block_frames)
        present = blocks.unique().tolist()
        if len(present) == 1:
            first, windows = self._block(present[0])
            return windows.inputs(frames.sub(first), length)
        result = torch.empty((len(frames), length + self.context.frames, self._source.num_dims), device=self.device)
        for block in present:
            start, windows = self._block(block)
            positions = torch.nonzero(blocks == block).squeeze(1)
            result[on_device(positions, self.device)] = windows.inputs(frames[positions].sub(start), length)
        return result

    def _block(self, block: int) -> _Block:
        if block in self._loaded:
            self._loaded.move_to_end(block)
        else:
            if len(self._loaded) == 2:
                self._loaded.popitem(last=False)
            coming, self._coming = self._coming, None
            self._loaded[block] = coming[1].result() if coming and coming[0] == block else self._load(block)
            del coming  # which would hold the block when it is no longer among those loaded
        after = self._after.get(block)
        if self._coming is None and after is not None and after not in self._loaded:
            self._coming = after, self._loader.submit(self._load, after)
        return self._loaded[block]

    def _load(self, block: int) -> _Block:
        """The whole utterances that the block touches."""
        begin, end = block * self.block_frames, min((block + 1) * self.block_frames, self.num_frames)
        first = int(np.searchsorted(self.offsets, begin, side="right")) - 1
        last = int(np.searchsorted(self.offsets, end, side="left"))
        windows = WindowedFrames(
            self._source, self.context, device=self.device, dtype=torch.float16, utterances=np.arange(first, last)
        )
        return int(self.offsets[first]), windows
