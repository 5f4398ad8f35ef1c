"""Numbers and tables as people read them."""

import doctest

import pytest

from asr_kd.io import formatting


def test_numbers_as_people_read_them() -> None:
    assert formatting.percent(0.2345) == "23.4\N{NO-BREAK SPACE}%" and formatting.percent(None) == "–"
    assert formatting.percent(-0.5, 0) == "−50\N{NO-BREAK SPACE}%"
    assert formatting.human_count(85_000_000) == "85 M" and formatting.human_count(999_600) == "1 M"
    assert formatting.human_seconds(75.2) == "1 min 15 s" and formatting.human_seconds(3.21) == "3.2 s"
    assert formatting.human_seconds(7260) == "2 h 1 min"
    assert formatting.human_bytes(1_536_000, ".3g") == "1.54 MB"
    assert formatting.plural(1, "seed") == "1 seed" and formatting.plural(1200, "seed") == "1,200 seeds"
    assert formatting.signed(-1.5, 2) == "−1.50" and formatting.signed(1.5, 1) == "+1.5"


def test_a_table_is_aligned() -> None:
    assert doctest.testmod(formatting).failed == 0
    lines = formatting.text_table([["a", "b"], ["", "dev"], ["long name", "1"]], head=2).splitlines()
    assert lines[2] == "-" * 14 and lines[3] == "long name    1"
    with pytest.raises(ValueError):
        formatting.text_table([["a"], ["b", "c"]])


def test_a_table_in_markdown() -> None:
    assert formatting.markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --: |\n| 1 | 2 |"
