"""Speech that is learnt from is not scored, whatever its files are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_kd.corpora.audio import Audio
from asr_kd.corpora.listing import Utterance
from asr_kd.corpora.shared_audio import check_disjoint
from asr_kd.errors import UserError


def utterance(name: str, of_set: str, path: Path, start: float = 0.0, duration: float | None = None) -> Utterance:
    return Utterance(name, Audio(path, start, duration), "words", "speaker", of_set)


def is_scored_only(name: str) -> bool:
    return name.startswith("test")


def test_a_recording_in_two_sets_is_named_through_links_too(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    recording = tmp_path / "train" / "a.wav"
    recording.touch()
    (tmp_path / "test").symlink_to(tmp_path / "train")
    both = [utterance("a", "train", recording), utterance("test-a", "test", tmp_path / "test" / "a.wav")]
    with pytest.raises(UserError, match=r"test/a\.wav is in train \(a\) and in test \(test-a\): what is scored"):
        check_disjoint(both, is_scored_only)
    with pytest.raises(UserError, match=r"is in dev \(a\) and in test \(b\)"):
        check_disjoint([utterance("a", "dev", recording), utterance("b", "test", recording)], is_scored_only)


def test_segments_and_test_sets_may_share_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    check_disjoint([utterance("a", "train", path, 0.0, 1.0), utterance("b", "test", path, 1.0, 1.0)], is_scored_only)
    check_disjoint([utterance("a", "test", path), utterance("b", "test-more", path)], is_scored_only)
    check_disjoint([utterance("a", "train", path), utterance("b", "train", path)], is_scored_only)
