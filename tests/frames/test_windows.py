"""A window is the naive splice of an utterance's frames, its edges repeated; never a neighbour's frame."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.frames.sampler import frame_batches
from asr_kd.frames.store import FrameStore, write_store
from asr_kd.frames.windows import ChunkedFrames, WindowedFrames, windows_of


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
        windows = WindowedFrames(store, left=left, right=right)
        assert (windows.num_frames, windows.num_inputs) == everything.shape
        frames = data.draw(st.lists(st.integers(0, windows.num_frames - 1), max_size=20))
        found = windows.inputs(torch.tensor(frames, dtype=torch.int64))
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), everything[np.array(frames, dtype=int)])
        # kept in half the memory
        half = WindowedFrames(store, left=left, right=right, dtype=torch.float16)
        found = half.inputs(torch.tensor(frames, dtype=torch.int64))
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), everything[np.array(frames, dtype=int)].astype(np.float16))
        # some utterances, in another order
        chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=5))
        part = WindowedFrames(store, left=left, right=right, utterances=np.array(chosen))
        np.testing.assert_array_equal(
            part.inputs(torch.arange(part.num_frames)).numpy(), naive(store, chosen, left, right)
        )


def test_the_caller_may_write_into_the_inputs(tmp_path: Path) -> None:
    windows = WindowedFrames(random_store(tmp_path, [4, 4], 2, 0), left=1, right=1)
    before = windows.inputs(torch.arange(8)).clone()
    windows.inputs(torch.arange(8)).zero_()
    assert torch.equal(windows.inputs(torch.arange(8)), before)


@settings(max_examples=30, deadline=None)
@given(lengths=lengths, chunk_frames=st.integers(1, 40), batch_size=st.integers(1, 20), seed=st.integers(0, 9))
def test_chunks_give_the_same_inputs(lengths: list[int], chunk_frames: int, batch_size: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(folder, lengths, 2, seed)
        whole = WindowedFrames(store, left=3, right=2, dtype=torch.float16)
        chunked = ChunkedFrames(store, left=3, right=2, chunk_frames=chunk_frames)
        assert (chunked.num_frames, chunked.num_inputs) == (whole.num_frames, whole.num_inputs)
        for batch in frame_batches(store.num_frames, batch_size, seed=1, epoch=0, chunk_frames=chunk_frames):
            frames = torch.from_numpy(batch)
            assert torch.equal(chunked.inputs(frames), whole.inputs(frames))
            assert len(chunked._held) <= 2


def test_large_stores_are_filled_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = random_store(tmp_path, [5, 1, 9, 2, 2], 3, 0)
    monkeypatch.setattr("asr_kd.frames.windows._BLOCK_FRAMES", 6)
    windows = WindowedFrames(store, left=4, right=1)
    np.testing.assert_array_equal(windows.inputs(torch.arange(19)).numpy(), naive(store, [0, 1, 2, 3, 4], 4, 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_cuda(tmp_path: Path, dtype: torch.dtype) -> None:
    store = random_store(tmp_path, [5, 1, 9], 4, 0)
    frames = torch.tensor([14, 0, 5, 6, 7])
    here = WindowedFrames(store, left=4, right=1, dtype=dtype).inputs(frames)
    there = WindowedFrames(store, left=4, right=1, dtype=dtype, device="cuda").inputs(frames.cuda())
    assert torch.equal(there.cpu(), here)


def test_a_large_store_is_held_in_chunks(tmp_path: Path) -> None:
    store = random_store(tmp_path, [5, 1, 9], 4, 0)
    whole = windows_of(store, left=2, right=1, chunk_frames=15)
    chunked = windows_of(store, left=2, right=1, chunk_frames=14)
    assert isinstance(whole, WindowedFrames)
    assert isinstance(chunked, ChunkedFrames)
    frames = torch.tensor([14, 0, 7])
    assert torch.allclose(whole.inputs(frames), chunked.inputs(frames), atol=1e-2)
