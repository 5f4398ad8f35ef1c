"""A second pass: the hypotheses of lattices, with language scores from a larger model.

Each system's lists are an artefact of their own, exp/nbest/<system>/<set>/; what a language model makes of them is in
exp/rescored/<system>/<set>/<model>/, named after the model's file. Scales are chosen again on dev. Of the larger model
only those n-grams are kept in memory that some hypothesis has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.decoding.decoder import NO_PATH, Grid, Hypothesis
from asr_kd.decoding.scales import choose_scales, grid_errors
from asr_kd.decoding.settings import BACKENDS, DecodingConfig, backend_named, chosen_backend
from asr_kd.errors import UserError, some_of
from asr_kd.evaluation.scoring import Scoring, rate_name
from asr_kd.evaluation.wer import word_errors
from asr_kd.io.files import file_digest
from asr_kd.io.folders import replacing_folder
from asr_kd.io.formatting import text_table
from asr_kd.io.stamp import Stamp, read_stamp, stale_reason
from asr_kd.lang.lexicon import read_lang, spelled_as_transcripts
from asr_kd.lang.ngram import BEGIN, END, NGram, read_arpa, read_vocabulary
from asr_kd.lang.normalise import Normaliser
from asr_kd.lang.settings import LangConfig
from asr_kd.lang.units import normaliser
from asr_kd.stages.decode_context import (
    DecodeContext,
    DecodeTask,
    chosen_sets,
    chosen_systems,
    decode_context,
    task_of,
)
from asr_kd.stages.decode_results import Recognised, read_summary, read_summary_file, write_results
from asr_kd.stages.decoding_graph import language_model_of
from asr_kd.stages.nbest import ListedUtterance, make_lists, read_lists
from asr_kd.workspace.config import DEV, Config
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)

ORACLES = (1, 10, 100)  # numbers of hypotheses among which the best one is looked for
UNKNOWN = ("<unk>", "<UNK>")  # how language models name a word that they do not have

Score = Callable[[tuple[str, ...]], float]
Key = tuple[str, str]  # system, set


@dataclass(frozen=True)
class RescoreResult:
    """Summaries of the rescored systems and sets, and whether this run wrote any."""

    lm: Path
    ran: bool
    summaries: list[dict[str, Any]]

    def __str__(self) -> str:
        first = self.summaries[0] if self.summaries else {"unit": "word"}
        beside, best = ["CER"] if "characters" in first else [], f"best of {' / '.join(map(str, ORACLES))}"
        rows = [["system", "set", rate_name(first["unit"]), *beside, "first pass", "scale", "penalty", best]]
        for row in self.summaries:
            oracles = " / ".join(f"{row['oracle'][str(size)]:.2%}" for size in ORACLES)
            cer = [f"{row['characters']['wer']:.2%}"] if beside else []
            rows.append([row["system"], row["set"], f"{row['wer']:.2%}", *cer, f"{row['first_pass_wer']:.2%}",
                         str(row["acoustic_scale"]), str(row["word_penalty"]), oracles])  # fmt: skip
        return f"rescored with {self.lm}\n{text_table(rows)}"


def check_models(models: Sequence[Path], backend: str) -> None:
    """Raises UserError where the models of a second pass cannot be used or share a name, or there are no lattices."""
    if not backend_named(backend).lattices:
        able = " or ".join(name for name, entry in BACKENDS.items() if entry.lattices)
        raise UserError(f"--rescore-lm needs a decoder that keeps lattices: --decoder {able}.")
    names: dict[str, Path] = {}
    for model in models:
        if not model.is_file():
            raise UserError(f"{model}: there is no such file; name an ARPA file with --rescore-lm.")
        if END not in read_vocabulary(model)[1]:  # the rest is checked when its n-grams are read
            raise UserError(
                f"{model}: the model has no {END}, so no sentence can end; make it again with sentence marks."
            )
        other = names.setdefault(model_name(model), model)
        if other is not model:
            raise UserError(f"{other} and {model} would share a folder; rename one of them.")


def model_name(file: Path) -> str:
    """The name of a language model's results: its file's, without endings."""
    return file.name.removesuffix(".gz").removesuffix(".arpa")


def rescore(
    config: Config,
    work: Workspace,
    lm: Path,
    systems: Sequence[str] = (),
    sets: Sequence[str] = (),
    backend: str | None = None,
    nj: int = 1,
) -> RescoreResult:
    """Rescores systems that were decoded.

    Args:
      lm: an ARPA file, gzipped or not, that takes the place of the first pass's model.
      systems: empty: all that are trained.
      sets: empty: all that are scored.
      backend: one that keeps lattices; None: the first installed one.

    Raises:
      UserError: a system was not decoded, the back end cannot be loaded, or the language model cannot be read or lacks
        words.
    """
    backend = chosen_backend(backend)
    check_models([lm], backend)
    sets = chosen_sets(config, work, sets)
    context = decode_context(config, work, tuple(dict.fromkeys((DEV, *sets))), backend, nj)
    tasks = [task_of(config, work, system) for system in chosen_systems(config, work, systems)]
    for task in tasks:
        for name in context.stores:
            read_summary(work, task.system, name)
    inputs = {"lm": file_digest(lm), "first lm": file_digest(language_model_of(work)), **context.scoring.inputs}
    second_pass = _SecondPass(context, lm, inputs, make_lists(context, tasks))
    stale = [
        (task, name)
        for task in tasks
        for name in context.stores
        if stale_reason(second_pass.folder(task.system, name), second_pass.stamp(task.system, name)) is not None
    ]
    if stale:
        needed = dict.fromkeys([*((t.system, name) for t, name in stale), *((t.system, DEV) for t, _ in stale)])
        score = _difference(work, lm, [second_pass.lists[key] for key in needed], config.lang)
        for task in tasks:
            if names := [name for other, name in stale if other is task]:
                _rescore_system(second_pass, task, names, score)
    command = work.command(f"decode --rescore-lm {lm}")
    folders = [second_pass.folder(task.system, name) for task in tasks for name in sets]
    return RescoreResult(lm, bool(stale), [read_summary_file(folder, command) for folder in folders])


@dataclass(frozen=True)
class _SecondPass:
    """What rescoring each system has in common."""

    context: DecodeContext
    lm: Path
    inputs: dict[str, str]  # digests for the stamps
    lists: dict[Key, Path]

    def folder(self, system: str, name: str) -> Path:
        return self.context.work.rescored(system, name, model_name(self.lm))

    def stamp(self, system: str, name: str) -> Stamp:
        decoding, decoded = self.context.config.decoding, self.context.work.decoded(system, name)
        settings = {"acoustic_scales": decoding.acoustic_scales, "word_penalties": decoding.word_penalties}
        inputs = {f"{each} list": _digest(self.lists[system, each]) for each in dict.fromkeys((DEV, name))}
        return Stamp("rescore", settings, self.inputs | inputs | {"decoded": _digest(decoded)})


def _digest(folder: Path) -> str:
    return str((read_stamp(folder) or {})["digest"])


def _difference(work: Workspace, lm: Path, lists: Sequence[Path], lang: LangConfig) -> Score:
    """words -> log probability by the larger model minus that by the first pass's."""
    first = read_arpa(language_model_of(work))
    hypotheses = {words for path in lists for utterance in read_lists(path) for words in utterance.hypotheses.words}
    words = {word for hypothesis in hypotheses for word in hypothesis}
    order, vocabulary = read_vocabulary(lm)
    spelling = _spelling(lm, words, vocabulary, normaliser(lang))
    needed = _needed_ngrams(([spelling.get(word, word) for word in hypothesis] for hypothesis in hypotheses), order)
    log.info("reading %s: the hypotheses have %d n-grams", lm, len(needed))
    larger = read_arpa(lm, needed)

    @cache
    def score(words: tuple[str, ...]) -> float:
        return larger.sentence_score([spelling.get(word, word) for word in words]) - first.sentence_score(words)

    return score


