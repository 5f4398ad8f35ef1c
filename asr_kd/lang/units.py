"""Words -> units without a lexicon: characters, or byte-pair pieces (Sennrich et al. 2016) by sentencepiece.

A unit then stands where a phone stands: it has three HMM states, and the tree ties them in context. For languages
without a lexicon, and to see what the lexicon is worth.
"""

from __future__ import annotations

import io
import string
from collections.abc import Iterable, Sequence
from typing import Any

from asr_kd.errors import UserError
from asr_kd.lang.lexicon import SILENCE

CHARACTERS = ("'", *string.ascii_uppercase)  # what `normalise` leaves
LARGEST = 400  # units: the tree's table has 3 states x units to the third entries

Pronunciations = dict[str, list[tuple[str, ...]]]


class Characters:
    """A word is its characters."""

    symbols = CHARACTERS

    def __call__(self, words: Iterable[str]) -> Pronunciations:
        """Those words that have no other character."""
        return {word: [tuple(word)] for word in words if word and set(word) <= set(CHARACTERS)}


class WholeWords:
    """A word is one unit; the word SIL is silence. For recognising phones, where a transcript's words are phones.

    Args:
      sentences: whose words are the units.

    Raises:
      UserError: there are too many for a tree.
    """

    def __init__(self, sentences: Iterable[str]) -> None:
        words = {word for sentence in sentences for word in sentence.split()} - {SILENCE}
        if len(words) > LARGEST:
            raise UserError(f"lang.units: words: {len(words)} are too many for triphones of them; at most {LARGEST}.")
        self.symbols = tuple(sorted(words))

    def __call__(self, words: Iterable[str]) -> Pronunciations:
        """Those words that were in the sentences."""
        known = {*self.symbols, SILENCE}
        return {word: [(word,)] for word in words if word in known}


class Pieces:
    """A word is the pieces that byte-pair encoding, learnt from sentences, cuts it into.

    The first piece of a word begins with sentencepiece's mark, so that it is another unit than inside of words.

    Args:
      sentences: what the pieces are learnt from.
      size: of the inventory, at most; a small text has fewer.

    Raises:
      UserError: sentencepiece is not installed, the size is too small for the characters, or too large for a tree.
    """

    def __init__(self, sentences: Sequence[str], size: int) -> None:
        if size > LARGEST:
            raise UserError(f"lang.bpe_size: {size} units are too many for triphones of them; at most {LARGEST}.")
        self._model = _train(sentences, size)
        count = self._model.get_piece_size()
        pieces = [self._model.id_to_piece(k) for k in range(count) if not self._model.is_unknown(k)]
        self.symbols = tuple(sorted(pieces))

    def __call__(self, words: Iterable[str]) -> Pronunciations:
        """Those words whose characters are all known."""
        known = set(self.symbols)
        cut = {word: tuple(self._model.encode(word, out_type=str)) for word in words}
        return {word: [pieces] for word, pieces in cut.items() if pieces and known.issuperset(pieces)}


def _train(sentences: Sequence[str], size: int) -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise UserError("lang.units: bpe needs sentencepiece: install it with pip install 'asr_kd[bpe]'.") from None
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type="bpe",
            vocab_size=size + 1,  # the unknown piece is one of them
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
        raise UserError(f"lang.bpe_size: no {size} pieces can be learnt from this text ({reason}).") from None
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
