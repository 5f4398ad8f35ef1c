"""What stage 7 decodes: systems with their graphs, on sets, in words or in phones, and what those are compared with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from asr_kd.alignment.phone_sequences import read_phone_sequences
from asr_kd.corpora.timit_times import scoring_of
from asr_kd.decoding.settings import DecodingConfig, chosen_backend
from asr_kd.errors import UserError, some_of
from asr_kd.evaluation.scoring import Scoring, scoring_of_phones
from asr_kd.frames.store import FrameStore
from asr_kd.io.formatting import plural
from asr_kd.io.stamp import identity, read_stamp, stale_reason
from asr_kd.lang.lexicon import read_lang
from asr_kd.stages.decode_results import Reference, read_summary_file
from asr_kd.stages.decode_worker import SearchSettings, TrainedModel
from asr_kd.stages.decoding_graph import graph_stamp, make_graph, open_graph
from asr_kd.stages.phone_graph import make_phone_graph, phone_graph_stamp, read_phone_bigram
from asr_kd.workspace.config import TRAIN, Config
from asr_kd.workspace.sets import all_sets, open_frames, scored_sets
from asr_kd.workspace.work import Workspace, labels_of, require

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodeTask:
    """A system with all that decoding it needs.

    Attributes:
      models: one per seed; an ensemble is one.
      inputs: digests for a stamp.
    """

    system: str
    models: list[TrainedModel]
    inputs: dict[str, str]

    @property
    def together(self) -> bool:
        """Whether all models of the system answer together."""
        return self.models[0].member is None


@dataclass(frozen=True)
class DecodeContext:
    """What decoding each system on each set in words has in common."""

    config: Config
    work: Workspace
    stores: dict[str, FrameStore]  # dev, and the sets that are decoded
    scoring: Scoring
    backend: str
    nj: int

    @property
    def decoding(self) -> DecodingConfig:
        """Grids and beams."""
        return self.config.decoding.for_words()

    @property
    def vocabulary(self) -> set[str]:
        """All that can be recognised."""
        return set(read_lang(self.work.lang).words)

    def search(self, scale: float, penalty: float = 0.0) -> SearchSettings:
        return SearchSettings(self.decoding, self.backend, scale, penalty)

    def folder(self, system: str, name: str) -> Path:
        """Returns the folder of what a system recognised in a set."""
        return self.work.decoded(system, name)

    def references(self, name: str) -> list[Reference]:
        """What is compared with it: for each utterance of the set its words."""
        return [text.split() for text in self.stores[name].references]

    def reference_inputs(self, name: str) -> dict[str, str]:
        """Digests of what the references of a set are from, besides its frames."""
        return {}

    def read_summary(self, system: str, name: str) -> dict[str, Any]:
        """Raises UserError where the system was not decoded on the set."""
        command = self.work.command(f"decode --system {system} --set {name}")
        return read_summary_file(self.folder(system, name), command)


@dataclass(frozen=True)
class PhoneContext(DecodeContext):
    """The same in phones: with a phone bigram in place of words, and scales of their own.

    References are the phones of each utterance's alignment, which has chosen among its pronunciations.
    """

    @property
    def decoding(self) -> DecodingConfig:
        return self.config.decoding.for_phones()

    @property
    def vocabulary(self) -> set[str]:
        return set(read_phone_bigram(self.work).words)

    def folder(self, system: str, name: str) -> Path:
        return self.work.decoded_phones(system, name)

    @cached_property
    def _phones(self) -> tuple[str, ...]:
        return read_lang(self.work.lang).phones

    def references(self, name: str) -> list[Reference]:
        """Returns the phones of each utterance of the set; None for an utterance that has no alignment."""
        aligned = read_phone_sequences(self.work.exp("align") / name, len(self.stores[name].ids))
        return [[self._phones[phone] for phone in sequence] if len(sequence) else None for sequence in aligned]

    def reference_inputs(self, name: str) -> dict[str, str]:
        """Raises UserError where the set is not aligned, or its frames have changed since."""
        folder = self.work.exp("align") / name
        stamp = require(folder, self.work, "align")
        if stamp["inputs"].get("frames", self.stores[name].digest) != self.stores[name].digest:
            raise UserError(
                f"{folder} is the alignment of other frames than {self.work.frames(name)}; align again: "
                f"{self.work.command('align')}"
            )
        return {f"{name} alignment": stamp["digest"]}


def chosen_sets(config: Config, work: Workspace, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the sets named, or all that are scored; raises UserError where there is no such set."""
    known = all_sets(config, work)
    for name in names:
        if name not in known or name == TRAIN:
            raise UserError(f"there is no set {name!r} to score; there are: {', '.join(scored_sets(config, work))}.")
    return tuple(dict.fromkeys(names)) or scored_sets(config, work)


def chosen_systems(config: Config, work: Workspace, names: Sequence[str]) -> list[str]:
    """Returns the systems named, or all that are trained; raises UserError where there is no such system."""
    for name in names:
        config.system(name)
    chosen = list(dict.fromkeys(names)) or [name for name in config.systems if read_stamp(work.exp(name)) is not None]
    if not chosen:
        raise UserError(f"no system of {work.config_path} is trained yet; train them first: {work.command('train')}")
    return chosen


