"""What decoding left in exp/decode/<system>/<set>/ (words, characters or phones), counted; where two systems disagree.

Shapes:  S seeds, U utterances.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydantic.dataclasses
from pydantic import TypeAdapter

from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import Unit
from asr_kd.evaluation.wer import Pair, WordErrors, align_words, characters, count_errors, pooled
from asr_kd.io.files import read_json_lines


@pydantic.dataclasses.dataclass(frozen=True)
class Summary:
    """What summary.json says, read by pydantic; error counts are computed again."""

    acoustic_scale: float
    word_penalty: float
    prior_scale: float
    search_beam: float
    rtf: float | None  # None: a second pass is not timed
    unit: Unit = "word"
    retried: int = 0  # utterances, over all seeds, that were decoded again with a wider beam
    failed: list[str] = field(default_factory=list)  # utterances without a path
    unaligned: list[str] = field(default_factory=list)  # of phones: utterances without a reference, which do not count
    oov_words: int = 0
    oov_rate: float = 0.0
    characters: dict[str, Any] | None = None  # their errors; None: they are not counted beside the words
    # of a rescored folder
    lm: str = ""
    first_pass_wer: float = 0.0
    oracle: dict[str, float] = field(default_factory=dict)
    hypotheses: float = 0.0


@dataclass(frozen=True)
class Hypotheses:
    """One system on one set."""

    folder: Path
    summary: Summary
    ids: list[str]  # U, sorted
    seeds: list[int]  # S, sorted
    alignments: list[list[list[Pair]]]  # [seed][utterance]

    @cached_property
    def counts(self) -> list[list[WordErrors]]:
        """[seed][utterance]"""
        return [[count_errors(pairs) for pairs in of_seed] for of_seed in self.alignments]

    @property
    def per_seed(self) -> list[WordErrors]:
        return [pooled(of_seed) for of_seed in self.counts]

    @property
    def total(self) -> WordErrors:
        """The errors and words of all seeds: both are sums, so that the WER is the mean of the seeds'."""
        return pooled(self.per_seed)

    @property
    def errors(self) -> np.ndarray:
        """(S, U) int64."""
        return np.array([[c.errors for c in of_seed] for of_seed in self.counts], np.int64)

    @property
    def words(self) -> np.ndarray:
        """(U,) int64, in the references."""
        return np.array([c.words for c in self.counts[0]], np.int64)

    def in_characters(self) -> Hypotheses:
        """The same, with the characters of the words in the place of the words."""

        def aligned(pairs: list[Pair]) -> list[Pair]:
            return align_words(*(characters(side) for side in _sides(pairs)))

        return replace(self, alignments=[[aligned(pairs) for pairs in of_seed] for of_seed in self.alignments])


@dataclass(frozen=True)
class Difference:
    """An utterance on which the first seeds of two systems disagree."""

    utterance: str
    first: list[Pair]
    second: list[Pair]

    @property
    def errors(self) -> tuple[int, int]:
        """The errors of the first and of the second system."""
        return count_errors(self.first).errors, count_errors(self.second).errors

    @property
    def change(self) -> int:
        """Errors of the second minus those of the first."""
        return self.errors[1] - self.errors[0]


def read_hypotheses(folder: Path, command: str, *, with_silence: bool = False) -> Hypotheses:
    """Reads and aligns them.

    Args:
      command: that makes the folder again, for error messages.
      with_silence: of phones, those where silence counts as one.

    Raises:
      UserError: a file is missing or damaged, or the seeds differ in utterances or references.
    """
    again = f"delete {folder} and decode again: {command}"
    by_seed: dict[int, dict[str, tuple[list[str], list[str]]]] = defaultdict(dict)
    try:
        summary = TypeAdapter(Summary).validate_json((folder / "summary.json").read_bytes())
        for row in read_json_lines(folder / "hyps.jsonl"):
            pair = row["with_silence"] if with_silence else row
            by_seed[row["seed"]][row["utterance"]] = (list(pair["ref"]), list(pair["hyp"]))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; {again}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder}: its hypotheses are damaged; {again}") from None
    seeds = sorted(by_seed)
    ids = sorted(by_seed[seeds[0]]) if seeds else []
    references = {name: by_seed[seeds[0]][name][0] for name in ids}
    if not any(references.values()):
        raise UserError(f"{folder} holds no reference {summary.unit} to score against; {again}")
    for seed in seeds:
        if {name: ref for name, (ref, _) in by_seed[seed].items()} != references:
            raise UserError(f"{folder}: seeds {seeds[0]} and {seed} do not have the same utterances; {again}")
    alignments = [[align_words(*by_seed[seed][name]) for name in ids] for seed in seeds]
    return Hypotheses(folder, summary, ids, seeds, alignments)


def differences(first: Hypotheses, second: Hypotheses) -> list[Difference]:
    """Returns the utterances on which the first seeds' words differ.

    Those on which `second` has fewer errors come first; utterances with the same change are sorted by name.
    """
    differing = []
    seconds = dict(zip(second.ids, second.alignments[0], strict=True))
    for utterance, pairs in zip(first.ids, first.alignments[0], strict=True):
        if _sides(pairs)[1] != _sides(seconds[utterance])[1]:
            differing.append(Difference(utterance, pairs, seconds[utterance]))
    return sorted(differing, key=lambda d: (d.change, d.utterance))


def _sides(pairs: list[Pair]) -> tuple[list[str], list[str]]:
    """The words of the reference, and those of the hypothesis."""
    return [ref for ref, _ in pairs if ref is not None], [hyp for _, hyp in pairs if hyp is not None]
