"""The words or phones that decoding left in exp/decode_<system>_<set>/, counted; where two systems hear differently.

Shapes:  S seeds, U utterances.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.errors import UserError
from asr_kd.evaluation.wer import Pair, WordErrors, align_words, count_errors, pooled
from asr_kd.io.files import read_json_lines
from asr_kd.workspace.work import Workspace


@dataclass(frozen=True)
class Hypotheses:
    """One system on one set."""

    folder: Path
    summary: dict[str, Any]  # summary.json: scales, speed, what was retried and failed
    ids: list[str]  # U, sorted
    seeds: list[int]  # S, sorted
    alignments: list[list[list[Pair]]]  # [seed][utterance]

    @property
    def unit(self) -> str:
        """What these are: "word" or "phone"."""
        return str(self.summary.get("unit", "word"))

    @cached_property
    def counts(self) -> list[list[WordErrors]]:
        """[seed][utterance]"""
        return [[count_errors(pairs) for pairs in of_seed] for of_seed in self.alignments]

    @property
    def per_seed(self) -> list[WordErrors]:
        return [pooled(of_seed) for of_seed in self.counts]

    @property
    def total(self) -> WordErrors:
        """Over all seeds: errors and words are sums, so that the WER is the mean of the seeds'."""
        return pooled(self.per_seed)

    @property
    def errors(self) -> np.ndarray:
        """(S, U) int64."""
        return np.array([[c.errors for c in of_seed] for of_seed in self.counts], np.int64)

    @property
    def words(self) -> np.ndarray:
        """(U,) int64, in the references."""
        return np.array([c.words for c in self.counts[0]], np.int64)


@dataclass(frozen=True)
class Difference:
    """An utterance in which two systems' first seeds give different words."""

    utterance: str
    reference: list[str]
    first: list[Pair]
    second: list[Pair]

    @property
    def errors(self) -> tuple[int, int]:
        return count_errors(self.first).errors, count_errors(self.second).errors


def read_hypotheses(folder: Path, work: Workspace, *, with_silence: bool = False) -> Hypotheses:
    """Reads and aligns them.

    Args:
      with_silence: of phones, those where silence counts as one.

    Raises:
      UserError: a file is missing or damaged, or the seeds differ in utterances or references.
    """
    again = f"delete {folder} and decode again: {work.command('decode')}"
    by_seed: dict[int, dict[str, tuple[list[str], list[str]]]] = defaultdict(dict)
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        float(summary["rtf"])
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
        raise UserError(f"{folder} holds no reference {summary.get('unit', 'word')} to score against; {again}")
    for seed in seeds:
        if {name: ref for name, (ref, _) in by_seed[seed].items()} != references:
            raise UserError(f"{folder}: seeds {seeds[0]} and {seed} do not have the same utterances; {again}")
    alignments = [[align_words(*by_seed[seed][name]) for name in ids] for seed in seeds]
    return Hypotheses(folder, summary, ids, seeds, alignments)


def differences(first: Hypotheses, second: Hypotheses) -> list[Difference]:
    """Where the first seeds' words differ: those that `second` gets better come first, then by name."""
    found = []
    mine = dict(zip(second.ids, second.alignments[0], strict=True))
    for utterance, pairs in zip(first.ids, first.alignments[0], strict=True):
        others = mine[utterance]
        if _hypothesis(pairs) != _hypothesis(others):
            reference = [ref for ref, _ in pairs if ref is not None]
            found.append(Difference(utterance, reference, pairs, others))
    return sorted(found, key=lambda d: (d.errors[1] - d.errors[0], d.utterance))


def _hypothesis(pairs: list[Pair]) -> list[str]:
    return [hyp for _, hyp in pairs if hyp is not None]