def decode_context(
    config: Config, work: Workspace, names: Sequence[str], backend: str | None, nj: int
) -> DecodeContext:
    """Opens dev and the sets; raises as `decode` for what can be checked before a graph is compiled."""
    backend = chosen_backend(backend)
    if not config.decoding.acoustic_scales or not config.decoding.word_penalties:
        raise UserError("decoding.acoustic_scales and decoding.word_penalties need at least one entry each.")
    stores = {name: open_frames(work, name) for name in names}
    return DecodeContext(config, work, stores, scoring_of(config.corpus, config.lang, work.config_path), backend, nj)


def task_of(config: Config, work: Workspace, system: str, *, may_compile: bool = True) -> DecodeTask:
    """Compiles the graph where needed, and checks that the system belongs to it.

    Args:
      may_compile: False: nothing is written; a graph that is missing or stale is an error.

    Raises:
      UserError: the system is not trained, or was trained on labels of another tree.
    """
    settings, folder = config.system(system), work.exp(system)
    train = work.command(f"train {system}")
    stamp = require(folder, work, f"train {system}")
    expected = graph_stamp(config, work, settings.tree)
    _check_labels(work, system, settings.tree, stamp, expected.inputs["tree"])
    graph_folder = make_graph(config, work, settings.tree) if may_compile else work.graph(settings.tree)
    graph = open_graph(graph_folder, expected, work)
    files = sorted(folder.glob("member_*.safetensors"))
    if not files and not settings.parts:
        raise UserError(f"{folder} holds no member_<k>.safetensors; delete it, then: {train}")
    members: list[int | None] = [None] if settings.is_ensemble else list(range(len(files)))
    models = [TrainedModel(folder, work.tree(settings.tree), graph_folder, member) for member in members]
    log.info(
        "%s: %s, graph of %d states, %d arcs", system, plural(len(models), "model"), graph.num_states, graph.num_arcs
    )
    return DecodeTask(system, models, {"model": identity(stamp), "graph": expected.digest})


def _check_labels(work: Workspace, system: str, tree: str, stamp: dict[str, Any], tree_digest: str) -> None:
    """The system must have been trained on labels of the present tree."""
    trained_on = stamp["inputs"].get("train senones")
    labels = read_stamp(work.frames(TRAIN) / f"{labels_of(tree)}.stamp.json")
    if trained_on is None or labels is None:
        return  # the training set may be deleted before decoding; the number of senones is checked later
    labelled_by = labels["inputs"].get("tree", tree_digest)
    if labels["digest"] != trained_on or labelled_by != tree_digest:
        raise UserError(
            f"{work.exp(system)} was trained on the labels {trained_on}, but the present ones are {labels['digest']} "
            f"of tree {labelled_by} ({work.tree(tree)} is {tree_digest}); train it again: "
            f"{work.command(f'train {system}')}"
        )


def phone_context(context: DecodeContext) -> PhoneContext:
    """Returns the context for decoding phones beside the words.

    Raises:
      UserError: a set is not aligned, or no utterance of it is.
    """
    config, work = context.config, context.work
    if not config.decoding.phone_acoustic_scales or not config.decoding.phone_penalties:
        raise UserError("decoding.phone_acoustic_scales and decoding.phone_penalties need at least one entry each.")
    scoring = scoring_of_phones(read_lang(work.lang).phones, closures=config.lang.closures)
    of_phones = PhoneContext(config, work, context.stores, scoring, context.backend, context.nj)
    for name, store in context.stores.items():
        of_phones.reference_inputs(name)
        references = of_phones.references(name)
        unaligned = [utterance for utterance, phones in zip(store.ids, references, strict=True) if phones is None]
        if len(unaligned) == len(store.ids):
            raise UserError(
                f"{work.exp('align') / name}: no utterance is aligned, so that there are no phones to compare with; "
                "correct the transcripts of the set, or set decoding.phones: false."
            )
        if unaligned:
            log.warning("%s: %d utterances have no alignment, and count in no phone error rate: %s", name,
                        len(unaligned), some_of(unaligned))  # fmt: skip
    return of_phones


def phone_task(context: PhoneContext, task: DecodeTask, *, may_compile: bool = True) -> DecodeTask:
    """The same system with the graph of phones, which is compiled where needed.

    Args:
      may_compile: False: nothing is written; a graph that is missing or stale is an error.

    Raises:
      UserError: see there, or an input is missing.
    """
    work, tree = context.work, context.config.system(task.system).tree
    folder, stamp = work.phone_graph(tree), phone_graph_stamp(work, tree)
    if may_compile:
        make_phone_graph(work, tree)
    elif (reason := stale_reason(folder, stamp)) is not None:
        raise UserError(f"{folder}: {reason}; make it first: {work.command(f'decode --system {task.system}')}")
    models = [replace(model, graph=folder) for model in task.models]
    return replace(task, models=models, inputs=task.inputs | {"graph": stamp.digest})
