"""Decoding with k2: pruned intersection of the graph with the log-likelihoods, then the best path of the lattice.

Graph and acoustic scores stay apart on the lattice, so that other scales can be tried without another search.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

# isort: split
import k2  # after torch, whose libraries it needs

from asr_kd.decoding.decoder import NO_PATH, Grid, Hypothesis, NBest, check_loglikes, empty_grid
from asr_kd.decoding.graph import Graph
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.decoding.word_paths import best_scores

MAX_FRAMES = 4000  # of a batch, padding included: on a CPU larger batches are no faster and take more memory
_FLATTENING = 0.5  # factor of a lattice's scores while paths are drawn: otherwise most draws are the likeliest path
_IMPOSSIBLE = -1e9  # the score of epsilon and of padding


T = TypeVar("T")


class K2Decoder:
    """See `LatticeDecoder`.

    Args:
      graph: HCLG.
      settings: beams.
      acoustic_scale: factor of the log-likelihoods.
      word_penalty: added to the score of each word.
    """

    def __init__(self, graph: Graph, settings: DecodingConfig, *, acoustic_scale: float, word_penalty: float = 0.0):
        self._graph, self._settings = graph, settings
        self._scale, self._penalty = acoustic_scale, word_penalty
        self._words_per_output = torch.from_numpy(graph.words_per_output())
        self._fsa = self._acceptor()

    def _acceptor(self) -> Any:
        graph = self._graph
        labels = np.where(graph.senone < 0, -1, graph.senone + 1).astype(np.int32)
        scores = torch.from_numpy(graph.score + self._penalty * graph.words_per_output()[graph.output])
        columns = [torch.from_numpy(column) for column in (graph.src, graph.dst, labels)]
        fsa = k2.Fsa(torch.stack([*columns, scores.float().view(torch.int32)], 1).contiguous())
        fsa.aux_labels = torch.from_numpy(np.where(graph.senone < 0, -1, graph.output).astype(np.int32))
        fsa.graph_scores = scores.float()  # a float attribute: k2 carries it to the lattice's arcs
        return fsa

    def decode(self, loglikes: Sequence[np.ndarray]) -> list[Hypothesis]:
        """The best path of each utterance."""
        check_loglikes(loglikes, self._graph)
        hypotheses = self._of_lattices(loglikes, self._best)
        for number, hypothesis in enumerate(hypotheses):
            if hypothesis.failed:
                lattice = self._retry(loglikes[number])
                hypotheses[number] = replace(self._best(lattice)[0], retried=True) if lattice else NO_PATH
        return hypotheses

    def decode_grid(
        self, loglikes: Sequence[np.ndarray], scales: Sequence[float], penalties: Sequence[float]
    ) -> list[Grid]:
        """From one lattice per utterance, made at this decoder's scale."""
        self._check_no_penalty()
        check_loglikes(loglikes, self._graph)
        grids = self._of_lattices(loglikes, lambda lattice: self._grid(lattice, scales, penalties))
        for number, grid in enumerate(grids):
            if not grid:
                lattice = self._retry(loglikes[number])
                grids[number] = self._grid(lattice, scales, penalties)[0] if lattice else empty_grid(scales, penalties)
        return grids

    def nbest(self, loglikes: Sequence[np.ndarray], draws: int, size: int) -> list[NBest]:
        """The best path, and word sequences that many of `draws` paths drawn from the lattice have.

        Drawing uses no random numbers: the same lattice gives the same paths.
        """
        self._check_no_penalty()
        check_loglikes(loglikes, self._graph)
        lists = self._of_lattices(loglikes, lambda lattice: self._draw(lattice, draws, size))
        for number, hypotheses in enumerate(lists):
            if not hypotheses.words and (lattice := self._retry(loglikes[number])):
                lists[number] = self._draw(lattice, draws, size)[0]
        return lists

    def _check_no_penalty(self) -> None:
        if self._penalty:
            raise ValueError(f"the scores of a lattice cannot be taken apart at a word penalty of {self._penalty:g}")

    def _draw(self, lattice: Any, draws: int, size: int) -> list[NBest]:
        """Word sequences among paths drawn at random, each with the scores of its best path.

        A drawn path has its words at random times: its own score would be far below that of its words.
        """
        total, graph = lattice.scores.double().numpy(), lattice.graph_scores.double().numpy()  # copies
        outputs = lattice.aux_labels.numpy()
        best = [
            tuple(output for output in path if output > 0) if end > begin else None
            for path, begin, end in self._outputs(k2.shortest_path(lattice, use_double_scores=True))
        ]
        lattice.scores = _FLATTENING * lattice.scores
        drawn = k2.random_paths(lattice, use_double_scores=True, num_paths=draws).tolist()
        ends = lattice.arcs.row_splits(2)[lattice.arcs.row_splits(1).long()].tolist()
        states = lattice.arcs.values()[:, :2].numpy()  # counted from each utterance's first
        lists = []
        for likeliest, paths, (begin, end) in zip(best, drawn, itertools.pairwise(ends), strict=True):
            counts = Counter(tuple(outputs[path][outputs[path] > 0].tolist()) for path in paths)
            frequent = [likeliest, *(sequence for sequence, _ in counts.most_common())] if likeliest is not None else []
            sequences = list(dict.fromkeys(frequent))[: 2 * size]
            arcs = slice(begin, end)
            src, dst = states[arcs, 0], states[arcs, 1]
            sums = best_scores(src, dst, outputs[arcs], total[arcs], graph[arcs], sequences)
            lists.append(self._ranked(sequences, sums, size))
        return lists

    def _ranked(self, sequences: Sequence[Sequence[int]], sums: np.ndarray, size: int) -> NBest:
        """The likeliest word sequences. An output can be several words: some of `sequences` may read the same."""
        scores: dict[tuple[str, ...], tuple[float, float]] = {}
        for sequence, (total, graph) in zip(sequences, sums.tolist(), strict=True):
            words = self._graph.spell(sequence)
            scores[words] = max(scores.get(words, (-np.inf, 0.0)), (total, graph))
        ranked = sorted(scores.items(), key=lambda item: item[1], reverse=True)[:size]
        table = np.array([both for _, both in ranked]).reshape(-1, 2)
        acoustic = (table[:, 0] - table[:, 1]) / self._scale
        return NBest(tuple(words for words, _ in ranked), acoustic, table[:, 1])

    def _of_lattices(self, loglikes: Sequence[np.ndarray], function: Callable[[Any], list[T]]) -> list[T]:
        """What `function` gives for the lattices of all utterances, in their order.

        They are searched in batches of similar length, longest first.
        """
        results: dict[int, T] = {}
        order = sorted(range(len(loglikes)), key=lambda number: -len(loglikes[number]))
        settings = self._settings
        while order:
            size = max(1, MAX_FRAMES // len(loglikes[order[0]]))
            batch, order = order[:size], order[size:]
            arrays = [loglikes[number] for number in batch]
            lattices = self._intersect(arrays, settings.search_beam, settings.max_active)
            results.update(zip(batch, function(lattices), strict=True))
        return [results[number] for number in range(len(loglikes))]

    def _retry(self, loglike: np.ndarray) -> Any | None:
        """A lattice of one utterance at the first of the wider beams that finds a path."""
        for beam in self._settings.retry_beams:
            lattice = self._intersect([loglike], beam, 10 * self._settings.max_active)
            if lattice.num_arcs:
                return lattice
        return None

    def _intersect(self, loglikes: list[np.ndarray], search_beam: float, max_active: int) -> Any:
        lengths = [len(array) for array in loglikes]
        scores = torch.full((len(loglikes), max(lengths), self._graph.num_senones + 1), _IMPOSSIBLE)
        for row, array in enumerate(loglikes):
            scores[row, : len(array), 1:] = torch.from_numpy(array) * self._scale
        segments = torch.tensor([[row, 0, length] for row, length in enumerate(lengths)], dtype=torch.int32)
        return k2.intersect_dense_pruned(
            self._fsa,
            k2.DenseFsaVec(scores, segments),
            search_beam=search_beam,
            output_beam=self._settings.output_beam,
            min_active_states=self._settings.min_active,
            max_active_states=max_active,
        )

    def _best(self, lattice: Any) -> list[Hypothesis]:
        paths = k2.shortest_path(lattice, use_double_scores=True)
        scores = paths.scores.double()
        return [
            Hypothesis(self._graph.spell(outputs), float(scores[begin:end].sum()) if end > begin else -np.inf)
            for outputs, begin, end in self._outputs(paths)
        ]

    def _grid(self, lattice: Any, scales: Sequence[float], penalties: Sequence[float]) -> list[Grid]:
        """Per utterance of the lattice; () where it has no path."""
        graph_scores = lattice.graph_scores
        acoustic = (lattice.scores - graph_scores) / self._scale
        words = self._words_per_output[lattice.aux_labels.clamp(min=0).long()]
        grids: list[list[list[tuple[str, ...]]]] = []
        for scale in scales:
            for column, penalty in enumerate(penalties):
                lattice.scores = graph_scores + scale * acoustic + penalty * words
                paths = self._outputs(k2.shortest_path(lattice, use_double_scores=True))
                if not grids:
                    grids = [[] for _ in paths]
                for grid, (outputs, begin, end) in zip(grids, paths, strict=True):
                    if end > begin:
                        if column == 0:
                            grid.append([])
                        grid[-1].append(self._graph.spell(outputs))
        return [tuple(tuple(row) for row in grid) for grid in grids]

    @staticmethod
    def _outputs(paths: Any) -> list[tuple[list[int], int, int]]:
        """Of each linear path of a k2.FsaVec: its arcs' outputs, the first arc, the one after the last."""
        states = paths.arcs.row_splits(1)
        arcs = paths.arcs.row_splits(2)
        ends = arcs[states.long()].tolist()
        outputs = paths.aux_labels.tolist()
        return [(outputs[begin:end], begin, end) for begin, end in itertools.pairwise(ends)]
