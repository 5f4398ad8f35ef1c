"""TextGrids: what any writer of the format writes is read, and what is cut short is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.io.textgrid import IntervalTier, parse_textgrid

labels = st.one_of(
    st.text(max_size=8).map(str.strip),
    st.sampled_from(['"', '""', "item [1]:", "! no comment", "0.5", "<exists>", "a\nb", "שלום", "نعم", "क्षि"]),
)
names = st.text(st.characters(categories=["L", "Zs"], include_characters='"-!'), max_size=6)
times = st.floats(0, 1e4, allow_nan=False)
tiers = st.lists(
    st.tuples(st.booleans(), names, st.lists(st.tuples(times, times, labels), max_size=4)), min_size=1, max_size=3
)
Tiers = list[tuple[bool, str, list[tuple[float, float, str]]]]


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def short_form(tiers: Tiers) -> list[str]:
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", "9.5", "<exists>", str(len(tiers))]
    for are_intervals, name, entries in tiers:
        lines += [quoted("IntervalTier" if are_intervals else "TextTier"), quoted(name), "0", "9.5", str(len(entries))]
        for start, end, label in entries:
            lines += [repr(start), *([repr(end)] if are_intervals else []), quoted(label)]
    return lines


def long_form(tiers: Tiers) -> list[str]:
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0 ", "xmax = 9.5 "]
    lines += ["tiers? <exists> ", f"size = {len(tiers)} ", "item []: "]
    for number, (are_intervals, name, entries) in enumerate(tiers, 1):
        kind, what = ("IntervalTier", "intervals") if are_intervals else ("TextTier", "points")
        lines += [f"    item [{number}]:", f'        class = "{kind}" ', f"        name = {quoted(name)} "]
        lines += ["        xmin = 0 ", "        xmax = 9.5 ", f"        {what}: size = {len(entries)} "]
        for place, (start, end, label) in enumerate(entries, 1):
            lines.append(f"        {what} [{place}]:")
            if are_intervals:
                lines += [f"            xmin = {start!r} ", f"            xmax={end!r}"]
            else:
                lines.append(f"            number = {start!r} ")
            lines.append(f"            {'text' if are_intervals else 'mark'} = {quoted(label)} ")
    return lines


@settings(max_examples=40)
@given(tiers, st.sampled_from([short_form, long_form]), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_both_forms_give_all_intervals_whatever_their_labels(
    tiers: Tiers, form: object, newline: str, final: bool
) -> None:
    content = newline.join(form(tiers)) + newline * final  # type: ignore[operator]
    end, read = parse_textgrid(content)
    assert end == 9.5
    assert read == [IntervalTier(name, entries) for are_intervals, name, entries in tiers if are_intervals]


@settings(max_examples=40)
@given(tiers, st.sampled_from([short_form, long_form]), st.data())
def test_a_file_that_is_cut_short_is_no_shorter_textgrid(tiers: Tiers, form: object, data: st.DataObject) -> None:
    lines = form(tiers)  # type: ignore[operator]
    last = max(k for k, line in enumerate(lines) if line.strip() and not line.strip().endswith("]:"))
    size = data.draw(st.integers(0, last - 1))
    with pytest.raises(ValueError, match=r"ends within|first lines"):
        parse_textgrid("\n".join(lines[: size + 1]))


def test_comments_and_old_headers_are_read() -> None:
    content = (
        'File type = "ooTextFile short" ! by hand\n"TextGrid"\n\n0 1e1 <exists> 1 ! one tier\n'
        '"IntervalTier" "w" 0 10 1\n0 1e1 "x"'
    )
    assert parse_textgrid(content) == (10.0, [IntervalTier("w", [(0.0, 10.0, "x")])])
    assert parse_textgrid('File type = "ooTextFile"\nObject class = "TextGrid"\n0\n1\n<absent>\n') == (1.0, [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it ends within its header"),
        ('"ooTextFile" "Sound 2" 0 1', "first lines"),
        ('"ooTextFile" "TextGrid" 0 1 <exists> 1 "Spline" "w" 0 1 0', "tier 1 is of no known class: 'Spline'"),
        ('"ooTextFile" "TextGrid" 0 1 <exists> 1 "IntervalTier" "w" 0 1 1 0 "x" 1', "tier 'w': expected a number"),
        ('"ooTextFile" "TextGrid" 0 1 <exists> 1 "IntervalTier" "w" 0 1 -1', "-1 cannot be a number of entries"),
        ('"ooTextFile" "TextGrid" 0 1.2.3 <exists> 1', "could not convert"),
    ],
)
def test_what_is_wrong_is_said(content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_textgrid(content)
