"""The order of frames: every frame once, from (seed, epoch) alone, and it can be entered anywhere."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.frames.sampler import ChunkSampler, epoch_order, in_batches

frames = st.integers(0, 300)
blocks = st.integers(1, 400)
seeds = st.integers(0, 5)


def valid_frames(num_frames: int, seed: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random(num_frames) < share


@given(num_frames=frames, block_frames=blocks, seed=seeds, epoch=seeds, share=st.sampled_from([None, 0.0, 0.1, 0.7]))
def test_every_valid_frame_comes_once(
    num_frames: int, block_frames: int, seed: int, epoch: int, share: float | None
) -> None:
    valid = None if share is None else valid_frames(num_frames, seed, share)
    parts = list(epoch_order(num_frames, seed=seed, epoch=epoch, block_frames=block_frames, valid=valid))
    order = np.concatenate([*parts, np.empty(0, np.int64)])
    goal = np.arange(num_frames) if valid is None else np.flatnonzero(valid)
    np.testing.assert_array_equal(np.sort(order), goal)
    assert order.dtype == np.int64
    # one block at a time
    assert all(len(np.unique(part // block_frames)) == 1 for part in parts)


@given(
    num_frames=frames,
    batch_size=st.integers(1, 50),
    block_frames=blocks,
    start=st.integers(0, 40),
    seed=seeds,
    epoch=seeds,
    some=st.booleans(),
)
def test_resuming_is_slicing(
    num_frames: int, batch_size: int, block_frames: int, start: int, seed: int, epoch: int, some: bool
) -> None:
    valid = valid_frames(num_frames, seed, 0.5) if some else None
    options = {"seed": seed, "epoch": epoch, "block_frames": block_frames, "valid": valid}
    whole = list(in_batches(epoch_order(num_frames, **options), batch_size))  # type: ignore[arg-type]
    rest = epoch_order(num_frames, skip=start * batch_size, **options)  # type: ignore[arg-type]
    resumed = list(in_batches(rest, batch_size))
    assert len(resumed) == len(whole[start:])
    for one, other in zip(resumed, whole[start:]):
        np.testing.assert_array_equal(one, other)
    assert all(len(batch) == batch_size for batch in whole[:-1])
    assert sum(map(len, whole)) == (num_frames if valid is None else valid.sum())


def test_order_is_a_function_of_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        np.random.seed(np.random.randint(1000))  # the global state must not matter
        return np.concatenate(list(epoch_order(1000, seed=seed, epoch=epoch, block_frames=300))).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16


def test_large_sets_are_shuffled_block_by_block() -> None:
    parts = list(epoch_order(1000, seed=3, epoch=0, block_frames=100))
    assert sorted(int(part[0]) // 100 for part in parts) == list(range(10))
    assert [int(part[0]) // 100 for part in parts] != list(range(10))
    assert not any(np.array_equal(part, np.sort(part)) for part in parts)
    assert len({tuple(part % 100) for part in parts}) == 10


utterances = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@given(
    lengths=utterances, length=st.integers(1, 40), block_frames=blocks, seed=seeds, share=st.sampled_from([None, 0.1])
)
def test_every_frame_belongs_to_one_chunk_of_its_utterance(
    lengths: list[int], length: int, block_frames: int, seed: int, share: float | None
) -> None:
    offsets = np.append(0, np.cumsum(lengths))
    valid = None if share is None else valid_frames(offsets[-1], seed, share)
    sampler = ChunkSampler(offsets, length, valid=valid, block_frames=block_frames)
    drawn = [u for u, (b, e) in enumerate(itertools.pairwise(offsets)) if valid is None or valid[b:e].any()]
    assert sampler.num_chunks == sum(-(-lengths[u] // length) for u in drawn)
    for chunks in (sampler.in_order(), np.concatenate([*sampler.epoch(seed, 0), np.empty((0, 3), np.int64)])):
        assert len(chunks) == sampler.num_chunks
        frames = [np.arange(begin, end) for _, begin, end in chunks]
        expected = [np.arange(offsets[u], offsets[u + 1]) for u in drawn]
        np.testing.assert_array_equal(np.sort(np.concatenate([*frames, []])), np.concatenate([*expected, []]))
        for first, begin, end in chunks:
            u = np.searchsorted(offsets, first, side="right") - 1
            assert offsets[u] <= first <= begin < end <= min(first + length, offsets[u + 1])
            # it reaches over the end of a short utterance alone
            assert first + length <= offsets[u + 1] or (lengths[u] < length and first == offsets[u])
    # one block at a time
    for part in sampler.epoch(seed, 0):
        begins = offsets[np.searchsorted(offsets, part[:, 0], side="right") - 1]
        assert len(np.unique(begins // block_frames)) == 1


@given(lengths=utterances, length=st.integers(1, 40), block_frames=blocks, start=st.integers(0, 9), seed=seeds)
def test_resuming_chunks_is_slicing(lengths: list[int], length: int, block_frames: int, start: int, seed: int) -> None:
    sampler = ChunkSampler(np.append(0, np.cumsum(lengths)), length, block_frames=block_frames)
    whole = list(in_batches(sampler.epoch(seed, 2), 3))
    resumed = list(in_batches(sampler.epoch(seed, 2, 3 * start), 3))
    assert len(resumed) == len(whole[start:])
    for part, other in zip(resumed, whole[start:]):
        np.testing.assert_array_equal(part, other)
    assert all(len(batch) == 3 for batch in whole[:-1])


def test_utterances_are_cut_elsewhere_in_each_epoch() -> None:
    sampler = ChunkSampler(np.array([0, 130, 250]), 50)
    cuts = {tuple(np.sort(np.concatenate(list(sampler.epoch(1, epoch)))[:, 1])) for epoch in range(20)}
    assert len(cuts) > 10
    orders = {tuple(np.concatenate(list(sampler.epoch(1, epoch)))[:, 1] // 60) for epoch in range(20)}
    assert len(orders) > 10
