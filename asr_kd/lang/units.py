"""Words -> units: phones by a lexicon, cmudict and letter-to-sound rules; or units that need no lexicon.

Those are characters, byte-pair units (Sennrich et al. 2016, by sentencepiece), or words. Such a unit takes the place of
a phone: it has three HMM states, and the tree ties them in context. For languages without a lexicon, and to measure
what the lexicon is worth.
"""

from __future__ import annotations

import io
import logging
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sentencepiece

from asr_kd.errors import UserError
from asr_kd.lang.lexicon import ARPABET, SILENCE, everything_known, pronounce, read_lexicon
from asr_kd.lang.phones import SYMBOLS as CLOSURES
from asr_kd.lang.phones import with_closures
from asr_kd.lang.settings import LangConfig

if TYPE_CHECKING:
    from asr_kd.lang.g2p import G2P

CHARACTERS = ("'", *string.ascii_uppercase)  # what `normalise` leaves
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


def pronunciation_model(settings: LangConfig, lexicon: Path, sentences: Sequence[str]) -> PronunciationModel:
    """The one that the settings ask for; byte-pair units and whole words are learnt from `sentences`."""
    if settings.closures and settings.units != "phones":
        raise UserError(f"lang.closures is for lang.units: phones, not {settings.units}; leave it out.")
    if settings.units == "characters":
        return SplitUnits(CHARACTERS, tuple)
    if settings.units == "words":
        return word_units(sentences)
    if settings.units == "bpe":
        return bpe_units(sentences, settings.bpe_size)
    return LexiconModel(lexicon, oov_g2p=settings.guess_pronunciations, closures=settings.closures)


class LexiconModel(PronunciationModel):
    """Pronounces words in phones: by the lexicon, else by cmudict, else (where allowed) by letter-to-sound rules.

    Args:
      lexicon: may be missing where `oov_g2p` is true.
      oov_g2p: pronounce words that no lexicon has by rules learnt from the lexicons.
      closures: write stops with their closures (`asr_kd.lang.phones`).
    """

    def __init__(self, lexicon: Path, *, oov_g2p: bool, closures: bool = False) -> None:
        self.symbols = ARPABET + (CLOSURES if closures else ())
        self._closures = closures
        self._own = read_lexicon(lexicon) if lexicon.exists() or not oov_g2p else {}
        self._oov_g2p = oov_g2p
        self._known: Pronunciations = {}

    def __call__(self, words: set[str]) -> Pronunciations:
        missing = words - self._known.keys()
        self._known |= pronounce(missing, self._own)
        missing -= self._known.keys()
        if self._oov_g2p and missing:
            guesses = {word: variants for word in sorted(missing) if (variants := self._g2p.pronounce(word))}
            self.guessed |= guesses.keys()
            self._known |= guesses
        known = {word: self._known[word] for word in words if word in self._known}
        if not self._closures:
            return known
        return {word: with_closures(variants) for word, variants in known.items()}

    @cached_property
    def _g2p(self) -> G2P:
        from asr_kd.lang.g2p import G2P  # compiled by numba, which loads slowly; most runs guess nothing

        logger.info("learning letter-to-sound rules: some words are in no lexicon")
        return G2P.train(everything_known(self._own))


class SplitUnits(PronunciationModel):
    """A word is the units that `split` makes of it; it has no pronunciation where one of them is not known."""

    def __init__(self, symbols: Iterable[str], split: Callable[[str], Iterable[str]]) -> None:
        self.symbols = tuple(sorted(symbols))
        self._split = split

    def __call__(self, words: set[str]) -> Pronunciations:
        known = {*self.symbols, SILENCE}
        split = {word: tuple(self._split(word)) for word in words}
        return {word: [units] for word, units in split.items() if units and known.issuperset(units)}


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
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-160:]
        raise UserError(f"lang.bpe_size: no {size} units can be learnt from this text ({reason}).") from None
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
