"""A second pass: lists of hypotheses from k2's lattices, their language scores taken from a larger model.

Each system's lists are an artefact of their own, exp/nbest_<system>_<set>/; what a language model makes of them is
exp/rescored_<system>_<set>_<model>/, named after its file. Scales are chosen anew on dev. Of the larger model only
those n-grams are kept in memory that some hypothesis has.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.decoding.decoder import Grid, Hypothesis
from asr_kd.decoding.scales import Scales, choose_scales, grid_errors
from asr_kd.errors import UserError, some_of
from asr_kd.evaluation.scoring import Scoring, scoring_of
from asr_kd.evaluation.wer import word_errors
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import file_digest
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp, read_stamp, stale_reason
from asr_kd.lang.lexicon import read_lang
from asr_kd.lang.ngram import BEGIN, END, NGram, read_arpa, read_vocabulary
from asr_kd.stages.decode import Task, existing_systems, system_named, task_of
from asr_kd.stages.decode_results import (
    decoded_folder,
    model_name,
    rate_name,
    read_summary,
    rescored_folder,
    write_results,
)
from asr_kd.stages.nbest import ListedUtterance, make_lists, read_lists
from asr_kd.workspace.config import Config, DecodingConfig, to_mapping
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)

ORACLES = (1, 10, 100)  # hypotheses of which the best is looked for
UNKNOWN = ("<unk>", "<UNK>")  # how language models name a word that they do not have


@dataclass(frozen=True)
class RescoreResult:
    """Summaries of the rescored systems and sets, and whether any was made now."""

    lm: Path
    made: bool
    summaries: list[dict[str, Any]]

    def __str__(self) -> str:
        rate = rate_name(self.summaries[0]) if self.summaries else "WER"
        head = f"rescored with {self.lm}\n{'system':<16} {'set':<5} {rate:>7}  first pass  scale penalty  best of "
        lines = [head + " / ".join(map(str, ORACLES))]
        for row in self.summaries:
            best = " / ".join(f"{row['oracle'][str(n)]:.2%}" for n in ORACLES)
            lines.append(
                f"{row['system']:<16} {row['set']:<5} {row['wer']:>7.2%} {row['first_pass_wer']:>11.2%}  "
                f"{row['acoustic_scale']:<5} {row['word_penalty']:<7}  {best}"
            )
        return "\n".join(lines)


def check_models(models: Sequence[Path], backend: str) -> None:
    """Raises UserError where the models of a second pass are not there, or have one name, or there are no lattices."""
    if backend != "k2":
        raise UserError("--rescore-lm needs the lattices of --decoder k2.")
    names: dict[str, Path] = {}
    for model in models:
        if not model.is_file():
            raise UserError(f"{model}: there is no such file; name an ARPA file with --rescore-lm.")
        other = names.setdefault(model_name(model.name), model)
        if other is not model:
            raise UserError(f"{other} and {model} would be kept under one name; give one of them another name.")


def rescore(
    config: Config,
    work: Workspace,
    lm: Path,
    systems: Sequence[str] | None = None,
    sets: Sequence[str] = ("dev", "test"),
    nj: int = 1,
) -> RescoreResult:
    """Rescores systems that were decoded with k2.

    Args:
      lm: an ARPA file, gzipped or not, that takes the place of the first pass's model.
      systems: names of SYSTEMS; None: all whose model is there.

    Raises:
      UserError: a system was not decoded, k2 is missing, or the language model cannot be read or lacks words.
    """
    check_models([lm], "k2")
    chosen = existing_systems(work) if systems is None else [system_named(name) for name in systems]
    tasks = [task_of(config, work, system) for system in chosen]
    names = list(dict.fromkeys(("dev", *sets)))
    stores = {name: FrameStore.open(work.frames(name)) for name in names}
    for task in tasks:
        for name in names:
            read_summary(work, task.system.name, name)
    lists = make_lists(config, work, tasks, stores, nj)
    scoring = scoring_of(config, work)
    inputs = {"lm": file_digest(lm), "first lm": file_digest(work.lm / "G.arpa"), **scoring.inputs}
    settings = {key: to_mapping(config.decoding)[key] for key in ("acoustic_scales", "word_penalties")}
    stamps = {key: Stamp("rescore", settings, inputs | _digests(work, lists, *key)) for key in lists}
    todo = [key for key in lists if stale_reason(rescored_folder(work, *key, lm.name), stamps[key]) is not None]
    if todo:
        read = dict.fromkeys([*todo, *((who, "dev") for who, _ in todo)])
        score = _difference(work, lm, [lists[key] for key in read])
        for task in tasks:
            mine = [name for who, name in todo if who == task.system.name]
            if mine:
                _rescore_task(config, work, task, mine, stores, lists, stamps, score, lm, scoring)
    summaries = [_summary(rescored_folder(work, task.system.name, name, lm.name)) for task in tasks for name in sets]
    return RescoreResult(lm, bool(todo), summaries)


def _digests(work: Workspace, lists: dict[tuple[str, str], Path], system: str, name: str) -> dict[str, str]:
    found = {f"{one} list": (read_stamp(lists[system, one]) or {})["digest"] for one in dict.fromkeys(("dev", name))}
    return found | {"decoded": (read_stamp(decoded_folder(work, system, name)) or {})["digest"]}


def _summary(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary


Score = Callable[[tuple[str, ...]], float]


def _difference(work: Workspace, lm: Path, lists: Sequence[Path]) -> Score:
    """words -> log probability by the larger model minus that by the first pass's."""
    first = read_arpa(work.lm / "G.arpa")
    heard = {hypothesis for path in lists for one in read_lists(path) for hypothesis in one.hypotheses.words}
    words = {word for hypothesis in heard for word in hypothesis}
    order, known = read_vocabulary(lm)
    spelling = _spelling(lm, words, known)
    needed = _needed_ngrams(([spelling.get(word, word) for word in one] for one in heard), order)
    log.info("reading %s: %d n-grams of the hypotheses are looked for", lm, len(needed))
    larger = read_arpa(lm, needed)

    @cache
    def score(words: tuple[str, ...]) -> float:
        return larger.sentence_score([spelling.get(word, word) for word in words]) - first.sentence_score(words)

    return score


