"""TextGrids and CTM: what is written is read back, in every form that Praat writes; bad ones are one sentence."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.alignment.times import Interval, Times, ctm_lines, read_textgrid, write_textgrid
from asr_kd.errors import UserError


def tier(*entries: tuple[float, float, str]) -> list[Interval]:
    return [Interval(*entry) for entry in entries]


REFERENCE = tier((0, 0.2, ""), (0.2, 0.5, "the"), (0.5, 1.0, "old"), (1.0, 1.3, ""), (1.3, 1.8, "man"))


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


def test_exported_times():
    times = Times("u", 1.0, [Interval(0, 0.4, ""), Interval(0.4, 1.0, 'SAY "')], [Interval(0, 1.0, "A")])
    assert list(ctm_lines([times], "words")) == ['u 1 0.40 0.60 SAY "\n']
