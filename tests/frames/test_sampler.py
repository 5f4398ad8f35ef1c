"""The order of frames: every frame once, from (seed, epoch) alone, and it can be entered anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.frames.sampler import epoch_order, frame_batches

frames = st.integers(0, 300)
chunks = st.integers(1, 400)
seeds = st.integers(0, 5)


def valid_frames(num_frames: int, seed: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random(num_frames) < share


@given(num_frames=frames, chunk_frames=chunks, seed=seeds, epoch=seeds, share=st.sampled_from([None, 0.0, 0.1, 0.7]))
def test_every_valid_frame_comes_once(
    num_frames: int, chunk_frames: int, seed: int, epoch: int, share: float | None
) -> None:
    valid = None if share is None else valid_frames(num_frames, seed, share)
    parts = list(epoch_order(num_frames, seed=seed, epoch=epoch, chunk_frames=chunk_frames, valid=valid))
    order = np.concatenate([*parts, np.empty(0, np.int64)])
    wanted = np.arange(num_frames) if valid is None else np.flatnonzero(valid)
    np.testing.assert_array_equal(np.sort(order), wanted)
    assert order.dtype == np.int64
    # one chunk at a time
    assert all(len(np.unique(part // chunk_frames)) == 1 for part in parts)


@given(
    num_frames=frames,
    batch_size=st.integers(1, 50),
    chunk_frames=chunks,
    start=st.integers(0, 40),
    seed=seeds,
    epoch=seeds,
    some=st.booleans(),
)
def test_resuming_is_slicing(
    num_frames: int, batch_size: int, chunk_frames: int, start: int, seed: int, epoch: int, some: bool
) -> None:
    valid = valid_frames(num_frames, seed, 0.5) if some else None
    options = {"seed": seed, "epoch": epoch, "chunk_frames": chunk_frames, "valid": valid}
    whole = list(frame_batches(num_frames, batch_size, **options))  # type: ignore[arg-type]
    resumed = list(frame_batches(num_frames, batch_size, start_batch=start, **options))  # type: ignore[arg-type]
    assert len(resumed) == len(whole[start:])
    for one, other in zip(resumed, whole[start:]):
        np.testing.assert_array_equal(one, other)
    assert all(len(batch) == batch_size for batch in whole[:-1])
    assert sum(map(len, whole)) == (num_frames if valid is None else valid.sum())


def test_order_is_a_function_of_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        np.random.seed(np.random.randint(1000))  # the global state must not matter
        return np.concatenate(list(epoch_order(1000, seed=seed, epoch=epoch, chunk_frames=300))).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16


def test_large_sets_are_shuffled_chunk_by_chunk() -> None:
    parts = list(epoch_order(1000, seed=3, epoch=0, chunk_frames=100))
    assert sorted(int(part[0]) // 100 for part in parts) == list(range(10))
    assert [int(part[0]) // 100 for part in parts] != list(range(10))
    assert not any(np.array_equal(part, np.sort(part)) for part in parts)
    assert len({tuple(part % 100) for part in parts}) == 10


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="100 frames"):
        list(epoch_order(100, seed=1, epoch=0, valid=np.ones(99, dtype=bool)))
    with pytest.raises(ValueError, match="0 frames"):
        list(frame_batches(100, 0, seed=1, epoch=0))
