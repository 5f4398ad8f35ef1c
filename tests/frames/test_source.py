"""Features in memory, and several stores as one, are normalised as a store normalises them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.frames.source import ArrayFrames, ConcatFrames, Context, InterleavedFrames
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import windows_of

from ..stores import write_store


def test_frames_are_those_of_a_store(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = [rng.normal(5, [1, 2, 9], (n, 3)).astype(np.float16).astype(np.float32) for n in (7, 1, 20)]
    store = write_store(tmp_path / "store", [(f"u{k}", frames) for k, frames in enumerate(features)])
    frames = ArrayFrames(features)
    assert (frames.num_frames, frames.num_dims, len(frames.ids)) == (28, 3, 3)
    np.testing.assert_array_equal(frames.offsets, store.offsets)
    for first, end in ((0, None), (1, None), (0, 3), (1, 3)):
        np.testing.assert_allclose(frames.normalised(first, end), store.normalised(first, end), atol=1e-4)
    other = ArrayFrames(features[:1], store.scale)
    np.testing.assert_allclose(other.normalised(0), store.normalised(0), atol=1e-4)


@pytest.mark.parametrize("features", [[], [np.zeros((0, 3))], [np.zeros(3)]])
def test_what_has_no_frames_is_refused(features: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        ArrayFrames(features)


def _stores(folder: Path) -> list[FrameStore]:
    rng = np.random.default_rng(1)
    stores: list[FrameStore] = []
    for name, lengths in (("train", [5, 2, 9]), ("dev", [4]), ("test", [7, 1])):
        utterances = [(f"{name}{k}", rng.normal(3 * k, 2, (n, 3)).astype(np.float32)) for k, n in enumerate(lengths)]
        speakers = ["x", "y", "x"][: len(lengths)]
        scale = stores[0].scale if stores else None
        stores.append(write_store(folder / name, utterances, groups=speakers, scale=scale))
    return stores


def test_every_utterance_is_normalised_as_in_its_own_store(tmp_path: Path) -> None:
    stores = _stores(tmp_path)
    joined = ConcatFrames(stores)
    assert joined.ids == [name for store in stores for name in store.ids]
    assert joined.num_frames == sum(store.num_frames for store in stores) == joined.offsets[-1]
    for store in stores:
        for u, name in enumerate(store.ids):
            np.testing.assert_array_equal(joined.normalised(joined.ids.index(name)), store.normalised(u))
    everything = np.concatenate([store.normalised(0, len(store.ids)) for store in stores])
    np.testing.assert_array_equal(joined.normalised(0, len(joined.ids)), everything)
    for first in range(len(joined.ids)):  # runs of utterances across stores
        for end in range(first, len(joined.ids) + 1):
            expected = everything[joined.offsets[first] : joined.offsets[end]]
            np.testing.assert_array_equal(joined.normalised(first, end), expected)


def test_windows_do_not_look_into_the_next_store(tmp_path: Path) -> None:
    stores = _stores(tmp_path)
    joined = windows_of(ConcatFrames(stores), Context(2, 1), device="cpu")
    apart = [windows_of(store, Context(2, 1), device="cpu") for store in stores]
    frames = np.concatenate([part.inputs(torch.arange(part.num_frames)).numpy() for part in apart])
    np.testing.assert_array_equal(joined.inputs(torch.arange(joined.num_frames)).numpy(), frames)


lengths_of_sources = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=3)


@given(lengths=lengths_of_sources)
def test_sources_that_are_spread_keep_their_frames_in_every_stretch(lengths: list[list[int]]) -> None:
    """Values of frames are their numbers where the sources lie one after the other."""
    numbers = np.arange(sum(map(sum, lengths)), dtype=np.float32)[:, None]
    sources, of_frame, begin = [], [], 0
    for number, of_source in enumerate(lengths):
        ends = begin + np.cumsum(of_source)
        sources.append(_Numbered(np.split(numbers[begin : ends[-1]], ends[:-1] - begin)))
        of_frame.append(np.full(ends[-1] - begin, number))
        begin = int(ends[-1])
    frames = InterleavedFrames(sources)
    values = frames.normalised(0, len(frames.ids))[:, 0]
    assert sorted(values) == numbers[:, 0].tolist() and frames.num_frames == len(numbers)
    np.testing.assert_array_equal(frames.concatenated(np.arange(len(numbers))), values)
    np.testing.assert_array_equal(frames.spread([source.values[:, 0] for source in sources]), values)
    both = frames.spread([np.stack([part, part + 10]) for part in of_frame])
    np.testing.assert_array_equal(both[1], both[0] + 10)
    longest = max(map(max, lengths))
    for number, of_source in enumerate(lengths):
        share = np.cumsum(both[0] == number)
        expected = np.arange(1, len(numbers) + 1) * sum(of_source) / len(numbers)
        assert np.abs(share - expected).max() <= len(lengths) * longest


class _Numbered:
    """Frames whose values are not normalised, so that they can be recognised."""

    num_dims = 1

    def __init__(self, utterances: list[np.ndarray]) -> None:
        self.ids = [str(number) for number in range(len(utterances))]
        self.offsets = np.cumsum([0, *map(len, utterances)])
        self.values, self.num_frames = np.concatenate(utterances), int(self.offsets[-1])

    def normalised(self, first: int, end: int | None = None) -> np.ndarray:
        return self.values[self.offsets[first] : self.offsets[first + 1 if end is None else end]]
