"""Several stores as one: every utterance looks as it does in its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from asr_kd.frames.concat import ConcatFrames
from asr_kd.frames.source import Context
from asr_kd.frames.store import FrameStore, write_store
from asr_kd.frames.windows import windows_of


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
