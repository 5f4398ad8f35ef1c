"""Decoding with k2: pruned intersection of the graph with the log-likelihoods, then the best path of the lattice.

Graph and acoustic scores stay apart on the lattice, so that other scales can be tried without another search.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

# isort: split
import k2  # after torch, whose libraries it needs

from asr_kd.decoding.decoder import (
    NO_PATH,
    Grid,
    Hypothesis,
    NBest,
    check_loglikes,
    check_no_penalty,
    empty_grid,
)
from asr_kd.decoding.graph import Graph
from asr_kd.decoding.nbest import FLATTENING, most_drawn, ranked
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.decoding.word_paths import best_scores

MAX_FRAMES = 4000  # of a batch, padding included: on a CPU larger batches are no faster and take more memory
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
        scores = torch.from_numpy(graph.scores_with(self._penalty))
        columns = [torch.from_numpy(column) for column in (graph.src, graph.dst, labels)]
        fsa = k2.Fsa(torch.stack([*columns, scores.float().view(torch.int32)], 1).contiguous())
        fsa.aux_labels = torch.from_numpy(np.where(graph.senone < 0, -1, graph.output).astype(np.int32))
        fsa.graph_scores = scores.float()  # a float attribute: k2 carries it to the lattice's arcs
        return fsa

    def decode(self, loglikes: Sequence[np.ndarray]) -> list[Hypothesis]:
        """The best path of each utterance."""
        results = self._of_lattices(loglikes, self._best)
        return [replace(best, retried=retried) if best else NO_PATH for best, retried in results]

    def decode_grid(
        self, loglikes: Sequence[np.ndarray], scales: Sequence[float], penalties: Sequence[float]
    ) -> list[Grid]:
        """Returns each utterance's words at each scale and penalty, from one lattice made at this decoder's scale."""
        check_no_penalty(self._penalty)
        results = self._of_lattices(loglikes, lambda lattice: self._grid(lattice, scales, penalties))
        return [grid or empty_grid(scales, penalties) for grid, _ in results]

    def nbest(self, loglikes: Sequence[np.ndarray], draws: int, size: int) -> list[NBest]:
        """The best path, and word sequences that many of `draws` paths drawn from the lattice have.

        Drawing uses no random numbers: the same lattice gives the same paths.
        """
        check_no_penalty(self._penalty)
        results = self._of_lattices(loglikes, lambda lattice: self._draw(lattice, draws, size))
        return [hypotheses or NBest((), np.empty(0), np.empty(0)) for hypotheses, _ in results]

    def _draw(self, lattice: Any, draws: int, size: int) -> list[NBest | None]:
        """Word sequences among paths drawn at random, each with the scores of its best path.

        A drawn path has its words at random times: its own score would be far below that of its words.
        """
        total, graph = lattice.scores.double().numpy(), lattice.graph_scores.double().numpy()  # copies
        outputs = lattice.aux_labels.numpy()
        best_paths = self._outputs(k2.shortest_path(lattice, use_double_scores=True))
        lattice.scores = FLATTENING * lattice.scores
        drawn = k2.random_paths(lattice, use_double_scores=True, num_paths=draws).tolist()
        states = lattice.arcs.values()[:, :2].numpy()  # counted from each utterance's first
        lists: list[NBest | None] = []
        for (best, _), paths, arcs in zip(best_paths, drawn, _arcs_of_each(lattice), strict=True):
            if not best:
                lists.append(None)
                continue
            sequences = most_drawn(best, (outputs[path] for path in paths), 2 * size)
            src, dst = states[arcs, 0], states[arcs, 1]
            sums = best_scores(src, dst, outputs[arcs], total[arcs], graph[arcs], sequences)
            lists.append(ranked(sequences, sums, self._graph, self._scale, size))
        return lists

    def _of_lattices(
        self, loglikes: Sequence[np.ndarray], function: Callable[[Any], Sequence[T | None]]
    ) -> list[tuple[T | None, bool]]:
        """What `function` gives for the lattice of each utterance, and whether that was made at a wider beam.

        They are searched in batches of similar length, longest first. One without a path, for which `function` gives
        None, is searched again, alone, up to the first of the wider beams that finds one.
        """
        check_loglikes(loglikes, self._graph)
        results: list[tuple[T | None, bool]] = [(None, True)] * len(loglikes)
        order = sorted(range(len(loglikes)), key=lambda number: -len(loglikes[number]))
        settings = self._settings
        while order:
            size = max(1, MAX_FRAMES // len(loglikes[order[0]]))
            batch, order = order[:size], order[size:]
            lattices = self._intersect([loglikes[n] for n in batch], settings.search_beam, settings.max_active)
            for number, result in zip(batch, function(lattices), strict=True):
                results[number] = result, False
        for number in [number for number, (result, _) in enumerate(results) if result is None]:
            for beam in settings.retry_beams:
                (result,) = function(self._intersect([loglikes[number]], beam, 10 * settings.max_active))
                results[number] = result, True
                if result is not None:
                    break
        return results

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

    def _best(self, lattice: Any) -> list[Hypothesis | None]:
        paths = k2.shortest_path(lattice, use_double_scores=True)
        scores = paths.scores.double()
        return [
            Hypothesis(self._graph.spell(outputs), float(scores[arcs].sum())) if outputs else None
            for outputs, arcs in self._outputs(paths)
        ]

    def _grid(self, lattice: Any, scales: Sequence[float], penalties: Sequence[float]) -> list[Grid | None]:
        graph_scores = lattice.graph_scores
        acoustic = (lattice.scores - graph_scores) / self._scale
        words = self._words_per_output[lattice.aux_labels.clamp(min=0).long()]
        points = []
        for scale, penalty in itertools.product(scales, penalties):
            lattice.scores = graph_scores + scale * acoustic + penalty * words
            paths = self._outputs(k2.shortest_path(lattice, use_double_scores=True))
            points.append([self._graph.spell(outputs) if outputs else None for outputs, _ in paths])
        rows = range(0, len(points), len(penalties))
        return [
            tuple(answers[row : row + len(penalties)] for row in rows) if answers[0] is not None else None
            for answers in zip(*points, strict=True)
        ]

    @staticmethod
    def _outputs(paths: Any) -> list[tuple[list[int], slice]]:
        """Returns the outputs on each linear path of a k2.FsaVec (none: no path was found), and the path's arcs."""
        outputs = paths.aux_labels.tolist()
        return [(outputs[arcs], arcs) for arcs in _arcs_of_each(paths)]


def _arcs_of_each(fsas: Any) -> list[slice]:
    """The arcs of each acceptor of a k2.FsaVec."""
    ends = fsas.arcs.row_splits(2)[fsas.arcs.row_splits(1).long()].tolist()
    return [slice(begin, end) for begin, end in itertools.pairwise(ends)]
