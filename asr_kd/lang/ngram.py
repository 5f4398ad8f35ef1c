"""The n-gram language model, ARPA files, perplexity."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_kd.errors import UserError
from asr_kd.io.files import open_text

BEGIN, END = "<s>", "</s>"
NGram = tuple[str, ...]
_ADVICE = ("the language model", "fetch it or make it again (ARPA text, .gz where gzipped)")
_NEVER = -99.0  # ARPA's log10 of zero


@dataclass(frozen=True)
class Arpa:
    """A back-off model. Logarithms are natural.

    probabilities[n - 1]: n-gram -> log probability of its last word after the others.
    backoffs: history -> log weight of the shorter history's probabilities; 0 where a history is not listed.
    """

    probabilities: tuple[Mapping[NGram, float], ...]
    backoffs: Mapping[NGram, float]

    @property
    def order(self) -> int:
        return len(self.probabilities)

    def sentence_score(self, words: Sequence[str]) -> float:
        """log P(words and the sentence's end); KeyError as for `log_probability`."""
        sentence = (BEGIN, *words, END)
        return math.fsum(self.log_probability(sentence[:k], sentence[k]) for k in range(1, len(sentence)))

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary, sorted, without the sentence marks."""
        return tuple(sorted(word for (word,) in self.probabilities[0] if word not in (BEGIN, END)))

    @property
    def spoken_words(self) -> set[str]:
        """The vocabulary without marks of any kind (<UNK>, <NOISE>): what a lexicon can have a pronunciation of."""
        return {word for word in self.words if not word.startswith("<")}

    def log_probability(self, history: NGram, word: str) -> float:
        """log P(word | history), backing off as needed; KeyError where the word is not in the vocabulary."""
        history = history[max(0, len(history) - self.order + 1) :]
        weight = 0.0
        while history:
            probability = self.probabilities[len(history)].get((*history, word))
            if probability is not None:
                return weight + probability
            weight += self.backoffs.get(history, 0.0)
            history = history[1:]
        return weight + self.probabilities[0][(word,)]


def write_arpa(path: Path, arpa: Arpa) -> None:
    """Writes ARPA text, n-grams sorted, seven digits."""
    levels = [dict(level) for level in arpa.probabilities]
    levels[0].setdefault((BEGIN,), _NEVER * math.log(10))
    with path.open("w", encoding="utf-8") as file:
        file.write("\\data\\\n")
        for n, level in enumerate(levels, 1):
            file.write(f"ngram {n}={len(level)}\n")
        for n, level in enumerate(levels, 1):
            file.write(f"\n\\{n}-grams:\n")
            for ngram, log_p in sorted(level.items()):
                backoff = arpa.backoffs.get(ngram)
                tail = "" if backoff is None else f"\t{backoff / math.log(10):.7f}"
                file.write(f"{log_p / math.log(10):.7f}\t{' '.join(ngram)}{tail}\n")
        file.write("\n\\end\\\n")


def read_arpa(path: Path, only: Container[NGram] | None = None) -> Arpa:
    """Reads ARPA text, gzipped or not, ours or another tool's. Logarithms below -99, ARPA's zero, are read as -99.

    Args:
      only: the n-grams to keep, of any length; None: all. A large model's few that some text needs fit into memory.

    Raises:
      UserError: the file cannot be read, is cut short, says other counts than it holds, a line of it is wrong, or no
        sentence can end.
    """
    with open_text(path, *_ADVICE) as file:
        return _parse_arpa(path, file, only)


def read_counts(path: Path) -> list[int]:
    """The numbers of n-grams of each length in the header of an ARPA file; nothing else is read.

    Raises:
      UserError: the file cannot be read, or has no header.
    """
    with open_text(path, *_ADVICE) as file:
        return _read_header(path, enumerate(file, 1))


def read_vocabulary(path: Path) -> tuple[int, set[str]]:
    """How long an ARPA file's longest n-grams are, and its words with all marks; what follows them is not read.

    Raises:
      UserError: the file cannot be read, or has no header.
    """
    words = set()
    with open_text(path, *_ADVICE) as file:
        lines = enumerate(file, 1)
        order = len(_read_header(path, lines))
        for _, line in lines:
            fields = line.split()
            if fields and fields[0].startswith("\\"):
                break
            words.update(fields[1:2])
    return order, words


def _parse_arpa(path: Path, file: Iterable[str], only: Container[NGram] | None) -> Arpa:
    lines = enumerate(file, 1)
    promised = _read_header(path, lines)
    levels: list[dict[NGram, float]] = [{} for _ in promised]
    backoffs: dict[NGram, float] = {}
    read = [0] * len(levels)
    current, ended, has_end = 1, False, False
    for number, line in lines:
        fields = line.split()
        if not fields:
            continue
        if fields[0] == "\\end\\":
            ended = True
            break
        if section := re.fullmatch(r"\\([0-9]+)-grams:", fields[0]):
            current = int(section.group(1))
            if not 1 <= current <= len(levels):
                raise UserError(f"{path}:{number}: {fields[0]} is not counted in \\data\\; make the model again.")
            continue
        try:
            if not current + 1 <= len(fields) <= current + 2:
                raise ValueError
            log_p, backoff = float(fields[0]), float(fields[current + 1]) if len(fields) == current + 2 else None
            if not math.isfinite(log_p) or not math.isfinite(backoff or 0.0):
                raise ValueError
        except ValueError:
            words = f"{current} word{'s' if current > 1 else ''}"
            what = f"a finite log10 probability, {words}, perhaps log10 back-off weight"
            raise UserError(f"{path}:{number}: expected {what}, found {line.strip()[:60]!r}.") from None
        ngram = tuple(fields[1 : current + 1])
        if log_p > 0:
            raise UserError(f"{path}:{number}: {' '.join(ngram)} has a probability above 1: its log10 is {log_p:g}.")
        log_p, backoff = max(log_p, _NEVER), backoff and min(max(backoff, _NEVER), -_NEVER)
        read[current - 1] += 1
        has_end = has_end or ngram == (END,)
        if only is not None and ngram not in only:
            continue
        levels[current - 1][ngram] = log_p * math.log(10)
        if backoff is not None:
            backoffs[ngram] = backoff * math.log(10)
    if not ended:
        raise UserError(f"{path}: the file is cut short (no \\end\\); make the language model again.")
    if not has_end:
        raise UserError(f"{path}: the model has no {END}, so no sentence can end; make it again with sentence marks.")
    for n, (count, found, level) in enumerate(zip(promised, read, levels, strict=True), 1):
        has = len(level) if only is None else found
        if count != has:
            raise UserError(f"{path}: \\data\\ says {count} {n}-grams but the file has {has}; make it again.")
    return Arpa(tuple(levels), backoffs)


def _read_header(path: Path, lines: Iterator[tuple[int, str]]) -> list[int]:
    promised: list[int] = []
    begun = False
    for number, line in lines:
        text = line.strip()
        if text == "\\data\\":
            begun = True
        elif begun and (match := re.fullmatch(r"ngram\s+([0-9]+)\s*=\s*([0-9]+)", text)):
            if int(match.group(1)) != len(promised) + 1:
                raise UserError(f"{path}:{number}: expected the number of {len(promised) + 1}-grams, found {text!r}.")
            promised.append(int(match.group(2)))
        elif promised and text == "\\1-grams:":
            return promised
        elif begun and text:
            raise UserError(f"{path}:{number}: expected 'ngram N=COUNT', found {text[:60]!r}; make the model again.")
    raise UserError(f"{path}: this is no whole ARPA file (no \\data\\ and \\1-grams:); make the language model again.")


def perplexity(arpa: Arpa, sentences: Iterable[Sequence[str]]) -> float:
    """How well a model predicts text; sentence ends count as words.

    Words outside the vocabulary are left out, and the history begins anew after them, empty.
    """
    total, words = 0.0, 0
    for sentence in sentences:
        history: NGram = (BEGIN,)
        for word in (*sentence, END):
            if (word,) not in arpa.probabilities[0]:
                history = ()
                continue
            total += arpa.log_probability(history, word)
            words += 1
            history = (*history, word)[-arpa.order :]
    return math.exp(-total / words) if words else math.nan
