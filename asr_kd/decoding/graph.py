"""The decoding graph HCLG: lexicon, language model and tree -> an epsilon-free acceptor of senones.

H o C o L o G by kaldifst up to HMM states without loops, then epsilon removal and the loops in numpy. The graph is
determinised once more over senones, much as Kaldi does over transitions: triphones that differ only in their right
context share their first states, so that a search keeps fewer states alive and adds the language model's score earlier.
All back ends search the same arrays; nothing here needs k2.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import kaldifst
import numpy as np

from asr_kd.alignment.topology import LOG_HALF
from asr_kd.alignment.tree import Tree
from asr_kd.decoding.epsilon import Outputs, remove_epsilon
from asr_kd.decoding.fst_io import Fst, from_kaldifst, numbers_in, spans, to_kaldifst
from asr_kd.decoding.lexicon_grammar import grammar_fst, lexicon_fst
from asr_kd.errors import UserError
from asr_kd.io.files import DAMAGED_ARRAYS
from asr_kd.lang.lexicon import Lang
from asr_kd.lang.ngram import Arpa

log = logging.getLogger(__name__)

GRAPH = "graph.npz"
_GROWTH, _ALWAYS = 10, 100_000  # determinisation makes most graphs smaller
_ARRAYS = ("src", "dst", "senone", "output", "score")  # of a graph's file


@dataclass(frozen=True)
class Graph:
    """HCLG; A arcs sorted by source. State 0 is the start; the last one is final, entered only by arcs of senone -1.

    src, dst: (A,) int32. senone: (A,) int32, the one whose frame the arc takes. score: (A,) float32, natural log.
    output: (A,) int32: 0 nothing, 1..V the word `words[output - 1]`, above that `sequences[output - V - 1]`.
    """

    src: np.ndarray
    dst: np.ndarray
    senone: np.ndarray
    output: np.ndarray
    score: np.ndarray
    num_senones: int
    words: tuple[str, ...]
    sequences: tuple[tuple[int, ...], ...]

    @property
    def num_states(self) -> int:
        return int(self.src[-1]) + 2 if len(self.src) else 0

    @property
    def num_arcs(self) -> int:
        return len(self.src)

    def spell(self, outputs: Iterable[int]) -> tuple[str, ...]:
        """The words of a path, from the outputs of its arcs; anything below 1 is none."""
        size = len(self.words)
        ids = (self.sequences[output - size - 1] if output > size else (output,) for output in outputs if output > 0)
        return tuple(self.words[word - 1] for word in chain.from_iterable(ids))

    def check(self) -> None:
        """Raises ValueError where an array is no graph's: a search does not look, and would read elsewhere."""
        labels, last = len(self.words) + len(self.sequences), self.num_states - 1
        arrays = (self.src, self.dst, self.senone, self.output)
        if any(a.shape != self.score.shape or a.dtype != np.int32 for a in arrays) or self.score.dtype != np.float32:
            raise ValueError("its arrays differ in length, or are of another kind")
        if not self.num_arcs or self.src[0] != 0 or (np.diff(self.src) < 0).any():
            raise ValueError("its arcs are not sorted by their states")
        inside = all(
            ((array >= low) & (array <= high)).all()
            for array, low, high in (
                (self.dst, 0, last), (self.senone, -1, self.num_senones - 1), (self.output, 0, labels)
            )
        )  # fmt: skip
        ends = (self.dst == last) == (self.senone == -1)
        words = all(0 < word <= len(self.words) for sequence in self.sequences for word in sequence)
        if not (inside and ends.all() and words and np.isfinite(self.score).all()):
            raise ValueError("a state, senone, word or score of it is out of range")

    def words_per_output(self) -> np.ndarray:
        """(V + 1 + sequences,) float32: how many words each output stands for."""
        lengths = [0.0] + [1.0] * len(self.words) + [float(len(sequence)) for sequence in self.sequences]
        return np.array(lengths, np.float32)

    def scores_with(self, word_penalty: float) -> np.ndarray:
        """(A,) float32: the scores, with a penalty added for each word; final arcs have none."""
        scores: np.ndarray = (self.score + word_penalty * self.words_per_output()[self.output]).astype(np.float32)
        return scores


