"""Words -> units without a lexicon: characters, byte-pair units (Sennrich et al. 2016, by sentencepiece), or words.

A unit takes the place of a phone: it has three HMM states, and the tree ties them in context. For languages without a
lexicon, and to measure what the lexicon is worth.
"""

from __future__ import annotations

import io
import string
from collections.abc import Iterable, Sequence
from typing import Any

import sentencepiece

from asr_kd.errors import UserError
from asr_kd.lang.lexicon import SILENCE

CHARACTERS = ("'", *string.ascii_uppercase)  # what `normalise` leaves
LARGEST = 400  # units: the tree's table has 3 states x units to the third entries

Pronunciations = dict[str, list[tuple[str, ...]]]


class CharacterUnits:
    """A word is its characters."""

    symbols = CHARACTERS
    guessed: frozenset[str] = frozenset()

    def __call__(self, words: Iterable[str]) -> Pronunciations:
        """The words that have no other character."""
        return {word: [tuple(word)] for word in words if word and set(word) <= set(CHARACTERS)}


class WordUnits:
    """A word is one unit; the word SIL is silence. For recognising phones, where a transcript's words are phones.

    Args:
      sentences: whose words are the units.

    Raises:
      UserError: there are too many for a tree.
    """

    guessed: frozenset[str] = frozenset()

    def __init__(self, sentences: Iterable[str]) -> None:
        words = {word for sentence in sentences for word in sentence.split()} - {SILENCE}
        if len(words) > LARGEST:
            raise UserError(f"lang.units: words: {len(words)} are too many for triphones of them; at most {LARGEST}.")
        self.symbols = tuple(sorted(words))

    def __call__(self, words: Iterable[str]) -> Pronunciations:
        """The words that were in the sentences."""
        known = {*self.symbols, SILENCE}
        return {word: [(word,)] for word in words if word in known}


class BpeUnits:
    """A word is the units that byte-pair encoding, learnt from sentences, splits it into.

    The first unit of a word begins with sentencepiece's mark: it is another unit than the same letters inside a word.

    Args:
      sentences: the text that the units are learnt from.
      size: of the inventory, at most; a small text has fewer.

    Raises:
      UserError: the size is too small for the characters, or too large for a tree.
    """

    guessed: frozenset[str] = frozenset()

    def __init__(self, sentences: Sequence[str], size: int) -> None:
        if size > LARGEST:
            raise UserError(f"lang.bpe_size: {size} units are too many for triphones of them; at most {LARGEST}.")
        self._model = _train(sentences, size)
        count = self._model.get_piece_size()
        units = [self._model.id_to_piece(k) for k in range(count) if not self._model.is_unknown(k)]
        self.symbols = tuple(sorted(units))

    def __call__(self, words: Iterable[str]) -> Pronunciations:
        """The words whose characters are all known."""
        known = set(self.symbols)
        split = {word: tuple(self._model.encode(word, out_type=str)) for word in words}
        return {word: [units] for word, units in split.items() if units and known.issuperset(units)}


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
