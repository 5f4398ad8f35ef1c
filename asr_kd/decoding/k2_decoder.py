"""Decoding with k2: pruned intersection of the graph with the log-likelihoods, then the best path of the lattice.

Graph and acoustic scores stay apart on the lattice, so that other scales can be tried without another search.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from asr_kd.decoding.decoder import Grid, Hypothesis, NBest, check_loglikes
from asr_kd.decoding.graph import Graph
from asr_kd.decoding.word_paths import best_scores
from asr_kd.errors import UserError
from asr_kd.workspace.config import DecodingConfig

MAX_FRAMES = 4000  # of a batch, padding included: on a CPU larger ones win nothing and only take memory
_FLATTER = 0.5  # of a lattice's scores while paths are drawn: the likeliest would come again and again
_IMPOSSIBLE = -1e9  # the score of epsilon and of padding


def import_k2() -> Any:
    """The module k2.

    Raises:
      UserError: it is not installed or cannot be loaded; the message says what mends it.
    """
    try:
        import k2  # after torch, whose libraries it needs
    except Exception as error:  # a wheel of another torch or Python fails in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"k2 cannot be loaded ({reason}): install the one of requirements.lock with "
            "`pip install --require-hashes -r requirements.lock` (Python 3.10), or a wheel for your torch from "
            "https://k2-fsa.github.io/k2/installation; decoding works without it by --decoder kaldi."
        ) from None
    return k2


class K2Decoder:
    """See `Decoder`.

    Args:
      graph: HCLG.
      settings: beams.
      acoustic_scale: factor of the log-likelihoods.
      word_penalty: added to the score of each word.
    """

    def __init__(self, graph: Graph, settings: DecodingConfig, *, acoustic_scale: float, word_penalty: float = 0.0):
        self._k2 = import_k2()
        self._graph, self._settings = graph, settings
        self._scale, self._penalty = acoustic_scale, word_penalty
        self._words_per_output = torch.from_numpy(graph.words_per_output())
        self._fsa = self._acceptor()

    def _acceptor(self) -> Any:
        graph = self._graph
        labels = np.where(graph.pdf < 0, -1, graph.pdf + 1).astype(np.int32)
        scores = torch.from_numpy(graph.score + self._penalty * graph.words_per_output()[graph.output])
        columns = [torch.from_numpy(column) for column in (graph.src, graph.dst, labels)]
        fsa = self._k2.Fsa(torch.stack([*columns, scores.float().view(torch.int32)], 1).contiguous())
        fsa.aux_labels = torch.from_numpy(np.where(graph.pdf < 0, -1, graph.output).astype(np.int32))
        fsa.graph_scores = scores.float()  # a float attribute: it is carried to the lattice's arcs
        return fsa

    def decode(self, loglikes: Sequence[np.ndarray]) -> list[Hypothesis]:
        check_loglikes(loglikes, self._graph)
        found: dict[int, Hypothesis] = {}
        for batch, lattice in self._lattices(loglikes):
            found.update(zip(batch, self._best(lattice), strict=True))
        for number, hypothesis in found.items():
            if hypothesis.failed:
                lattice = self._retry(loglikes[number])
                found[number] = self._best(lattice, True)[0] if lattice else Hypothesis((), -np.inf, True)
        return [found[number] for number in range(len(loglikes))]

    def decode_grid(
        self, loglikes: Sequence[np.ndarray], scales: Sequence[float], penalties: Sequence[float]
    ) -> list[Grid]:
        """From one lattice per utterance, made at this decoder's scale; its word penalty must be 0."""
        if self._penalty:
            raise ValueError("a grid of word penalties needs a decoder whose own is 0")
        check_loglikes(loglikes, self._graph)
        found: dict[int, Grid] = {}
        for batch, lattice in self._lattices(loglikes):
            found.update(zip(batch, self._grid(lattice, scales, penalties), strict=True))
        for number, grid in found.items():
            if not grid:
                lattice = self._retry(loglikes[number])
                nothing = (((),) * len(penalties),) * len(scales)
                found[number] = self._grid(lattice, scales, penalties)[0] if lattice else nothing
        return [found[number] for number in range(len(loglikes))]

    def nbest(self, loglikes: Sequence[np.ndarray], draws: int, most: int) -> list[NBest]:
        """The best path of each utterance, and word sequences that `draws` paths drawn from its lattice have often.

        The `most` likeliest of them are kept; their scores are those of the best path that has just these words.

        Drawing needs no random numbers: the same lattice gives the same paths. The decoder's word penalty must be 0.
        """
        if self._penalty:
            raise ValueError("a list of hypotheses needs a decoder whose word penalty is 0")
        check_loglikes(loglikes, self._graph)
        found: dict[int, NBest] = {}
        for batch, lattice in self._lattices(loglikes):
            found.update(zip(batch, self._draw(lattice, draws, most), strict=True))
        for number, one in found.items():
            if not one.words and (lattice := self._retry(loglikes[number])):
                found[number] = self._draw(lattice, draws, most)[0]
        return [found[number] for number in range(len(loglikes))]

    def _draw(self, lattice: Any, draws: int, most: int) -> list[NBest]:
        """Word sequences among paths drawn at random, each with the scores of its best path.

        A drawn path has its words at random times, so that its own score would be far below that of its words.
        """
        total, graph = lattice.scores.double().numpy(), lattice.graph_scores.double().numpy()  # copies
        outputs = lattice.aux_labels.numpy()
        best = [
            tuple(output for output in path if output > 0) if end > begin else None
            for path, begin, end in self._outputs(self._k2.shortest_path(lattice, use_double_scores=True))
        ]
        lattice.scores = _FLATTER * lattice.scores
        drawn = self._k2.random_paths(lattice, use_double_scores=True, num_paths=draws).tolist()
        ends = lattice.arcs.row_splits(2)[lattice.arcs.row_splits(1).long()].tolist()
        states = lattice.arcs.values()[:, :2].numpy()  # counted from each utterance's first
        lists = []
        for likeliest, paths, (begin, end) in zip(best, drawn, itertools.pairwise(ends), strict=True):
            counts = Counter(tuple(outputs[path][outputs[path] > 0].tolist()) for path in paths)
            often = [likeliest, *(sequence for sequence, _ in counts.most_common())] if likeliest is not None else []
            sequences = list(dict.fromkeys(often))[: 2 * most]
            mine = slice(begin, end)
            src, dst = states[mine, 0], states[mine, 1]
            sums = best_scores(src, dst, outputs[mine], total[mine], graph[mine], sequences)
            lists.append(self._ranked(sequences, sums, most))
        return lists

    def _ranked(self, sequences: Sequence[Sequence[int]], sums: np.ndarray, most: int) -> NBest:
        """The likeliest word sequences. An output can be several words: some of `sequences` may read the same."""
        heard: dict[tuple[str, ...], tuple[float, float]] = {}
        for sequence, (total, graph) in zip(sequences, sums.tolist(), strict=True):
            words = self._graph.spell(sequence)
            heard[words] = max(heard.get(words, (-np.inf, 0.0)), (total, graph))
        ranked = sorted(heard.items(), key=lambda item: item[1], reverse=True)[:most]
        scores = np.array([both for _, both in ranked]).reshape(-1, 2)
        acoustic = (scores[:, 0] - scores[:, 1]) / self._scale
        return NBest(tuple(words for words, _ in ranked), acoustic, scores[:, 1])

    def _lattices(self, loglikes: Sequence[np.ndarray]) -> Iterator[tuple[list[int], Any]]:
        """Batches of utterances of similar length, longest first, with their lattices."""
        order = sorted(range(len(loglikes)), key=lambda number: -len(loglikes[number]))
        while order:
            size = max(1, MAX_FRAMES // len(loglikes[order[0]]))
            batch, order = order[:size], order[size:]
            settings = self._settings
            yield (
                batch,
                self._intersect(
                    [loglikes[number] for number in batch],
                    settings.search_beam,
                    settings.output_beam,
                    settings.max_active,
                ),
            )

    def _retry(self, loglike: np.ndarray) -> Any | None:
        """A lattice of one utterance at the first of the wider beams that finds a path."""
        for beam in self._settings.retry_beams:
            lattice = self._intersect([loglike], beam, self._settings.output_beam, 10 * self._settings.max_active)
            if lattice.num_arcs:
                return lattice
        return None

    def _intersect(self, loglikes: list[np.ndarray], search_beam: float, output_beam: float, max_active: int) -> Any:
        lengths = [len(array) for array in loglikes]
        scores = torch.full((len(loglikes), max(lengths), self._graph.num_senones + 1), _IMPOSSIBLE)
        for row, array in enumerate(loglikes):
            scores[row, : len(array), 1:] = torch.from_numpy(array) * self._scale
        segments = torch.tensor([[row, 0, length] for row, length in enumerate(lengths)], dtype=torch.int32)
        return self._k2.intersect_dense_pruned(
            self._fsa,
            self._k2.DenseFsaVec(scores, segments),
            search_beam=search_beam,
            output_beam=output_beam,
            min_active_states=self._settings.min_active,
            max_active_states=max_active,
        )

    def _best(self, lattice: Any, retried: bool = False) -> list[Hypothesis]:
        paths = self._k2.shortest_path(lattice, use_double_scores=True)
        result = []
        scores = paths.scores.double()
        for outputs, begin, end in self._outputs(paths):
            score = float(scores[begin:end].sum()) if end > begin else -np.inf
            result.append(Hypothesis(self._graph.spell(outputs), score, retried))
        return result

    def _grid(self, lattice: Any, scales: Sequence[float], penalties: Sequence[float]) -> list[Grid]:
        """Per utterance of the lattice; () where it has no path."""
        graph_scores = lattice.graph_scores
        acoustic = (lattice.scores - graph_scores) / self._scale
        words = self._words_per_output[lattice.aux_labels.clamp(min=0).long()]
        grids: list[list[list[tuple[str, ...]]]] = []
        for scale in scales:
            for column, penalty in enumerate(penalties):
                lattice.scores = graph_scores + scale * acoustic + penalty * words
                paths = self._outputs(self._k2.shortest_path(lattice, use_double_scores=True))
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
