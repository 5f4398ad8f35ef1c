"""Boundaries compared with reference times: what is counted."""

import json

import numpy as np
import pytest

from asr_kd.alignment.boundaries import Boundaries, Boundary, boundaries
from asr_kd.alignment.times import Interval, Times
from asr_kd.stages.align_compare import compare_times


def tier(*entries: tuple[float, float, str]) -> list[Interval]:
    return [Interval(*entry) for entry in entries]


def off(actual: Boundaries) -> list[float]:
    return [boundary.difference for boundary in actual.common]


REFERENCE = tier((0, 0.2, ""), (0.2, 0.5, "the"), (0.5, 1.0, "old"), (1.0, 1.3, ""), (1.3, 1.8, "man"))


def test_where_one_word_meets_the_next_is_one_boundary() -> None:
    ours = tier((0, 0.21, ""), (0.21, 0.5, "THE"), (0.5, 1.04, "OLD"), (1.04, 1.3, ""), (1.3, 1.79, "MAN"))
    actual = boundaries(ours, REFERENCE)
    # begins of the, old, man; ends of old (before silence) and man (the last)
    assert sorted(np.round(off(actual), 6)) == [-0.01, 0, 0, 0.01, 0.04]
    assert actual.unmatched == 0


def test_labels_without_a_partner_are_counted_and_shift_nothing() -> None:
    ours = tier((0.2, 0.5, "THE"), (0.5, 0.7, "VERY"), (1.3, 1.8, "MAN"))
    actual = boundaries(ours, REFERENCE)
    assert actual.unmatched == 1 and len(actual.common) == 3
    assert np.allclose(off(actual), 0)
    assert boundaries(tier(), REFERENCE).unmatched == 3


def test_stress_marks_positions_in_words_and_case_do_not_count() -> None:
    for theirs in ("ah0", "AH1_B", "AH_S"):
        assert np.allclose(off(boundaries(tier((0, 1, "AH")), tier((0, 1, theirs)))), [0, 0])


def test_tolerances_hold_their_ends() -> None:
    actual = Boundaries([Boundary(off, "", 0.0) for off in (0.02, -0.02, 0.0201, 0.4)]).statistics()
    assert actual["within_20ms"] == 0.5 and actual["within_30ms"] == 0.75
    assert actual["within_10ms"] == 0 and actual["within_50ms"] == 0.75
    assert actual["mean_abs_ms"] == pytest.approx(115.025)
    assert actual["median_ms"] == pytest.approx(20.05)


def test_each_boundary_has_the_classes_of_its_two_sides() -> None:
    reference = tier((0, 0.1, ""), (0.1, 0.2, "t"), (0.2, 0.4, "iy"), (0.4, 0.5, "m"), (0.6, 0.7, "s"))
    ours = tier((0, 0.11, ""), (0.11, 0.2, "T"), (0.2, 0.43, "IY1"), (0.43, 0.5, "M"), (0.58, 0.7, "S"))
    actual = boundaries(ours, reference)
    differences = {boundary.kind: round(1000 * boundary.difference, 6) for boundary in actual.common}
    assert differences == {
        "silence-stop": 10, "stop-vowel": 0, "vowel-nasal": 30, "nasal-silence": 0, "silence-fricative": -20,
        "fricative-silence": 0,
    }  # fmt: skip
    twice = compare_times([(Times(n, 1.0, [], ours), Times(n, 1.0, [], reference)) for n in ("a", "b")])
    assert twice.phones_by_kind["vowel-nasal"]["boundaries"] == 2
    assert twice.phones_by_kind["vowel-nasal"]["within_20ms"] == 0
    assert twice.phones_by_kind["silence-fricative"]["median_ms"] == pytest.approx(-20)
    assert sum(one["boundaries"] for one in twice.phones_by_kind.values()) == twice.phones["boundaries"]
    assert "vowel-nasal" in str(twice)
    # without words, utterances are ranked by their phones
    assert [row["utterance"] for row in twice.worst] == ["a", "b"] and twice.worst[0]["mean_abs_ms"] == 10.0


def test_a_label_without_a_partner_still_is_the_left_side() -> None:
    reference = tier((0, 0.1, "s"), (0.1, 0.2, "t"), (0.2, 0.4, "iy"))
    actual = boundaries(tier((0, 0.2, "s"), (0.2, 0.4, "iy")), reference)
    kinds = [boundary.kind for boundary in actual.common]
    assert kinds == ["silence-fricative", "stop-vowel", "vowel-silence"]


def test_the_worst_utterance_comes_first() -> None:
    pairs = [
        (Times(name, 2.0, [Interval(i.start + off, i.end + off, i.label) for i in REFERENCE], []),
         Times(name, 2.0, REFERENCE, []))
        for name, off in (("a", 0.01), ("b", 0.1), ("c", 0.02))
    ]  # fmt: skip
    result = compare_times(pairs, missing=4)
    assert [row["utterance"] for row in result.worst] == ["b", "c", "a"]
    assert result.worst[0]["mean_abs_ms"] == 100.0
    assert result.typical == "c"
    assert result.utterances == 3 and "4 references" in str(result)
    assert "phones: no boundary in common" in str(result)
    json.dumps(vars(result))