def compile_graph(lang: Lang, arpa: Arpa, tree: Tree, silence_probability: float) -> Graph:
    """Builds HCLG; sizes and seconds are logged.

    Raises:
      UserError: a word has no pronunciation, or lexicon and tree have other phones.
    """
    if tree.phones != lang.phones:
        raise UserError(
            f"the tree has {len(tree.phones)} phones and the lexicon {len(lang.phones)}, and they are not the same; "
            "align again with this lexicon."
        )
    watch = _Watch()
    lexicon, symbols = lexicon_fst(lang, silence_probability)
    left, right = to_kaldifst(lexicon), to_kaldifst(grammar_fst(arpa, lang.words))
    kaldifst.arcsort(left, "olabel")
    kaldifst.arcsort(right, "ilabel")
    watch.log("L", left)
    watch.log("G", right)
    fst = kaldifst.compose(left, right)
    watch.log("LG", fst)
    _determinize(fst)
    kaldifst.minimize_encoded(fst)
    watch.log("min det LG", fst)
    fst, windows = kaldifst.compose_context(list(symbols), 3, 1, fst)
    watch.log("CLG", fst)

    triphones, ids = physical_triphones(tree)
    arrays = from_kaldifst(fst)
    labels = _context_labels(windows, ids, len(triphones), symbols.start)
    fst = to_kaldifst(replace(arrays, ilabel=labels[arrays.ilabel]))
    _determinize(fst)
    kaldifst.minimize_encoded(fst)
    watch.log(f"min det CLG of {len(triphones)} physical triphones", fst)

    fst = to_kaldifst(senone_arcs(from_kaldifst(fst), triphones, tree.num_senones))
    _determinize(fst)  # triphones that begin alike are one until they differ
    kaldifst.minimize_encoded(fst)
    watch.log("min det HCLG without loops", fst)

    arrays = from_kaldifst(fst)
    outputs = Outputs(len(lang.words))
    senones = np.where(arrays.ilabel > tree.num_senones, 0, arrays.ilabel)  # without symbols
    fst = to_kaldifst(remove_epsilon(replace(arrays, ilabel=senones), outputs))
    kaldifst.connect(fst)
    watch.log("epsilon-free HCLG without loops", fst)
    graph = with_self_loops(from_kaldifst(fst), tree.num_senones, lang.words, tuple(outputs.sequences))
    log.info("HCLG: %d states, %d arcs (%.1f s)", graph.num_states, graph.num_arcs, watch.lap())
    return graph


def _determinize(fst: Any) -> None:
    """Determinises a transducer in place.

    Every language model that can be read can be determinised; if one cannot, this ends nevertheless.
    """
    most = _GROWTH * fst.num_states + _ALWAYS
    try:
        kaldifst.determinize_star(fst, max_states=most)
    except RuntimeError as error:
        if "aborted" not in str(error):
            raise
        raise UserError(
            f"the decoding graph has more than {most:,} states after determinisation, and may grow without end; "
            "prepare again with another language model or lexicon."
        ) from None


