"""Written text -> spoken words."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.lang.normalise import normalise


@given(st.text())
def test_only_words_of_letters_and_apostrophes_come_out_and_twice_is_once(text: str) -> None:
    once = normalise(text)
    assert re.fullmatch(r"([A-Z][A-Z']*( [A-Z][A-Z']*)*)?", once)
    assert normalise(once) == once


@given(st.text(alphabet="0123456789.,sthndr%-' aB[(<>)]*#"))
def test_numbers_and_brackets_in_any_order(text: str) -> None:
    once = normalise(text)
    assert re.fullmatch(r"[A-Z' ]*", once)
    assert normalise(once) == once


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Press 1 for", "PRESS ONE FOR"),
        ("3D audio", "THREE D AUDIO"),
        ("a 28.8 kilobit modem", "A TWENTY EIGHT POINT EIGHT KILOBIT MODEM"),
        ("dial 500.", "DIAL FIVE HUNDRED"),
        ("1,234", "ONE THOUSAND TWO HUNDRED AND THIRTY FOUR"),
        ("007", "ZERO ZERO SEVEN"),
        ("5551234567890", "FIVE FIVE FIVE ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE ZERO"),
        ("the 1st and 22nd", "THE FIRST AND TWENTY SECOND"),
        ("press * or #", "PRESS STAR OR POUND"),
        ("don\u2019t 'quote'", "DON'T QUOTE"),
        ("re-record it", "RE RECORD IT"),
        ("at [@]", "AT"),
        ('IAX (note: does not say "2")', "IAX"),
        ("<beep ascending>", ""),
        ("[this is an error beep tone]", ""),
        ("caf\u00e9", "CAFE"),
        ("...", ""),
    ],
)
def test_how_things_are_read(written: str, spoken: str) -> None:
    assert normalise(written) == spoken
