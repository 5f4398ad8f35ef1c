"""Batches: every valid frame weighs once per epoch, in an order that can be entered anywhere."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.frames.batches import Batch, Batches, prefetched
from asr_kd.frames.source import Context
from asr_kd.frames.windows import WindowedFrames

from ..stores import write_store

CONTEXT = Context(2, 1)


def windows_of(folder: str | Path, lengths: list[int]) -> WindowedFrames:
    rng = np.random.default_rng(0)
    utterances = [(f"u{k}", rng.normal(size=(n, 2))) for k, n in enumerate(lengths)]
    return WindowedFrames(write_store(Path(folder), utterances, groups=["all"] * len(lengths)), CONTEXT)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    length=st.integers(1, 15),
    batch_size=st.integers(1, 60),
    share=st.sampled_from([None, 0.5]),
    start=st.integers(0, 5),
)
def test_every_valid_frame_weighs_once_with_the_window_that_it_has_alone(
    lengths: list[int], length: int, batch_size: int, share: float | None, start: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        windows = windows_of(folder, lengths)
        valid = None if share is None else np.random.default_rng(1).random(windows.num_frames) < share
        batches = Batches(windows, batch_size, length=length, seed=3, valid=valid)
        epoch = list(batches.epoch(1))
        frames = [b.frames if b.valid is None else b.frames[b.valid] for b in epoch]
        expected = np.arange(windows.num_frames) if valid is None else np.flatnonzero(valid)
        np.testing.assert_array_equal(np.sort(np.concatenate([*frames, []])), expected)
        assert batches.steps_per_epoch == len(epoch) and batches.num_frames == len(expected)
        assert sum(batch.num_valid for batch in epoch) == len(expected)
        for batch in epoch:
            assert batch.length == length and len(batch.inputs) <= max(1, batch_size // length)
            own = batch.inputs.unfold(1, CONTEXT.width, 1).transpose(2, 3).flatten(0, 1)
            weighs = slice(None) if batch.valid is None else batch.valid
            assert torch.equal(own[weighs], windows.inputs(batch.frames)[weighs])
            assert torch.equal(batch.inputs, windows.inputs(batch.first_frames, length))
        for batch, resumed in zip(epoch[start:], batches.epoch(1, start), strict=True):
            assert torch.equal(batch.frames, resumed.frames) and torch.equal(batch.inputs, resumed.inputs)


def test_single_frames_are_all_valid(tmp_path: Path) -> None:
    """So that the fast loss of a batch without invalid frames is taken."""
    assert all(batch.valid is None for batch in Batches(windows_of(tmp_path, [9, 4]), 4, seed=1).epoch(0))


@pytest.mark.parametrize("length", [1, 10])
def test_valid_frames_of_another_set_are_refused(length: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="100 frames"):
        Batches(windows_of(tmp_path, [60, 40]), 20, length=length, seed=1, valid=np.ones(99, dtype=bool))


def test_entries_of_a_table_are_those_of_the_frames() -> None:
    batch = Batch(torch.tensor([3, 0, 0]), torch.zeros(3, 1, 2))
    assert batch.entries(torch.arange(10, 20)).tolist() == [13, 10, 10]


def test_prefetched_items_come_in_order_from_another_thread() -> None:
    threads = []

    def items() -> Iterator[int]:
        for k in range(50):
            threads.append(threading.current_thread())
            yield k

    assert list(prefetched(items())) == list(range(50))
    assert threading.current_thread() not in threads and not threads[0].is_alive()


def test_an_error_while_prefetching_is_raised_where_its_item_is_due() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    drawn = prefetched(items())
    assert next(drawn) == 1
    with pytest.raises(OSError, match="no more"):
        next(drawn)


def test_a_consumer_that_stops_early_stops_the_thread() -> None:
    before = threading.active_count()
    drawn = prefetched(iter(range(1000)))
    assert next(drawn) == 0
    drawn.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