def _spelling(lm: Path, words: set[str], known: set[str]) -> dict[str, str]:
    """What stands for each word that the larger model does not have: its unknown word.

    Raises:
      UserError: it has none, or most of the words are unknown to it.
    """
    missing = sorted(words - known)
    if not missing:
        return {}
    names = some_of(missing)
    unknown = next((word for word in UNKNOWN if word in known), None)
    if unknown is None or 2 * len(missing) > len(words):
        raise UserError(
            f"{lm}: {len(missing)} of {len(words)} words of the hypotheses are not in this language model ({names}); "
            "name one of the same words, written as here."
        )
    log.warning("%s: %d words of the hypotheses are not in it (%s), and count as %s", lm, len(missing), names, unknown)
    return dict.fromkeys(missing, unknown)


def _needed_ngrams(sentences: Iterable[Sequence[str]], order: int) -> set[NGram]:
    found: set[NGram] = set()
    for words in sentences:
        sentence = (BEGIN, *words, END)
        for length in range(1, order + 1):
            found.update(zip(*(sentence[k:] for k in range(length)), strict=False))
    return found


def _rescore_task(
    config: Config,
    work: Workspace,
    task: Task,
    names: Sequence[str],
    stores: dict[str, FrameStore],
    lists: dict[tuple[str, str], Path],
    stamps: dict[tuple[str, str], Stamp],
    score: Score,
    lm: Path,
    scoring: Scoring,
) -> None:
    who, settings = task.system.name, config.decoding
    dev = list(read_lists(lists[who, "dev"]))
    references = [text.split() for text in stores["dev"].references] * len(task.nets)
    errors = grid_errors(references, [_grid(utterance, settings, score) for utterance in dev], scoring)
    words = sum(len(scoring.scored(reference)) for reference in references)
    scales = choose_scales(errors, settings.acoustic_scales, settings.word_penalties, words)
    vocabulary = set(read_lang(work.lang).words)
    for name in names:
        listed = list(read_lists(lists[who, name]))
        best = [_best(utterance, scales, score) for utterance in listed]
        count = len(stores[name].ids)
        seeds = [best[k * count : (k + 1) * count] for k in range(len(task.nets))]
        first = read_summary(work, who, name)
        more = {
            "retried": first["retried"],
            "lm": lm.name,
            "first_pass_wer": first["wer"],
            "oracle": _oracle([text.split() for text in stores[name].references] * len(task.nets), listed, scoring),
            "rtf": None,  # of the second pass alone it would say nothing
            "hypotheses": float(np.mean([len(utterance.hypotheses.words) for utterance in listed])),
        }
        seconds = [first["seconds"] / first["seeds"]] * len(seeds)
        with replacing_folder(rescored_folder(work, who, name, lm.name), stamps[who, name]) as temporary:
            write_results(
                temporary, config, who, name, stores[name], scales, seeds, seconds, vocabulary, scoring, **more
            )


def _totals(utterance: ListedUtterance, scale: float, penalty: float, language: np.ndarray) -> np.ndarray:
    hypotheses = utterance.hypotheses
    lengths = np.array([len(words) for words in hypotheses.words])
    total: np.ndarray = scale * hypotheses.acoustic + hypotheses.graph + language + penalty * lengths
    return total


def _grid(utterance: ListedUtterance, settings: DecodingConfig, score: Score) -> Grid:
    words = utterance.hypotheses.words
    if not words:
        return (((),) * len(settings.word_penalties),) * len(settings.acoustic_scales)
    language = np.array([score(one) for one in words])
    return tuple(
        tuple(words[int(_totals(utterance, scale, penalty, language).argmax())] for penalty in settings.word_penalties)
        for scale in settings.acoustic_scales
    )


def _best(utterance: ListedUtterance, scales: Scales, score: Score) -> Hypothesis:
    words = utterance.hypotheses.words
    if not words:
        return Hypothesis((), -np.inf, True)
    language = np.array([score(one) for one in words])
    totals = _totals(utterance, scales.acoustic_scale, scales.word_penalty, language)
    return Hypothesis(words[int(totals.argmax())], float(totals.max()))


def _oracle(references: Sequence[list[str]], listed: Sequence[ListedUtterance], scoring: Scoring) -> dict[str, float]:
    """n -> error rate if the best of the first n hypotheses were taken."""
    wrong = dict.fromkeys(ORACLES, 0)
    rights = [scoring.scored(reference) for reference in references]
    for right, utterance in zip(rights, listed, strict=True):
        heard = utterance.hypotheses.words[: max(ORACLES)]
        each = [word_errors(right, scoring.scored(words)).errors for words in heard]
        for n in ORACLES:
            wrong[n] += min(each[:n], default=len(right))
    words = sum(map(len, rights))
    return {str(n): errors / max(1, words) for n, errors in wrong.items()}