def _spelling(lm: Path, words: set[str], vocabulary: set[str], normalise: Normaliser) -> dict[str, str]:
    """Word that the larger model does not have -> what it has instead: another spelling, or its unknown word.

    Raises:
      UserError: it has none, or most of the words are unknown to it.
    """
    missing = sorted(words - vocabulary)
    if not missing:
        return {}
    spelled = {spelled_as_transcripts(word, normalise): word for word in sorted(vocabulary, reverse=True)}
    spelling = {word: spelled[word] for word in missing if word in spelled}
    missing = [word for word in missing if word not in spelling]
    if not missing:
        return spelling
    names = some_of(missing)
    unknown = next((word for word in UNKNOWN if word in vocabulary), None)
    if unknown is None or 2 * len(missing) > len(words):
        raise UserError(
            f"{lm}: {len(missing)} of {len(words)} words of the hypotheses are not in this language model ({names}); "
            "name one that has the same words in the same spelling."
        )
    log.warning("%s: %d words of the hypotheses are not in it (%s), and count as %s", lm, len(missing), names, unknown)
    return spelling | dict.fromkeys(missing, unknown)


def _needed_ngrams(sentences: Iterable[Sequence[str]], order: int) -> set[NGram]:
    ngrams: set[NGram] = set()
    for words in sentences:
        sentence = (BEGIN, *words, END)
        for length in range(1, order + 1):
            ngrams.update(zip(*(sentence[k:] for k in range(length)), strict=False))
    return ngrams


