"""TextGrids and CTM: what is written is read back, in every form that Praat writes; bad ones are one sentence."""

import itertools
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.alignment.times import Interval, Times, ctm_lines, find_textgrids, read_ctm, read_textgrid, write_textgrid
from asr_kd.errors import UserError


def tier(*entries: tuple[float, float, str]) -> list[Interval]:
    return [Interval(*entry) for entry in entries]


REFERENCE = tier((0, 0.2, ""), (0.2, 0.5, "the"), (0.5, 1.0, "old"), (1.0, 1.3, ""), (1.3, 1.8, "man"))


labels = st.text(st.characters(codec="utf-8", categories=("L", "M"), include_characters='"!.-'), max_size=6)


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
        (
            ("intervals: size = 5", "intervals: size = 6"),
            r"cannot be read as a TextGrid \(tier 'words': expected a number",
        ),
        (('"phones"', '"Word"'), "tiers 'words' and 'Word' are both of words; rename or delete one"),
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


@pytest.mark.parametrize("words", ["Word", "WORDS", " wrd", "anna - words"])
@pytest.mark.parametrize("phones", ["phone", "Phones", "PHN", "anna - phones"])
def test_tiers_are_found_by_their_usual_names(tmp_path: Path, words: str, phones: str) -> None:
    path = tmp_path / "one.TextGrid"
    write_textgrid(Times("one", 1.8, REFERENCE, REFERENCE[:1]), path)
    path.write_text(path.read_text().replace('"words"', f'"{words}"').replace('"phones"', f'"{phones}"'))
    assert read_textgrid(path) == Times("one", 1.8, REFERENCE, REFERENCE[:1])


def test_tiers_of_points_do_not_count(tmp_path: Path) -> None:
    points = SHORT.replace("<exists>\n1", "<exists>\n2") + '"TextTier"\n"phones"\n0\n1.8\n1\n0.7\n"x"'
    path = tmp_path / "one.TextGrid"
    path.write_text(points)
    assert [word.label for word in read_textgrid(path).words] == ["", 'the "old" one', "män"]
    assert read_textgrid(path).phones == []
    path.write_text(points.replace('"words"', '"notes"'))
    with pytest.raises(UserError, match="there is no tier 'words' or 'phones', only 'notes'; rename"):
        read_textgrid(path)


def test_textgrids_are_found_in_folders_and_by_names_with_folders(tmp_path: Path) -> None:
    for name in (
        "a/b/u1.TextGrid",
        "digits/1.textgrid",
        "letters/1.TEXTGRID",
        "a/._u1.TextGrid",
        "cafe\u0301.TextGrid",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = find_textgrids(tmp_path, {"digits/1", "u1"})
    assert files.keys() == {"u1", "digits/1", "1", "caf\u00e9"}
    assert files["1"] == tmp_path / "letters" / "1.TEXTGRID"
    with pytest.raises(UserError, match=r"digits/1\.textgrid and .*letters/1\.TEXTGRID are both of 1; delete one"):
        find_textgrids(tmp_path, ())


def test_exported_times():
    times = Times("u", 1.0, [Interval(0, 0.4, ""), Interval(0.4, 1.0, 'SAY "')], [Interval(0, 1.0, "A")])
    assert list(ctm_lines([times], "words")) == ['u 1 0.4000 0.6000 SAY "\n']


@settings(max_examples=50)
@given(st.lists(st.floats(0.0005, 2), min_size=1, max_size=20), st.floats(0, 1))
def test_no_ctm_interval_ends_after_the_next_begins_and_no_time_is_lost(lengths: list[float], first: float) -> None:
    """Parts of a frame, as of phases: 4, stay: times are exact to a tenth of a millisecond."""
    ends = (first + np.cumsum(lengths)).tolist()
    intervals = [Interval(a, b, "w") for a, b in itertools.pairwise([first, *ends])]
    rows = [line.split() for line in ctm_lines([Times("u", ends[-1], intervals, [])], "words")]
    starts, durations = ([Decimal(row[column]) for row in rows] for column in (2, 3))
    assert [a + b for a, b in zip(starts, durations, strict=True)][:-1] == starts[1:]
    assert all(abs(float(start) - i.start) < 5.1e-5 for start, i in zip(starts, intervals, strict=True))
    assert all(duration > 0 for duration in durations)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.text(st.characters(codec="utf-8", categories=("L", "M")), min_size=1), st.floats(0.01, 2)))
)
def test_ctm_is_read_back_in_any_script(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, float]]
) -> None:
    """Labels keep their order and their form of Unicode, also where they run from right to left or combine marks."""
    ends = np.cumsum([length for _, length in entries]).round(4).tolist()
    intervals = [Interval(a, b, name) for a, b, (name, _) in zip([0.0, *ends], ends, entries, strict=False)]
    path = tmp_path_factory.mktemp("ctm") / "words.ctm"
    path.write_text(";; made by hand\n" + "".join(ctm_lines([Times("ü", 9, intervals, [])], "words")), encoding="utf-8")
    read = list(read_ctm(path))
    assert [(utterance, i.label) for utterance, i in read] == [("ü", i.label) for i in intervals]
    assert np.allclose([(i.start, i.end) for _, i in read], [(i.start, i.end) for i in intervals], atol=1e-6)


@pytest.mark.parametrize("line", ["u 1 0.1 0.2", "u 1 x 0.2 a", "u 1 -0.1 0.2 a", "u 1 0.1 nan a", "u 1 0.1 inf a"])
def test_a_wrong_line_of_ctm_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "phones.ctm"
    path.write_text(f"u 1 0 0.1 a 0.9\n{line}\n")
    with pytest.raises(UserError, match=r"phones\.ctm:2: expected UTTERANCE CHANNEL START DURATION LABEL, found 'u 1"):
        list(read_ctm(path))
