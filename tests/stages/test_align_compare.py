"""Boundaries compared with reference times: what is counted, and how TextGrids are read and written."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.alignment.boundaries import Boundaries, boundaries
from asr_kd.alignment.textgrid import read_textgrid, write_textgrid
from asr_kd.alignment.times import Interval, Times
from asr_kd.errors import UserError
from asr_kd.stages.align_compare import compare_times


def tier(*entries: tuple[float, float, str]) -> list[Interval]:
    return [Interval(*entry) for entry in entries]


REFERENCE = tier((0, 0.2, ""), (0.2, 0.5, "the"), (0.5, 1.0, "old"), (1.0, 1.3, ""), (1.3, 1.8, "man"))


def test_where_one_word_meets_the_next_is_one_boundary() -> None:
    ours = tier((0, 0.21, ""), (0.21, 0.5, "THE"), (0.5, 1.04, "OLD"), (1.04, 1.3, ""), (1.3, 1.79, "MAN"))
    found = boundaries(ours, REFERENCE)
    # begins of the, old, man; ends of old (before silence) and man (the last)
    assert sorted(np.round(found.differences, 6)) == [-0.01, 0, 0, 0.01, 0.04]
    assert found.unmatched == 0


def test_labels_without_a_partner_are_counted_and_shift_nothing() -> None:
    ours = tier((0.2, 0.5, "THE"), (0.5, 0.7, "VERY"), (1.3, 1.8, "MAN"))
    found = boundaries(ours, REFERENCE)
    assert found.unmatched == 1 and len(found.differences) == 3
    assert np.allclose(found.differences, 0)
    assert boundaries(tier(), REFERENCE).unmatched == 3


def test_stress_marks_and_case_do_not_count() -> None:
    assert np.allclose(boundaries(tier((0, 1, "AH")), tier((0, 1, "ah0"))).differences, [0, 0])


def test_tolerances_hold_their_ends() -> None:
    found = Boundaries(np.array([0.02, -0.02, 0.0201, 0.4])).statistics()
    assert found["within_20ms"] == 0.5 and found["within_30ms"] == 0.75
    assert found["within_10ms"] == 0 and found["within_50ms"] == 0.75
    assert found["mean_abs_ms"] == pytest.approx(115.025)
    assert found["median_ms"] == pytest.approx(20.05)


def test_each_boundary_has_the_classes_of_its_two_sides() -> None:
    reference = tier((0, 0.1, ""), (0.1, 0.2, "t"), (0.2, 0.4, "iy"), (0.4, 0.5, "m"), (0.6, 0.7, "s"))
    ours = tier((0, 0.11, ""), (0.11, 0.2, "T"), (0.2, 0.43, "IY1"), (0.43, 0.5, "M"), (0.58, 0.7, "S"))
    found = boundaries(ours, reference)
    differences = dict(zip(found.kinds, np.round(1000 * found.differences, 6).tolist(), strict=True))
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
    assert boundaries(tier((0, 0.2, "s"), (0.2, 0.4, "iy")), reference).kinds == (
        "silence-fricative", "stop-vowel", "vowel-silence",
    )  # fmt: skip


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


labels = st.text(st.characters(codec="utf-8", categories=("L",), include_characters='"!.-'), max_size=6)


@given(st.lists(st.tuples(labels, st.floats(0.01, 2)), min_size=1, max_size=8))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, float]]
) -> None:
    ends = np.cumsum([round(length, 3) for _, length in entries]).round(4).tolist()
    words = [Interval(a, b, name) for a, b, (name, _) in zip([0.0, *ends], ends, entries, strict=False)]
    path = tmp_path_factory.mktemp("grid") / "one.TextGrid"
    times = Times("one", ends[-1], words, words[:1])
    write_textgrid(times, path)
    assert read_textgrid(path) == times
    text = path.read_text(encoding="utf-8")
    for encoding in ("utf-16", "utf-8-sig"):  # Praat writes UTF-16 where it has to
        path.write_text(text, encoding=encoding)
        assert read_textgrid(path) == times


SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.8
<exists>
1
"IntervalTier"
"words"
0
1.8
3
0
0.2
""
0.2
1.3
"the ""old"" one"
1.3
1.8
"män"
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_short_form_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "one.TextGrid"
    path.write_text(SHORT, encoding=encoding)
    assert read_textgrid(path) == Times(
        "one", 1.8, tier((0, 0.2, ""), (0.2, 1.3, 'the "old" one'), (1.3, 1.8, "män")), []
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("words", "speech"), "one.TextGrid: there is no tier 'words' or 'phones', only"),
        (("xmin = 0.2", "xmin = x"), "one.TextGrid: cannot be read as a TextGrid"),
        (("xmin = 0.2", "xmin = 0.9"), r"one.TextGrid: tier 'words': interval 2 \('the'\) is from 0.9 to 0.5 s"),
        (("xmin = 1.3", "xmin = 0.9"), r"tier 'words': interval 5 \('man'\) .* the one before it ends at 1.3 s"),
        (('"IntervalTier"', '"TextTier"'), "tier 'words' has points, not intervals"),
    ],
)
def test_a_bad_textgrid_is_one_sentence(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "one.TextGrid"
    write_textgrid(Times("one", 1.8, REFERENCE, []), path)
    text = path.read_text().replace(*change)
    path.write_text(text.replace('"phones"', '"other"') if change[1] == "speech" else text)
    with pytest.raises(UserError, match=message):
        read_textgrid(path)


def test_what_is_no_textgrid_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "one.TextGrid"
    with pytest.raises(UserError, match=r"one\.TextGrid: cannot be read as a TextGrid"):
        read_textgrid(path)
    for content in (b"", b"hello\n" * 9, SHORT[:60].encode(), SHORT.encode("latin1")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"one\.TextGrid: cannot be read as a TextGrid"):
            read_textgrid(path)