def _rescore_system(second_pass: _SecondPass, task: DecodeTask, names: Sequence[str], score: Score) -> None:
    context, lists, system = second_pass.context, second_pass.lists, task.system
    settings, scoring, work = context.config.decoding, context.scoring, context.work
    references = [text.split() for text in context.stores[DEV].references] * len(task.models)
    grids = [_grid(utterance, settings, score) for utterance in read_lists(lists[system, DEV])]
    words = sum(len(scoring.scored(reference)) for reference in references)
    errors = grid_errors(references, grids, scoring)
    scales = choose_scales(errors, settings.acoustic_scales, settings.word_penalties, words)
    vocabulary = set(read_lang(work.lang).words)
    for name in names:
        listed, store = list(read_lists(lists[system, name])), context.stores[name]
        best = [_search(utterance, score)(scales.acoustic_scale, scales.word_penalty) for utterance in listed]
        count = len(store.ids)
        seeds = [best[seed * count : (seed + 1) * count] for seed in range(len(task.models))]
        first = read_summary(work, system, name)
        more = {
            "retried": first["retried"],
            "lm": second_pass.lm.name,
            "first_pass_wer": first["wer"],
            "oracle": _oracle([text.split() for text in store.references] * len(task.models), listed, scoring),
            "rtf": None,  # of the second pass alone it would say nothing
            "hypotheses": float(np.mean([len(utterance.hypotheses.words) for utterance in listed])),
        }
        seconds = [first["seconds"] / first["seeds"]] * len(seeds)
        recognised = Recognised(system, name, store, context.references(name), scales, seeds, seconds)
        with replacing_folder(second_pass.folder(system, name), second_pass.stamp(system, name)) as temporary:
            write_results(temporary, recognised, settings, scoring, vocabulary, **more)


def _search(utterance: ListedUtterance, score: Score) -> Callable[[float, float], Hypothesis]:
    """(acoustic scale, word penalty) -> the best hypothesis of a list."""
    hypotheses = utterance.hypotheses
    language = np.array([score(words) for words in hypotheses.words])
    lengths = np.array([len(words) for words in hypotheses.words])

    def best(scale: float, penalty: float) -> Hypothesis:
        if not hypotheses.words:
            return NO_PATH
        totals = scale * hypotheses.acoustic + hypotheses.graph + language + penalty * lengths
        return Hypothesis(hypotheses.words[int(totals.argmax())], float(totals.max()))

    return best


def _grid(utterance: ListedUtterance, settings: DecodingConfig, score: Score) -> Grid:
    best, penalties = _search(utterance, score), settings.word_penalties
    return tuple(tuple(best(scale, penalty).words for penalty in penalties) for scale in settings.acoustic_scales)


def _oracle(references: Sequence[list[str]], listed: Sequence[ListedUtterance], scoring: Scoring) -> dict[str, float]:
    """n -> error rate if the best of the first n hypotheses were taken."""
    errors = dict.fromkeys(ORACLES, 0)
    scored_references = [scoring.scored(reference) for reference in references]
    for reference, utterance in zip(scored_references, listed, strict=True):
        candidates = utterance.hypotheses.words[: max(ORACLES)]
        each = [word_errors(reference, scoring.scored(words)).errors for words in candidates]
        for size in ORACLES:
            errors[size] += min(each[:size], default=len(reference))
    words = sum(map(len, scored_references))
    return {str(size): count / max(1, words) for size, count in errors.items()}
