"""Words -> phones: by a lexicon, by cmudict, and by letter-to-sound rules."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Protocol

from asr_kd.lang.closures import SYMBOLS as CLOSURES
from asr_kd.lang.closures import with_closures
from asr_kd.lang.g2p import G2P
from asr_kd.lang.lexicon import ARPABET, everything_known, pronounce, read_lexicon
from asr_kd.lang.units import Pronunciations

logger = logging.getLogger(__name__)


class PronunciationModel(Protocol):
    """Pronounces words in units of one kind."""

    symbols: tuple[str, ...]  # the units, without silence
    guessed: frozenset[str]  # words so far that were pronounced by letter-to-sound rules

    def __call__(self, words: set[str]) -> Pronunciations:
        """The pronunciations of the words that have one."""


class LexiconModel:
    """Pronounces words in phones: by the lexicon, else by cmudict, else (where allowed) by letter-to-sound rules.

    Args:
      lexicon: may be missing where `oov_g2p` is true.
      oov_g2p: pronounce words that no lexicon has by rules learnt from the lexicons.
      closures: write stops with their closures (`asr_kd.lang.closures`).
    """

    def __init__(self, lexicon: Path, *, oov_g2p: bool, closures: bool = False) -> None:
        self.symbols = ARPABET + (CLOSURES if closures else ())
        self.guessed: frozenset[str] = frozenset()
        self._closures = closures
        self._own = read_lexicon(lexicon) if lexicon.exists() or not oov_g2p else {}
        self._oov_g2p = oov_g2p
        self._known: Pronunciations = {}

    def __call__(self, words: set[str]) -> Pronunciations:
        """The pronunciations of the words that have one."""
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
        logger.info("learning letter-to-sound rules: some words are in no lexicon")
        return G2P.train(everything_known(self._own))
