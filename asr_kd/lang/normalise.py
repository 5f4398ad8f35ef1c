"""Written text -> the words that are spoken, in the language's own script and orthography.

One function serves transcripts, lexicons, texts of language models and references: what is one word in one of them is
the same word in all. English is in upper case without accents, as cmudict and LibriSpeech have it (A-Z and the
apostrophe); every other language is in lower case with all its letters and marks.
"""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import regex

from asr_kd.lang.numbers import UNSPACED, NumberWords, primary
from asr_kd.lang.scripts import foreign_letters

Kind = Literal["note", "symbol", "letter"]
_UNSPACED_LANGUAGES = frozenset(["zh", "yue", "wuu", "nan", "hak", "gan", "cdo", "ja", "th", "lo", "km", "my"])
_DOTTED_I = frozenset({"tr", "az"})  # languages in which I is the capital of a dotless i

_PRESENTATION = regex.compile("[\ufb00-\ufb06\ufb13-\ufdff\ufe70-\ufefc\uff01-\uffef]+")  # ligatures, full width
_INVISIBLE = regex.compile("[\\p{Cf}\u0640--[\u200c\u200d]]", regex.V1)  # soft hyphens, directions; Arabic tatweel
_NOTE = regex.compile(r"\[[^\]]*\]|<[^>]*>|\([^)]*\)")  # [tones], <beep>, (note: ...)
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u02b9\u00b4\u2032`", "'"))
_SYMBOLS = {"*": "star", "#": "pound", "&": "and", "@": "at", "%": "percent", "+": "plus", "=": "equals"}
_ENGLISH_WORDS = regex.compile("[A-Z]+(?:[' ][A-Z]+)*")
_ENGLISH_OTHER = regex.compile(r"[^A-Z' ]")
# letters, marks and apostrophes; inside a word also the joiners of Persian and India, Hebrew's geresh, Catalan's dot
_INSIDE = "\u200c\u200d\u05f3\u05f4\u00b7"
_OTHER = regex.compile(
    rf"[^\p{{L}}\p{{M}}' {_INSIDE}]|(?<![\p{{L}}\p{{M}}])[\p{{M}}{_INSIDE}]+|[\u05f3\u05f4\u00b7](?!\p{{L}})"
)
_OF_A_WORD = regex.compile(r"[\p{L}\p{M}\p{Nd}]")
_STARTS_UNSPACED = regex.compile(rf"[[{UNSPACED}]&&\p{{L}}]", regex.V1)


def unspaced(language: str) -> bool:
    """Whether a language (BCP 47) is written without spaces between words: its characters are taken as words.

    >>> unspaced("zh-Hant"), unspaced("ko")
    (True, False)
    """
    return primary(language) in _UNSPACED_LANGUAGES


@dataclass(frozen=True)
class Losses:
    """What normalising dropped of written text.

    Attributes:
      dropped: (kind, what was written) -> how often. A note is in brackets; a symbol is no letter, punctuation
        included; a letter is none of the language's.
      characters: letters, marks and digits that were written, outside notes.
      foreign: letters that were kept, though they are of a script that the language is not written in -> how often.
    """

    dropped: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    characters: int = 0
    foreign: Counter[str] = field(default_factory=Counter)

    def of_kind(self, kind: Kind) -> list[tuple[str, int]]:
        """What was dropped of a kind and how often, the most frequent first."""
        return [(piece, times) for (other, piece), times in self.dropped.most_common() if other == kind]

    @property
    def lost(self) -> int:
        """How many of the characters were dropped or changed: those of kind letter."""
        return sum(times for _, times in self.of_kind("letter"))

    def __add__(self, other: Losses) -> Losses:
        return Losses(self.dropped + other.dropped, self.characters + other.characters, self.foreign + other.foreign)


@dataclass(frozen=True)
class Normaliser:
    """Turns written text into words, separated by single spaces; "" where there are none.

    Notes in brackets are dropped, numbers become words, hyphens split words; in English `*` is STAR and `#` POUND.
    Apostrophes stay inside words and, but for English, at their ends where they are no quotation marks (po'). Chinese,
    Japanese, Thai, Lao, Khmer and Burmese are written without spaces: each of their characters (with its marks) is a
    word. How a number was really said (1234, 8500) cannot be known from its digits: a corpus corrects that by hand.
    Idempotent.

    Attributes:
      language: a BCP 47 tag.
      verbatim: leave the text as it is but for white space.

    Raises (when called):
      NumberError: the text has a number that cannot be written out in this language.

    >>> Normaliser()("Don't press #, dial 28.8 [tone]!")
    "DON'T PRESS POUND DIAL TWENTY EIGHT POINT EIGHT"
    >>> Normaliser("fr")("L\u2019écran est activé : 21 %")
    "l'écran est activé vingt et un"
    >>> Normaliser("zh")("你好。")
    '你 好'
    """

    language: str = "en"
    verbatim: bool = False

    def __call__(self, text: str) -> str:
        return " ".join(text.split()) if self.verbatim else self._words(_NOTE.sub(" ", _composed(text)), None)

    def explain(self, text: str) -> tuple[str, Losses]:
        """The words, and what was dropped of the text."""
        if self.verbatim:
            return self(text), Losses()
        text = _composed(text)
        dropped: Counter[tuple[Kind, str]] = Counter(("note", note) for note in _NOTE.findall(text))
        text = _NOTE.sub(" ", text)
        words = self._words(text, dropped)
        foreign = None if self.english else foreign_letters(self.language)
        kept: Counter[str] = Counter(foreign.findall(words) if foreign else ())
        return words, Losses(dropped, len(_OF_A_WORD.findall(text)), kept)

    @property
    def english(self) -> bool:
        return primary(self.language) == "en"

    def _words(self, text: str, dropped: Counter[tuple[Kind, str]] | None) -> str:
        """Returns the words of a text without notes, separated by single spaces."""
        if self.english and _ENGLISH_WORDS.fullmatch(text):  # as all of LibriSpeech's texts are
            return text
        text = self._numbers(text.translate(_APOSTROPHES))
        if self.english:
            text = _english_letters(text, dropped)
        else:
            text = _lower(text, primary(self.language))
        other = _ENGLISH_OTHER if self.english else _OTHER
        if dropped is not None:
            dropped.update((_kind(c), c) for c in other.findall(text) if not c.isspace())
        words = regex.sub("'+", "'", other.sub(" ", text)).split()
        # English has quotation marks there more often; elsewhere po' and ta' are words, but two marks are quotation
        if self.english or (any(w[0] == "'" for w in words) and any(w[-1] == "'" for w in words)):
            words = [word.strip("'") for word in words]
        return " ".join(part for word in words if word.strip("'") for part in _split_unspaced(word))

    @functools.cached_property
    def _numbers(self) -> NumberWords:
        return NumberWords(self.language)


def _composed(text: str) -> str:
    """NFC; ligatures and characters of full width as ordinary ones; without invisible characters."""
    if text.isascii():
        return text
    text = _PRESENTATION.sub(lambda match: unicodedata.normalize("NFKC", match.group()), text)
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text))


def _kind(character: str) -> Kind:
    return "letter" if _OF_A_WORD.match(character) else "symbol"


def _english_letters(text: str, dropped: Counter[tuple[Kind, str]] | None) -> str:
    """Upper case, with symbols as words and without accents; letters that lose one are noted."""
    for symbol, word in _SYMBOLS.items():
        if symbol in text:
            text = text.replace(symbol, f" {word} ")
    if not text.isascii():
        plain = [_without_accent(c) for c in text]
        if dropped is not None:
            dropped.update(("letter", c) for c, bare in zip(text, plain) if bare != c and c.isalpha())
        text = "".join(plain)
    return text.upper()


def _without_accent(character: str) -> str:
    """The Latin letters of a character that has some, "" for an accent; others as they are."""
    if unicodedata.combining(character):
        return ""
    parts = unicodedata.normalize("NFKD", character)
    return "".join(part for part in parts if part.isascii()) if parts[0].isascii() else character


def _lower(text: str, language: str) -> str:
    if language in _DOTTED_I:
        text = text.replace("I", "ı").replace("İ", "i")
    return unicodedata.normalize("NFC", text.lower())


def _split_unspaced(word: str) -> list[str]:
    """Characters of scripts without spaces are words of their own; what stands between them stays together."""
    if word.isascii() or not _STARTS_UNSPACED.search(word):
        return [word]
    parts: list[str] = []
    joined = False  # whether the next cluster may go on with the last part
    for cluster in regex.findall(r"\X", word):
        alone = _STARTS_UNSPACED.match(cluster) is not None
        if joined and not alone:
            parts[-1] += cluster
        else:
            parts.append(cluster)
        joined = not alone
    trimmed = [part.strip("'\u05f3\u05f4\u00b7") for part in parts]
    # what begins anew after an apostrophe may be such a character itself
    return [
        w for part, bare in zip(parts, trimmed) if bare for w in ([part] if bare == part else _split_unspaced(bare))
    ]
