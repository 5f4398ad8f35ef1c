"""The decoding graph of each tree, exp/graph and exp/graph_monophone: compiled where it is stale, or opened."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from asr_kd.alignment.tree import read_tree
from asr_kd.decoding.graph import Graph, compile_graph, read_graph, write_graph
from asr_kd.errors import UserError
from asr_kd.io.files import file_digest
from asr_kd.io.folders import replacing_folder
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import STAMP, Stamp, read_stamp, stale_reason
from asr_kd.lang.lexicon import read_lang
from asr_kd.lang.ngram import read_arpa, read_counts
from asr_kd.stages.language import bytes_on_disk, check_memory
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace, require

log = logging.getLogger(__name__)

STEP = "graph"
_VERSION = 3  # raise it when the same parts give another graph
LANGUAGE_MODEL = "G.arpa"  # in data/lm


def language_model_of(work: Workspace) -> Path:
    """The model of the first pass; raises UserError where stage 1 has not written it."""
    path = work.lm / LANGUAGE_MODEL
    if not path.is_file():
        raise UserError(f"{path} is not there yet; make it first: {work.command('prepare')}")
    return path


def graph_stamp(config: Config, work: Workspace, tree: str) -> Stamp:
    """What the graph of a kind of tree ("tied", "monophone") is made from.

    Raises:
      UserError: lexicon, language model or tree are missing.
    """
    inputs = {
        "lang": require(work.lang, work, "prepare")["digest"],
        "lm": file_digest(language_model_of(work))[:16],
        "tree": require(work.tree(tree), work, "align")["digest"],
    }
    settings = {"silence_probability": config.decoding.silence_probability}
    return Stamp(STEP, settings, inputs, version=_VERSION)


def make_graph(config: Config, work: Workspace, tree: str) -> Path:
    """Compiles the graph of a tree where it is missing or something that it depends on has changed.

    Raises:
      UserError: an input is missing, or disk or memory do not suffice.
    """
    folder, stamp = work.graph(tree), graph_stamp(config, work, tree)
    reason = stale_reason(folder, stamp)
    if reason is None:
        return folder
    log.info("compiling %s: %s", folder, reason)
    check_space(work, folder)
    metadata: dict[str, object] = {}
    with replacing_folder(folder, stamp, metadata) as temporary:
        started = time.perf_counter()
        graph = compile_graph(
            read_lang(work.lang),
            read_arpa(language_model_of(work)),
            read_tree(work.tree(tree)),
            config.decoding.silence_probability,
        )
        write_graph(graph, temporary)
        metadata.update(states=graph.num_states, arcs=graph.num_arcs, seconds=round(time.perf_counter() - started, 2))
    return folder


def check_space(work: Workspace, folder: Path) -> None:
    """Raises UserError where disk or memory do not suffice to compile a graph and write it into a folder."""
    language_model = language_model_of(work)
    prepared = read_stamp(work.data) or {"inputs": {}}
    num_ngrams = sum(read_counts(language_model))
    check_memory(num_ngrams, language_model, given="lm" in prepared["inputs"])
    check_disk(folder, bytes_on_disk(num_ngrams))


def open_graph(folder: Path, stamp: Stamp, work: Workspace) -> Graph:
    """The graph of a folder, provided that it was made from what `stamp` names.

    Raises:
      UserError: it is missing, or was made from another tree, lexicon or language model; both are named.
    """
    old = require(folder, work, "decode")
    if old["digest"] != stamp.digest:
        for name, digest in stamp.inputs.items():
            if old["inputs"].get(name) != digest:
                raise UserError(
                    f"{folder / STAMP}: this graph was made from {name} {old['inputs'].get(name)}, but {name} is "
                    f"{digest} now; make it again: {work.command('decode')}"
                )
        raise UserError(f"{folder}: this graph was made with other settings; make it again: {work.command('decode')}")
    return read_graph(folder)
