"""Times finer than a frame: frames between frames, and which phases count where they differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.alignment.subframe import SubframeShiftedFrames, mean_starts
from asr_kd.frames.features import FRAME_SHIFT, frame_seconds
from asr_kd.frames.store import FrameStore

from ..stores import write_store

Row = tuple[int, int, int, int, int]  # utterance, phone, word, first frame, end


def rows(*result: Row) -> np.ndarray:
    return np.array(result, np.int32).reshape(-1, 5)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_phases_that_agree_are_averaged_with_their_delays(seed: int, phases: int) -> None:
    rng = np.random.default_rng(seed)
    words = np.repeat([-1, 0, 1, 1, -1, 2, -1], rng.integers(1, 3, 7))  # silence comes once, words have several phones
    words = np.delete(words, np.flatnonzero((words[1:] == -1) & (words[:-1] == -1)))
    utterances = np.repeat([0, 3], len(words))
    phones = np.where(words < 0, 0, rng.integers(1, 4, len(words)))
    result = []
    for _ in range(phases):
        lengths = rng.integers(3, 9, len(utterances))
        ends = np.concatenate([np.cumsum(part) for part in np.split(lengths, 2)])
        result.append(
            np.stack([utterances, *np.tile([phones, words], 2), ends - lengths, ends], axis=1).astype(np.int32)
        )
    starts = mean_starts(result, FRAME_SHIFT)
    expected = 0.01 * np.mean([of[:, 3] + p / phases for p, of in enumerate(result)], axis=0)
    firsts = [0, len(words)]
    assert (starts[firsts] == 0).all()
    assert np.allclose(np.delete(starts, firsts), np.delete(expected, firsts))


def test_another_pronunciation_or_silence_does_not_count() -> None:
    first = rows((0, 1, 0, 0, 10), (0, 2, 0, 10, 20), (0, 3, 1, 20, 30))
    spoken_otherwise = rows((0, 1, 0, 0, 12), (0, 4, 0, 12, 20), (0, 3, 1, 20, 30))
    paused = rows((0, 1, 0, 0, 14), (0, 2, 0, 14, 18), (0, 0, -1, 18, 24), (0, 3, 1, 24, 30))
    assert mean_starts([first, spoken_otherwise], FRAME_SHIFT).tolist() == [0.0, 0.1, 0.2]
    # the start of the second phone is the same boundary in both, that of the third is not
    assert mean_starts([first, paused], FRAME_SHIFT) == pytest.approx([0.0, 0.01 * (10 + 14.5) / 2, 0.2])


def test_an_utterance_that_another_phase_lacks_keeps_its_times() -> None:
    first = rows((0, 1, 0, 0, 9), (0, 2, 0, 9, 20), (1, 1, 0, 0, 8), (1, 2, 0, 8, 20))
    assert mean_starts([first, first[2:]], FRAME_SHIFT) == pytest.approx([0.0, 0.09, 0.0, 0.01 * 8.25])
    assert mean_starts([rows(), rows()], FRAME_SHIFT).tolist() == []


def test_where_the_mean_would_turn_phones_around_the_first_phase_is_believed() -> None:
    # the other phase moves the first boundary far behind the second, for which it does not count
    first = rows((0, 1, 0, 0, 5), (0, 2, 0, 5, 8), (0, 3, 0, 8, 50), (1, 1, 0, 0, 5), (1, 2, 0, 5, 8))
    other = rows((0, 1, 0, 0, 40), (0, 2, 0, 40, 45), (0, 4, 0, 45, 50), (1, 1, 0, 0, 6), (1, 2, 0, 6, 8))
    assert mean_starts([first, other], FRAME_SHIFT) == pytest.approx([0.0, 0.05, 0.08, 0.0, 0.01 * 5.75])


def test_times_are_counted_in_the_frames_of_the_sampling_rate() -> None:
    """At 22,050 Hz frames are 220 samples apart: after 25 s, 57 ms are between theirs and those of 10 ms."""
    first = rows((0, 1, 0, 0, 2506), (0, 2, 0, 2506, 3007))
    later = rows((0, 1, 0, 0, 2507), (0, 2, 0, 2507, 3007))
    actual = mean_starts([first, later], frame_seconds(22050))
    assert actual == pytest.approx([0.0, (2506 + 2507.5) / 2 * 220 / 22050], abs=1e-9)


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    rng = np.random.default_rng(0)
    return write_store(tmp_path / "store", [(f"u{n}", rng.normal(size=(n, 3))) for n in (7, 1, 4)])


@pytest.mark.parametrize("delay", [0.0, 0.25, 0.75])
def test_delayed_frames_lie_between_neighbours_of_their_utterance(store: FrameStore, delay: float) -> None:
    delayed = SubframeShiftedFrames(store, delay)
    for utterance in range(3):
        frames = store.normalised(utterance)
        later = np.concatenate([frames[1:], frames[-1:]])
        assert np.allclose(delayed.normalised(utterance), (1 - delay) * frames + delay * later, atol=1e-6)
    assert np.array_equal(
        delayed.normalised(0, 3), np.concatenate([delayed.normalised(utterance) for utterance in range(3)])
    )