def physical_triphones(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Triphones with the same three senones share one number.

    Returns:
      (N, 3) int32 senones of each physical triphone, and (P, P, P) int32 [left, phone, right] -> its number from 1.
    """
    phones = len(tree.phones)
    ids = np.zeros((phones, phones, phones), np.int32)
    rows: list[np.ndarray] = []
    count = 0
    for phone in range(phones):  # a senone belongs to one phone: no two phones share a number
        table = tree.tables[phone].reshape(3, phones * phones).T
        unique, inverse = np.unique(table, axis=0, return_inverse=True)
        ids[:, phone, :] = count + 1 + inverse.reshape(phones, phones)
        rows.append(unique)
        count += len(unique)
    return np.concatenate(rows).astype(np.int32), ids


def _context_labels(windows: list[list[int]], ids: np.ndarray, num_triphones: int, first_symbol: int) -> np.ndarray:
    """compose_context's input labels -> physical triphones, then disambiguation symbols; beyond the edges is SIL."""
    labels = np.zeros(len(windows), np.int32)
    symbols = num_triphones + 1
    for label, window in enumerate(windows):
        if len(window) == 3:
            left, phone, right = (max(0, entry - 1) for entry in window)
            labels[label] = ids[left, phone, right]
        elif len(window) == 1:  # minus a disambiguation symbol; or 0, Kaldi's #-1 before the first phone
            labels[label] = symbols if window[0] == 0 else symbols + 1 + abs(window[0]) - first_symbol
    return labels


def senone_arcs(fst: Fst, triphones: np.ndarray, num_senones: int) -> Fst:
    """Each triphone arc becomes a chain of three arcs, one for each HMM state; no loops yet.

    The states within a chain are shared by all arcs with the same triphone and destination.

    Args:
      fst: CLG; input labels are rows of `triphones` plus 1, above them disambiguation symbols.
      triphones: (N, 3) int32 senones.

    Returns:
      Input labels are senones plus 1, above `num_senones` the disambiguation symbols.
    """
    is_phone = (fst.ilabel > 0) & (fst.ilabel <= len(triphones))
    key = fst.dst[is_phone].astype(np.int64) * (len(triphones) + 1) + fst.ilabel[is_phone]
    _, first_arc, chain_of_arc = np.unique(key, return_index=True, return_inverse=True)
    chains = triphones[fst.ilabel[is_phone][first_arc] - 1] + 1  # (chains, 3)
    second = fst.num_states + 2 * np.arange(len(first_arc))
    dst, ilabel = fst.dst.copy(), np.where(fst.ilabel > 0, fst.ilabel - len(triphones) + num_senones, 0)
    dst[is_phone], ilabel[is_phone] = second[chain_of_arc.ravel()], triphones[fst.ilabel[is_phone] - 1, 0] + 1
    none = np.zeros(2 * len(second), np.int32)
    return Fst(
        np.concatenate([fst.src, second, second + 1]).astype(np.int32),
        np.concatenate([dst, second + 1, fst.dst[is_phone][first_arc]]).astype(np.int32),
        np.concatenate([ilabel, chains[:, 1], chains[:, 2]]).astype(np.int32),
        np.concatenate([fst.olabel, none]).astype(np.int32),
        np.concatenate([fst.cost, none.astype(np.float32)]),
        np.concatenate([fst.final, np.full(2 * len(second), np.inf, np.float32)]),
        fst.start,
    )


def with_self_loops(
    fst: Fst, num_senones: int, words: tuple[str, ...], sequences: tuple[tuple[int, ...], ...]
) -> Graph:
    """Adds self-loops: a state is split by the senone of the arcs that enter it, and each part loops on its senone.

    Args:
      fst: without input epsilons; input labels are senones plus 1, each a new HMM state.
    """
    splits, split_of_arc = np.unique(fst.dst.astype(np.int64) * num_senones + fst.ilabel - 1, return_inverse=True)
    # the state of `fst` that each part comes from; number 0 is the start
    base = np.concatenate([[fst.start], splits // num_senones])
    first, last = spans(fst.src, fst.num_states)
    place, source = numbers_in(first[base], last[base])
    arc = np.argsort(fst.src, kind="stable")[place]
    leaves = np.where(source > 0, LOG_HALF, 0.0)  # entering from the start leaves no HMM state

    looping = np.arange(1, len(base))
    final_at = np.flatnonzero(np.isfinite(fst.final[base]) & (np.arange(len(base)) > 0))
    end = np.full(len(final_at), len(base))
    parts = [  # source, destination, senone, output, score
        (source, split_of_arc.ravel()[arc] + 1, fst.ilabel[arc] - 1, fst.olabel[arc], leaves - fst.cost[arc]),
        (looping, looping, splits % num_senones, np.zeros_like(looping), np.full(len(looping), LOG_HALF)),
        (final_at, end, np.full_like(end, -1), np.zeros_like(end), LOG_HALF - fst.final[base[final_at]]),
    ]
    columns = [np.concatenate([part[i] for part in parts]) for i in range(5)]
    order = np.lexsort((columns[1], columns[2], columns[2] == -1, columns[0]))  # final arcs last
    src, dst, senone, output = (column[order].astype(np.int32) for column in columns[:4])
    return Graph(src, dst, senone, output, columns[4][order].astype(np.float32), num_senones, words, sequences)


class _Watch:
    """Logs the size of each intermediate and the seconds it took."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        before, self._since = self._since, time.perf_counter()
        return self._since - before

    def log(self, what: str, fst: Any) -> None:
        arcs = sum(fst.num_arcs(state) for state in range(fst.num_states))
        log.info("%s: %d states, %d arcs (%.1f s)", what, fst.num_states, arcs, self.lap())


def write_graph(graph: Graph, folder: Path) -> None:
    """Writes GRAPH into an existing folder (arrays only, no pickle)."""
    lengths = np.array([len(sequence) for sequence in graph.sequences], np.int64)
    np.savez(
        folder / GRAPH,
        **{name: getattr(graph, name) for name in _ARRAYS},
        num_senones=np.int64(graph.num_senones),
        words=np.array(graph.words, dtype=np.str_),
        sequence_lengths=lengths,
        sequence_words=np.array([word for sequence in graph.sequences for word in sequence], np.int32),
    )


def read_graph(folder: Path) -> Graph:
    """Raises UserError where the file is missing or damaged."""
    try:
        with np.load(folder / GRAPH, allow_pickle=False) as file:
            ends = np.cumsum(file["sequence_lengths"]).tolist()
            flat = file["sequence_words"].tolist()
            graph = Graph(
                **{name: file[name] for name in _ARRAYS},
                num_senones=int(file["num_senones"]),
                words=tuple(file["words"].tolist()),
                sequences=tuple(tuple(flat[a:b]) for a, b in zip([0, *ends], ends, strict=False)),
            )
        graph.check()
        return graph
    except FileNotFoundError:
        raise UserError(f"{folder} holds no {GRAPH}; delete {folder} and compile it again: asr-kd decode.") from None
    except DAMAGED_ARRAYS as error:
        raise UserError(
            f"{folder}/{GRAPH} is damaged ({error}); delete {folder} and compile it again: asr-kd decode."
        ) from None
