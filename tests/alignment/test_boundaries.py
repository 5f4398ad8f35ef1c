"""Offsets learnt from manual times: what they undo, that they keep order, and whose times they come from."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.alignment import boundaries as module
from asr_kd.alignment.boundaries import (
    apply_offsets,
    apply_offsets_of_other_speakers,
    boundaries,
    boundaries_to_learn_from,
    learn_offsets,
    pooled,
    read_offsets,
    write_offsets,
)
from asr_kd.alignment.times import Interval, Times
from asr_kd.errors import UserError
from asr_kd.lang.phones import boundary_kind
from asr_kd.stages.align_compare import compare_times

BIAS = {"stop-vowel": 0.012, "vowel-stop": -0.008}  # seconds that ours is late


def tier(starts: list[float], labels: list[str], end: float) -> list[Interval]:
    return [Interval(a, b, name) for a, b, name in zip(starts, [*starts[1:], end], labels, strict=True)]


def utterance(name: str, seed: int, bias: dict[str, float]) -> tuple[Times, Times]:
    """Ours, which is late by kind, and the reference."""
    rng = np.random.default_rng(seed)
    labels = ["T", "IY"] * 10
    truth = np.concatenate([[0], np.cumsum(rng.uniform(0.08, 0.2, len(labels)))])
    ours = truth.copy()
    for k, (left, right) in enumerate(itertools.pairwise(labels), 1):
        ours[k] += bias[boundary_kind(left, right)]
    reference, actual = (tier(of[:-1].tolist(), labels, float(truth[-1])) for of in (truth, ours))
    return Times(name, float(truth[-1]), actual, actual), Times(name, float(truth[-1]), reference, reference)


def test_what_is_learnt_is_the_bias_turned_around_pulled_to_the_common_one() -> None:
    pairs = [utterance(f"u{k}", k, BIAS) for k in range(100)]
    actual = pooled([boundaries(ours.phones, theirs.phones) for ours, theirs in pairs])
    offsets = learn_offsets(actual.common)
    assert offsets["stop-vowel"] == pytest.approx(-12, abs=0.3)
    assert offsets["vowel-stop"] == pytest.approx(8, abs=0.6)
    few = learn_offsets(boundaries(pairs[0][0].phones, pairs[0][1].phones).common)
    assert few["stop-vowel"] == pytest.approx(-6)  # ten of a kind weigh what the others' median, 0, does
    moved = [boundaries(apply_offsets(ours, offsets).phones, theirs.phones) for ours, theirs in pairs]
    assert pooled(moved).statistics()["mean_abs_ms"] < 1 < actual.statistics()["mean_abs_ms"]


labels = st.sampled_from(["", "T", "IY", "M"])


@given(st.lists(st.tuples(labels, st.floats(0.002, 0.3)), min_size=1, max_size=9), st.floats(-500, 500))
def test_no_boundary_passes_another_and_words_move_with_their_phones(
    entries: list[tuple[str, float]], offset: float
) -> None:
    starts = np.cumsum([0.0, *(length for _, length in entries)]).tolist()
    phones = tier(starts[:-1], [name for name, _ in entries], starts[-1])
    words = tier(starts[:-1:2], ["W"] * len(starts[:-1:2]), starts[-1])
    offsets = {boundary_kind(a, b): offset for a in ("", "T", "IY") for b in ("T", "IY", "M")}
    moved = apply_offsets(Times("u", starts[-1], words, phones), offsets)
    assert moved.phones[0].start == 0 and moved.phones[-1].end == starts[-1] == moved.words[-1].end
    for tiers in (moved.phones, moved.words):
        assert all(one.start < one.end for one in tiers)
        assert all(a.end == b.start for a, b in itertools.pairwise(tiers))
    assert {one.start for one in moved.words} <= {one.start for one in moved.phones}
    for before, after, (left, right) in zip(phones[1:], moved.phones[1:], itertools.pairwise(phones), strict=True):
        if boundary_kind(left.label, right.label) not in offsets:
            assert after.start == before.start
        elif abs(offset) <= 400 * min(left.end - left.start, right.end - right.start):
            assert after.start == pytest.approx(before.start + offset / 1000)


def test_offsets_come_from_the_other_speakers_alone() -> None:
    """Speakers that are off in opposite ways: what one half teaches makes the other worse."""
    pairs = [utterance(f"{name}{k}", k, {kind: sign * 0.01 for kind in BIAS})
             for name, sign in (("a", 1), ("b", -1)) for k in range(30)]  # fmt: skip
    speakers = {ours.utterance: ours.utterance[0] for ours, _ in pairs}
    moved = apply_offsets_of_other_speakers(pairs, speakers)
    assert sorted(ours.utterance for ours, _ in moved) == sorted(speakers)
    off = pooled([boundaries(ours.phones, theirs.phones) for ours, theirs in moved]).statistics()["mean_abs_ms"]
    assert off == pytest.approx(19, abs=1)  # 10 of its own, 10 of the other's; each utterance's first is right
    result = compare_times(pairs, speakers=speakers)
    assert result.with_offsets["phones"]["mean_abs_ms"] == pytest.approx(off)
    assert result.boundary_offsets.keys() >= BIAS.keys()
    assert "learnt from the other speakers" in str(result)
    assert compare_times(pairs).with_offsets == {}


def said_in_words(pair: tuple[Times, Times]) -> tuple[Times, Times]:
    """With the phones taken two by two as words."""

    def words(times: Times) -> Times:
        spans = zip(times.phones[::2], times.phones[1::2], strict=True)
        return replace(times, words=[Interval(a.start, b.end, f"W{k}") for k, (a, b) in enumerate(spans)])

    return words(pair[0]), words(pair[1])


def test_where_words_meet_there_are_offsets_of_their_own() -> None:
    """Late between words, right inside them: vowel-stop is always between words here, stop-vowel never."""
    pairs = [said_in_words(utterance(f"u{k}", k, {"stop-vowel": 0.0, "vowel-stop": 0.01})) for k in range(40)]
    offsets = learn_offsets([boundary for pair in pairs for boundary in boundaries_to_learn_from(*pair)])
    assert offsets["vowel#stop"] == pytest.approx(-10, abs=0.2)
    assert "stop#vowel" not in offsets and offsets["stop-vowel"] == pytest.approx(0, abs=0.2)
    ours, theirs = pairs[0]
    only_words = {"vowel#stop": -10.0, "vowel-stop": 50.0, "stop-vowel": 0.0}
    moved = boundaries(apply_offsets(ours, only_words).words, theirs.words).common
    assert [boundary.difference for boundary in moved] == pytest.approx([0] * len(moved), abs=1e-9)
    # without one between words, that of the same phones inside a word holds
    assert apply_offsets(ours, {"vowel-stop": -10.0}) == apply_offsets(ours, {"vowel#stop": -10.0})


def test_boundaries_inside_words_are_learnt_from_those_alone() -> None:
    """T IY | IY T: vowels meet between words only, where ours is late; inside words ours is early."""
    starts = np.array([0.0, 0.1, 0.3, 0.5, 0.6])
    labels = ["T", "IY", "IY", "T"]

    def times(at: np.ndarray) -> Times:
        phones = tier(at[:-1].tolist(), labels, float(at[-1]))
        words = [Interval(float(at[0]), float(at[2]), "TEA"), Interval(float(at[2]), float(at[4]), "EAT")]
        return Times("u", float(at[-1]), words, phones)

    actual = boundaries_to_learn_from(times(starts + np.array([0, -0.01, 0.02, 0, 0])), times(starts))
    ms = {boundary.kind: round(1000 * boundary.difference, 6) for boundary in actual}
    assert ms == {
        "stop-vowel": -10, "vowel-stop": 0, "silence#stop": 0, "vowel#vowel": 20, "stop#silence": 0,
    }  # fmt: skip


def test_where_each_phone_is_a_word_there_is_nothing_between_words() -> None:
    ours, theirs = utterance("u", 0, BIAS)
    assert boundaries_to_learn_from(ours, theirs) == boundaries(ours.phones, theirs.phones).common


@pytest.mark.parametrize("count", [3, 40])
def test_each_speaker_is_moved_by_all_others_or_by_fifteen_parts_of_sixteen(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[int] = []
    monkeypatch.setattr(module, "learn_offsets", lambda actual: taught.append(len(actual)) or {})
    pairs = [utterance(f"{k:02d}", k, BIAS) for k in range(count)]
    each = len(boundaries(pairs[0][0].phones, pairs[0][1].phones).common)
    moved = apply_offsets_of_other_speakers(pairs, {ours.utterance: ours.utterance for ours, _ in pairs})
    assert sorted(ours.utterance for ours, _ in moved) == [ours.utterance for ours, _ in pairs]
    parts = min(16, count)
    assert sorted(taught) == sorted(each * (count - len(range(part, count, 16))) for part in range(parts))


def test_one_speaker_alone_can_teach_nobody() -> None:
    pairs = [utterance("a", 0, BIAS)]
    assert apply_offsets_of_other_speakers(pairs, {"a": "x"}) == pairs


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "offsets.yaml"
    write_offsets(path, {"stop-vowel": -1.25, "silence#stop": 3.0})
    assert read_offsets(path) == {"stop-vowel": -1.25, "silence#stop": 3.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stop-vowels: 1", "'stop-vowels' is no kind of boundary"),
        ("stop#: 1", "'stop#' is no kind of boundary"),
        ("stop-vowel: soon", "'soon' is not a number"),
        ("stop-vowel: .nan", "nan is not a number"),
        ("- 3", "expected lines like"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "offsets.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_offsets(tmp_path / "offsets.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_offsets(tmp_path / "none.yaml")
