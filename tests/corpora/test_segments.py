"""Segments of recordings, as Kaldi writes them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.corpora.segments import Segment, read_segments
from asr_kd.errors import UserError

milliseconds = st.integers(0, 10**8)


@given(first=milliseconds, length=st.integers(1, 10**6))
def test_times_are_those_that_were_written(first: int, length: int) -> None:
    segment = Segment.parse(f"recording {first / 1000} {(first + length) / 1000}")
    assert segment == Segment("recording", first / 1000, length / 1000)


def test_lines_are_read_whatever_separates_them(tmp_path: Path) -> None:
    path = tmp_path / "segments"
    path.write_text("a r1 0 1.5\r\n\nb  r1\t1.5 -1 1\n")
    assert read_segments(path, "") == {"a": Segment("r1", 0.0, 1.5), "b": Segment("r1", 1.5, None, 1)}


@pytest.mark.parametrize("line", ["b", "b r 1", "b r 2 1", "b r 1 1", "b r -1 1", "b r nan 1", "b r 0 inf",
                                  "b r 0 -2", "b r one two", "b r 0 1 -1", "b r 0 1 A", "b r 0 1 0 0"])  # fmt: skip
def test_a_line_that_is_no_segment_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "segments"
    path.write_text(f"a r 0 1\n{line}\n")
    with pytest.raises(UserError, match=r"segments:2: expected 'utterance-id recording-id start end"):
        read_segments(path, "")
