"""The phone bigram, exp/phone_lm, and the decoding graph of phones for each tree, exp/phone_graph: where stale, made.

Both depend on the training alignment and the tree alone: neither words nor the language model of words come in.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from asr_kd.alignment.phone_sequences import read_phone_sequences
from asr_kd.alignment.tree import read_tree
from asr_kd.decoding.graph import Graph, compile_graph, write_graph
from asr_kd.errors import UserError
from asr_kd.io.folders import replacing_folder
from asr_kd.io.formatting import human_bytes
from asr_kd.io.resources import available_memory, check_disk
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.lang.lexicon import read_lang
from asr_kd.lang.ngram import Arpa, read_arpa, write_arpa
from asr_kd.lang.phone_bigram import phone_bigram, phones_as_words
from asr_kd.stages.decoding_graph import LANGUAGE_MODEL
from asr_kd.workspace.config import TRAIN
from asr_kd.workspace.sets import open_frames
from asr_kd.workspace.work import Workspace, require

log = logging.getLogger(__name__)

_VERSION = 1  # of bigram and graph; raise it when the same parts give others
# Bigrams that were made up took 36 MB (4 s, 14 thousand arcs) for 40 phones, 0.77 GB (72 s, 66 thousand) for 121.
_FIXED, _PER_TRIPHONE = 0.1e9, 0.6e3  # bytes that compiling takes
_DISK_PER_TRIPHONE = 5.0


def read_phone_bigram(work: Workspace) -> Arpa:
    """Reads the phone bigram; estimates it from the training alignment where exp/phone_lm is missing or out of date.

    Raises:
      UserError: the training set is not aligned.
    """
    folder, stamp = work.phone_lm, bigram_stamp(work)
    if (reason := stale_reason(folder, stamp)) is not None:
        log.info("estimating %s: %s", folder, reason)
        store, lang = open_frames(work, TRAIN), read_lang(work.lang)
        aligned = read_phone_sequences(work.exp("align") / TRAIN, len(store.ids))
        originals = (phones for phones, unaltered in zip(aligned, store.unaltered, strict=True) if unaltered)
        bigram = phone_bigram(originals, lang.phones)
        with replacing_folder(folder, stamp, {"phones": len(bigram.words)}) as temporary:
            write_arpa(temporary / LANGUAGE_MODEL, bigram)
    return read_arpa(folder / LANGUAGE_MODEL)


def bigram_stamp(work: Workspace) -> Stamp:
    """Raises UserError where the training set is not aligned."""
    inputs = {"train alignment": require(work.exp("align") / TRAIN, work, "align")["digest"]}
    return Stamp("phone lm", {}, inputs, version=_VERSION)


def phone_graph_stamp(work: Workspace, tree: str) -> Stamp:
    """What the graph of phones for a kind of tree is made from.

    Raises:
      UserError: the training set is not aligned, or there is no tree.
    """
    inputs = {"phone lm": bigram_stamp(work).digest, "tree": require(work.tree(tree), work, "align")["digest"]}
    return Stamp("phone graph", {}, inputs, version=_VERSION)


def make_phone_graph(work: Workspace, tree: str) -> Path:
    """Compiles the graph where it is missing or something that it depends on has changed.

    Raises:
      UserError: an input is missing, or disk or memory do not suffice.
    """
    folder, stamp = work.phone_graph(tree), phone_graph_stamp(work, tree)
    reason = stale_reason(folder, stamp)
    if reason is None:
        return folder
    log.info("compiling %s: %s", folder, reason)
    bigram = read_phone_bigram(work)
    _check_memory(folder, len(bigram.words))
    check_disk(folder, graph_bytes(len(bigram.words)))
    metadata: dict[str, object] = {}
    with replacing_folder(folder, stamp, metadata) as temporary:
        started = time.perf_counter()
        graph = _compile(work, bigram, tree)
        write_graph(graph, temporary)
        metadata.update(states=graph.num_states, arcs=graph.num_arcs, seconds=round(time.perf_counter() - started, 2))
    return folder


def _compile(work: Workspace, bigram: Arpa, tree: str) -> Graph:
    lang = phones_as_words(read_lang(work.lang).phones, bigram)
    return compile_graph(lang, bigram, read_tree(work.tree(tree)), silence_probability=0.0)


def graph_bytes(num_phones: int) -> float:
    """About what the finished graph takes on disk, at most: that of a tree with a senone for each triphone's states."""
    return _DISK_PER_TRIPHONE * num_phones**3


def bytes_to_compile(num_phones: int) -> float:
    """About the most memory at once that compiling takes."""
    return _FIXED + _PER_TRIPHONE * num_phones**3


def _check_memory(folder: Path, num_phones: int) -> None:
    free, needed = available_memory(), bytes_to_compile(num_phones)
    if free is not None and needed > free:
        raise UserError(
            f"{folder}: the graph of {num_phones} phones takes about {human_bytes(needed)} of memory, but "
            f"{human_bytes(free)} are free; decode where there is more, or set decoding.phones: false."
        )
