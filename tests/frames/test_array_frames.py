"""Features in memory are normalised as a store with a group for each utterance normalises them."""

from pathlib import Path

import numpy as np
import pytest

from asr_kd.frames.array_frames import ArrayFrames
from asr_kd.frames.store import write_store


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
