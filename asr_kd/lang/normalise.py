"""Written English -> the words that are spoken: upper case A-Z and the apostrophe, single spaces, no digits."""

from __future__ import annotations

import re
import unicodedata

from num2words import num2words

_NOT_SPOKEN = re.compile(r"\[[^\]]*\]|<[^>]*>|\([^)]*\)")  # [tones], <beep>, (note: ...)
_NUMBER = re.compile(r"[0-9][0-9,]*(?:\.[0-9]+)?(?:st|nd|rd|th)?(?![a-z0-9])|[0-9]+", re.IGNORECASE)
_SYMBOLS = {"*": "star", "#": "pound", "&": "and", "@": "at", "%": "percent", "+": "plus", "=": "equals"}
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "`": "'"})
_LONGEST_CARDINAL = 9  # digits; longer ones (telephone numbers, say) are read digit by digit


def normalise(text: str) -> str:
    """The words of `text` as they are spoken, or "" where there are none.

    Notes in brackets are dropped, numbers become words (28.8: TWENTY EIGHT POINT EIGHT; 3D: THREE D), `*` STAR and `#`
    POUND, hyphens split words, apostrophes stay inside words. How a number was really said (1234, 8500) cannot be
    known from its digits: a corpus corrects that by hand. Idempotent.

    >>> normalise("Don't press #, dial 28.8 [tone]!")
    "DON'T PRESS POUND DIAL TWENTY EIGHT POINT EIGHT"
    """
    text = unicodedata.normalize("NFKD", text.translate(_QUOTES))
    text = _NOT_SPOKEN.sub(" ", text)
    text = _NUMBER.sub(lambda match: f" {_number_in_words(match.group())} ", text)
    for symbol, word in _SYMBOLS.items():
        text = text.replace(symbol, f" {word} ")
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"[^A-Z']+", " ", text.upper())
    words = (re.sub(r"'+", "'", word).strip("'") for word in text.split())
    return " ".join(word for word in words if word)


def _number_in_words(number: str) -> str:
    ordinal = re.fullmatch(r"([0-9,]+)(?:st|nd|rd|th)", number, re.IGNORECASE)
    if ordinal:
        digits = ordinal.group(1).replace(",", "")
        return num2words(int(digits), to="ordinal") if len(digits) <= _LONGEST_CARDINAL else _one_by_one(digits)
    number = number.replace(",", "")
    whole, _, fraction = number.partition(".")
    fraction = re.sub(r"\D", "", fraction)
    whole_words = _one_by_one(whole) if whole[0] == "0" or len(whole) > _LONGEST_CARDINAL else num2words(int(whole))
    return f"{whole_words} point {_one_by_one(fraction)}" if fraction else whole_words


def _one_by_one(digits: str) -> str:
    return " ".join(num2words(int(digit)) for digit in digits)
