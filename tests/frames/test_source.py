"""Features in memory, and several stores as one, are normalised as a store normalises them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asr_kd.frames.source import ArrayFrames, ConcatFrames, Context
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
