"""The language part of stage 1: the words that can be recognised, their pronunciations, and the language model.

A language model comes as an ARPA file, or is estimated from a text, or from the training transcripts. Sentences of the
text that are transcripts of a scored set are left out: with them the words of that set would be recognised too well.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asr_kd.errors import UserError, some_of
from asr_kd.io.text_files import open_text
from asr_kd.lang.graph_size import check_reading, too_large
from asr_kd.lang.ngram import Arpa, estimate, read_arpa, read_counts
from asr_kd.lang.normalise import normalise
from asr_kd.lang.pruning import prune, restrict
from asr_kd.lang.settings import LangConfig

if TYPE_CHECKING:
    from asr_kd.lang.pronunciation import PronunciationModel

UNKNOWN = "<UNK>"
_UTTERANCE_ID = re.compile(r"[0-9]+-[0-9]+-[0-9]+\s")  # LibriSpeech's transcripts have one before each line

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LanguageFiles:
    """The files that the language settings name; None where they name none.

    optional_lexicon: the lexicon is the default file, which may be missing where pronunciations are guessed.
    """

    lexicon: Path
    lm: Path | None
    lm_text: Path | None
    optional_lexicon: bool = False

    @property
    def present(self) -> dict[str, Path]:
        """Those that enter prepare's stamp, by name.

        Raises:
          UserError: a file that must be there is missing.
        """
        no_lexicon = self.optional_lexicon and not self.lexicon.exists()
        named = {"lexicon": None if no_lexicon else self.lexicon, "lm": self.lm, "lm_text": self.lm_text}
        present = {name: path for name, path in named.items() if path is not None}
        for name, path in present.items():
            if not path.is_file():
                option = name.replace("_", "-")
                raise UserError(f"{path}: there is no such file; name another as lang.{name} (--{option}).")
        return present

    @property
    def lm_source(self) -> str:
        """Where the words of the language model come from, for messages."""
        return str(self.lm or self.lm_text or "the training transcripts")


def language_files(settings: LangConfig, conf_dir: Path) -> LanguageFiles:
    """Where the config's files are; an absolute name stays as it is."""
    return LanguageFiles(
        conf_dir / settings.lexicon,
        conf_dir / settings.lm if settings.lm else None,
        conf_dir / settings.lm_text if settings.lm_text else None,
        settings.lexicon == LangConfig.lexicon,
    )


@dataclass(frozen=True)
class LanguageModel:
    """The model that becomes data/lm/G.arpa."""

    arpa: Arpa
    left_out: int = 0  # sentences of the text that are transcripts of a scored set
    full_ngrams: int = 0  # before pruning

    @property
    def words(self) -> set[str]:
        return self.arpa.spoken_words


def language_model(
    settings: LangConfig, files: LanguageFiles, train_texts: Sequence[str], scored_texts: Iterable[str]
) -> LanguageModel:
    """Reads or estimates it.

    Args:
      train_texts: transcripts that it is estimated from where no file is named.
      scored_texts: transcripts that are left out of `files.lm_text`.

    Raises:
      UserError: a file cannot be read, or has no sentence.
    """
    if files.lm is not None:
        count = sum(read_counts(files.lm))
        check_reading(count, files.lm)
        if (warning := too_large(count, files.lm, given=True)) is not None:
            logger.warning("stage 7 will not be possible on this machine as it is now: %s", warning)
        arpa = read_arpa(files.lm)
        return LanguageModel(restrict(arpa, arpa.spoken_words), full_ngrams=sum(map(len, arpa.probabilities)))
    sentences: Sequence[str] = train_texts
    left_out = 0
    if files.lm_text is not None:
        scored = set(scored_texts)
        text = read_sentences(files.lm_text)
        sentences = [sentence for sentence in text if sentence not in scored]
        left_out = len(text) - len(sentences)
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
        lines = [normalise(_UTTERANCE_ID.sub("", line, count=1)) for line in file]
    sentences = [sentence for sentence in lines if sentence]
    if not sentences:
        raise UserError(f"{path} holds no sentence; give UTF-8 text, a sentence a line.")
    return sentences


def _limited(sentences: list[list[str]], size: int) -> list[list[str]]:
    """Words beyond the `size` most frequent ones become one unknown word; ties in the order of the alphabet."""
    counts = Counter(word for sentence in sentences for word in sentence)
    vocabulary = set(sorted(counts, key=lambda word: (-counts[word], word))[:size])
    return [[word if word in vocabulary else UNKNOWN for word in sentence] for sentence in sentences]


def pronunciation_model(settings: LangConfig, lexicon: Path, sentences: Sequence[str]) -> PronunciationModel:
    """The one that the settings ask for; byte-pair units and whole words are learnt from `sentences`."""
    # imported late: their compiled parts load slowly, and a finished stage does not need them
    from asr_kd.lang.pronunciation import LexiconModel
    from asr_kd.lang.units import BpeUnits, CharacterUnits, WordUnits

    if settings.closures and settings.units != "phones":
        raise UserError(f"lang.closures is for lang.units: phones, not {settings.units}; leave it out.")
    if settings.units == "characters":
        return CharacterUnits()
    if settings.units == "words":
        return WordUnits(sentences)
    if settings.units == "bpe":
        return BpeUnits(sentences, settings.bpe_size)
    return LexiconModel(lexicon, oov_g2p=settings.guess_pronunciations, closures=settings.closures)


def check_vocabulary(
    words: set[str], pronunciations: Mapping[str, object], files: LanguageFiles, *, oov_g2p: bool = False
) -> None:
    """Raises UserError where a word to be recognised has no pronunciation; `oov_g2p`: not even by letter-to-sound."""
    missing = sorted(words - pronunciations.keys())
    if not missing:
        return
    advice = "take them out of the model" if oov_g2p else "set lang.guess_pronunciations: true"
    raise UserError(
        f"{files.lm_source}: {len(missing)} words of the language model have no pronunciation ({some_of(missing)}); "
        f"add lines for them to {files.lexicon}, or {advice}."
    )
