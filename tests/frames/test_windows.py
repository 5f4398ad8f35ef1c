"""A window is the naive splice of an utterance's frames, its edges repeated; never a neighbour's frame."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.frames.batches import Batches
from asr_kd.frames.sampler import ChunkSampler, epoch_order, in_batches
from asr_kd.frames.source import Context
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import BlockedFrames, WindowedFrames, windows_of

from ..stores import write_store


def random_store(folder: str | Path, lengths: list[int], dims: int, seed: int) -> FrameStore:
    rng = np.random.default_rng(seed)
    given_ = [(f"u{k}", rng.normal(size=(n, dims)).astype(np.float32)) for k, n in enumerate(lengths)]
    given_[0][1][0, 0] += 1  # one number alone is constant
    return write_store(Path(folder), given_, groups=["all"] * len(lengths))


def naive(store: FrameStore, utterances: list[int], left: int, right: int) -> np.ndarray:
    rows = []
    for u in utterances:
        frames = store.normalised(u)
        for t in range(len(frames)):
            rows.append(np.concatenate([frames[min(max(t + k, 0), len(frames) - 1)] for k in range(-left, right + 1)]))
    return np.array(rows)


lengths = st.lists(st.integers(1, 12), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    lengths=lengths,
    dims=st.integers(2, 5),
    left=st.integers(0, 15),
    right=st.integers(0, 9),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_inputs_equal_a_naive_splice(
    lengths: list[int], dims: int, left: int, right: int, seed: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(folder, lengths, dims, seed)
        everything = naive(store, list(range(len(lengths))), left, right)
        windows = WindowedFrames(store, Context(left, right))
        assert windows.num_frames == len(everything)
        frames = data.draw(st.lists(st.integers(0, windows.num_frames - 1), max_size=20))
        inputs = windows.inputs(torch.tensor(frames, dtype=torch.int64))
        assert inputs.dtype == torch.float32 and inputs.shape == (len(frames), left + 1 + right, dims)
        np.testing.assert_array_equal(inputs.flatten(1).numpy(), everything[np.array(frames, dtype=int)])
        # in half the memory
        half = WindowedFrames(store, Context(left, right), dtype=torch.float16)
        inputs = half.inputs(torch.tensor(frames, dtype=torch.int64))
        assert inputs.dtype == torch.float32
        np.testing.assert_array_equal(
            inputs.flatten(1).numpy(), everything[np.array(frames, dtype=int)].astype(np.float16)
        )
        # some utterances, in another order
        chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=5))
        part = WindowedFrames(store, Context(left, right), utterances=np.array(chosen))
        np.testing.assert_array_equal(
            part.inputs(torch.arange(part.num_frames)).flatten(1).numpy(), naive(store, chosen, left, right)
        )


def test_the_caller_may_write_into_the_inputs(tmp_path: Path) -> None:
    windows = WindowedFrames(random_store(tmp_path, [4, 4], 2, 0), Context(1, 1))
    before = windows.inputs(torch.arange(8)).clone()
    windows.inputs(torch.arange(8)).zero_()
    assert torch.equal(windows.inputs(torch.arange(8)), before)


@settings(max_examples=30, deadline=None)
@given(lengths=lengths, block_frames=st.integers(1, 40), batch_size=st.integers(1, 20), seed=st.integers(0, 9))
def test_blocks_give_the_same_inputs(lengths: list[int], block_frames: int, batch_size: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(folder, lengths, 2, seed)
        whole = WindowedFrames(store, Context(3, 2), dtype=torch.float16)
        blocked = BlockedFrames(store, Context(3, 2), block_frames=block_frames)
        assert blocked.num_frames == whole.num_frames
        order = epoch_order(store.num_frames, seed=1, epoch=0, block_frames=block_frames)
        for batch in in_batches(order, batch_size):
            frames = torch.from_numpy(batch)
            assert torch.equal(blocked.inputs(frames), whole.inputs(frames))
            assert len(blocked._loaded) <= 2
        for chunks in in_batches(ChunkSampler(store.offsets, 5, block_frames=block_frames).epoch(1, 0), 3):
            first = torch.from_numpy(chunks[:, 0].copy())
            assert torch.equal(blocked.inputs(first, 5), whole.inputs(first, 5))
            assert len(blocked._loaded) <= 2


@settings(max_examples=30, deadline=None)
@given(
    lengths=lengths,
    block_frames=st.integers(1, 40),
    length=st.sampled_from([1, 4]),
    start=st.integers(0, 3),
    seed=st.integers(0, 9),
)
def test_batches_of_blocks_that_are_loaded_ahead_are_those_of_the_whole(
    lengths: list[int], block_frames: int, length: int, start: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(folder, lengths, 2, seed)
        whole = WindowedFrames(store, Context(3, 2), dtype=torch.float16)
        blocked = BlockedFrames(store, Context(3, 2), block_frames=block_frames)
        batches = Batches(blocked, 4, length=length, seed=seed)
        for epoch in range(2):
            drawn = 0
            for batch in batches.epoch(epoch, start):
                assert torch.equal(batch.inputs, whole.inputs(batch.first_frames, length))
                drawn += 1
            assert drawn == max(0, batches.steps_per_epoch - start)


@pytest.mark.parametrize("length", [1, 5])
def test_only_the_first_block_is_waited_for(tmp_path: Path, length: int) -> None:
    store = random_store(tmp_path, [10] * 20, 2, 0)
    blocked, loads = BlockedFrames(store, Context(3, 2), block_frames=40), list[tuple[int, bool]]()
    load = blocked._load

    def noted(block: int) -> tuple[int, WindowedFrames]:
        loads.append((block, threading.current_thread() is threading.main_thread()))
        return load(block)

    blocked._load = noted  # type: ignore[method-assign]
    batches = Batches(blocked, 15, length=length, seed=1)  # which are no whole part of a block
    for epoch in range(3):
        for batch in batches.epoch(epoch):
            assert torch.isfinite(batch.inputs).all() and len(blocked._loaded) <= 2
    blocked._loader.shutdown()
    assert [waited for _, waited in loads] == [True] + [False] * (len(loads) - 1)
    assert 13 <= len(loads) <= 16  # five blocks in each epoch; the last of one may be the first of the next


@settings(max_examples=40, deadline=None)
@given(
    lengths=lengths, left=st.integers(0, 9), right=st.integers(0, 9), length=st.integers(2, 15), seed=st.integers(0, 9)
)
def test_chunks_are_consecutive_windows_and_end_with_their_utterance(
    lengths: list[int], left: int, right: int, length: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(folder, lengths, 2, seed)
        for dtype in (torch.float32, torch.float16):
            windows = WindowedFrames(store, Context(left, right), dtype=dtype)
            single = windows.inputs(torch.arange(windows.num_frames))
            for u, (begin, end) in enumerate(zip(store.offsets[:-1], store.offsets[1:])):
                chunk = windows.inputs(torch.tensor([begin]), length)[0]
                assert chunk.shape == (length + left + right, 2)
                for t in range(min(length, end - begin)):
                    assert torch.equal(chunk[t : t + left + 1 + right], single[begin + t]), (u, t)
                beyond = chunk[end - begin + left + right :]
                assert torch.equal(beyond, single[end - 1][-1:].expand_as(beyond))


def test_large_stores_are_filled_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = random_store(tmp_path, [5, 1, 9, 2, 2], 3, 0)
    monkeypatch.setattr("asr_kd.frames.windows._ROWS_AT_ONCE", 6)
    windows = WindowedFrames(store, Context(4, 1))
    np.testing.assert_array_equal(
        windows.inputs(torch.arange(19)).flatten(1).numpy(), naive(store, [0, 1, 2, 3, 4], 4, 1)
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_cuda(tmp_path: Path, dtype: torch.dtype) -> None:
    store = random_store(tmp_path, [5, 1, 9], 4, 0)
    frames = torch.tensor([14, 0, 5, 6, 7])
    here = WindowedFrames(store, Context(4, 1), dtype=dtype).inputs(frames)
    there = WindowedFrames(store, Context(4, 1), dtype=dtype, device="cuda").inputs(frames)
    assert torch.equal(there.cpu(), here)


def test_a_large_store_is_loaded_in_chunks(tmp_path: Path) -> None:
    store = random_store(tmp_path, [5, 1, 9], 4, 0)
    whole = windows_of(store, Context(2, 1), block_frames=15)
    blocked = windows_of(store, Context(2, 1), block_frames=14)
    assert isinstance(whole, WindowedFrames)
    assert isinstance(blocked, BlockedFrames)
    frames = torch.tensor([14, 0, 7])
    assert torch.allclose(whole.inputs(frames), blocked.inputs(frames), atol=1e-2)
