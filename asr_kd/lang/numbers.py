"""Numbers in digits -> number words of a language, by num2words; separators as the language writes them (CLDR)."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import regex
from babel import Locale, UnknownLocaleError
from num2words import CONVERTER_CLASSES, num2words

_LONGEST_CARDINAL = 9  # digits; longer ones (telephone numbers, say) are read digit by digit
_OTHER_NAMES = {"kk": "kz", "nb": "no", "nn": "no", "iw": "he", "in": "id"}  # what num2words calls languages
_NO_FRACTIONS = frozenset({"ar", "tr", "vi"})  # num2words 0.5.14 says 3.50 for 3.5
# scripts without spaces between words; in them, digits touch letters as a matter of course
UNSPACED = r"\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{Thai}\p{Lao}\p{Khmer}\p{Mymr}"
_LETTER = rf"[\p{{L}}--[{UNSPACED}]]"
_JOINTS = str.maketrans(",-", "  ")  # of number words: twenty-one
_SPACES = " \u00a0\u202f"


class NumberError(ValueError):
    """A number that cannot be written out."""

    def __init__(self, number: str, language: str) -> None:
        super().__init__(
            f"the number {number} cannot be written out in the language {language}; write it in words, or set "
            "lang.normalise: none"
        )
        self.number = number


def primary(language: str) -> str:
    """The language of a BCP 47 tag, without script and region.

    >>> primary("zh-Hant")
    'zh'
    """
    return language.partition("-")[0].lower()


class NumberWords:
    """Replaces the numbers of a text by words.

    Digits of any script count. Separators of thousands and decimals are the language's own; a series like 1,2,3 is
    three numbers. Digits that touch letters (3D, 1st) or have an ending (5-й) are only read in English.

    Raises (when called):
      NumberError: num2words does not have the language or the number.

    >>> NumberWords("en")("dial 1,234 or 1,2")
    'dial  one thousand  two hundred and thirty four  or  one , two '
    >>> NumberWords("de")("3,5 Liter")
    ' drei Komma fünf  Liter'
    """

    def __init__(self, language: str) -> None:
        self._tag, self._language = language, _converter(language)
        self._english = primary(language) == "en"
        group, decimal = _separators(language)
        number = f"(?<![0-9])(?<![0-9][.,])(?:[0-9]{{1,3}}(?:{group}[0-9]{{3}})+|[0-9]+)(?:{decimal}[0-9]+)?"
        end = "(?![0-9]|[.,][0-9])"
        if self._english:
            alternatives = [rf"{number}(?:st|nd|rd|th)?(?![a-z]){end}", "[0-9]+"]
        else:
            # with what touches them, or is their ending (5-й, 5'te), to be named
            touched = [rf"{_LETTER}+[0-9]+\w*", rf"[0-9]+(?:{_LETTER}\w*|[-']{_LETTER}{{1,3}}(?!\w))"]
            alternatives = [*touched, number + end, "[0-9]+"]
        self._pattern = regex.compile("|".join(alternatives), regex.IGNORECASE | regex.V1)
        self._group, self._decimal = regex.compile(group), regex.compile(decimal)

    def __call__(self, text: str) -> str:
        if not any(map(str.isdecimal, text)):
            return text
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
        return self._pattern.sub(lambda match: f" {self._in_words(match.group()).translate(_JOINTS)} ", text)

    def _in_words(self, number: str) -> str:
        ordinal = self._english and regex.fullmatch("(.*[0-9])(?:st|nd|rd|th)", number, regex.IGNORECASE)
        if self._language is None or (not ordinal and regex.search(_LETTER, number, regex.V1)):
            raise NumberError(number, self._tag)
        digits = self._group.sub("", ordinal[1] if ordinal else number)
        whole, *fraction = self._decimal.split(digits, maxsplit=1)
        by_digits = len(whole) > _LONGEST_CARDINAL or (whole[0] == "0" and len(whole) > 1)
        if fraction and (self._language in _NO_FRACTIONS or (by_digits and not self._english)):
            raise NumberError(number, self._tag)
        try:
            if by_digits:
                words = self._one_by_one(whole)
            elif fraction and not self._english:
                return str(num2words(float(f"{whole}.{fraction[0]}"), lang=self._language))
            else:
                words = str(num2words(int(whole), lang=self._language, to="ordinal" if ordinal else "cardinal"))
        except Exception as error:  # num2words raises whatever its converters stumble over
            raise NumberError(number, self._tag) from error
        return f"{words} point {self._one_by_one(fraction[0])}" if fraction else words

    def _one_by_one(self, digits: str) -> str:
        return " ".join(str(num2words(int(digit), lang=self._language)) for digit in digits)


def _converter(language: str) -> str | None:
    """What num2words calls a language; None where it does not have it."""
    name = _OTHER_NAMES.get(primary(language), primary(language))
    regions = [f"{name}_{part.upper()}" for part in language.split("-")[1:]]
    return next((known for known in (*regions, name) if known in CONVERTER_CLASSES), None)


def _separators(language: str) -> tuple[str, str]:
    """Patterns of what separates thousands and decimals."""
    try:
        symbols: Mapping[str, Any] = Locale.parse(language, sep="-").number_symbols
    except (UnknownLocaleError, ValueError):
        symbols = {}
    latin = symbols.get("latn", symbols)
    group, decimal = str(latin.get("group", ",")).replace("\u2019", "'"), str(latin.get("decimal", "."))
    return f"[{_SPACES}]" if group in _SPACES else regex.escape(group), regex.escape(decimal)
