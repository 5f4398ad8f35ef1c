"""Decoding with kaldi-decoder on the same graph: needs no k2, and is a check of the others' answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import kaldi_decoder
import kaldifst
import numpy as np

from asr_kd.decoding.decoder import NO_PATH, Grid, Hypothesis, OneByOne
from asr_kd.decoding.fst_io import Fst, Lattice, from_lattice, to_kaldifst
from asr_kd.decoding.graph import Graph
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.decoding.word_paths import words_at

LATTICE_BEAM = 15.0  # of a search for a lattice, which has no max_active; 12 costs a quarter but chose worse scales
SMALL_GRAPH = 5  # times max_active: with at most so many states no search needs a max_active


class KaldiDecoder(OneByOne):
    """See `Decoder`; the arguments are those of K2Decoder.

    Paths are found by FasterDecoder, lattices by LatticeSimpleDecoder; an utterance for which the latter finds no path
    is searched at each point of a grid.
    """

    def __init__(self, graph: Graph, settings: DecodingConfig, *, acoustic_scale: float, word_penalty: float = 0.0):
        super().__init__(graph, settings, acoustic_scale, word_penalty)
        self._fst = to_kaldifst(decoding_fst(graph, word_penalty))

    def lattice(self, loglike: np.ndarray) -> Lattice | None:
        """The lattice of one utterance, each arc a frame; None where no path was found."""
        beam, small = self._settings.search_beam, self._graph.num_states <= SMALL_GRAPH * self._settings.max_active
        options = kaldi_decoder.LatticeSimpleDecoderConfig(
            beam=beam if small else min(LATTICE_BEAM, beam),
            lattice_beam=self._settings.output_beam,
        )
        search = kaldi_decoder.LatticeSimpleDecoder(self._fst, options)
        if not search.decode(self._decodable(loglike)) or not np.isfinite(search.final_relative_cost()):
            return None
        _, lattice = search.get_raw_lattice()
        return from_lattice(lattice)

    def _grid(self, loglike: np.ndarray, scales: Sequence[float], penalties: Sequence[float]) -> Grid:
        lattice = self.lattice(loglike)
        if lattice is None:
            return self._search_grid(loglike, scales, penalties)
        return words_at(lattice, self._graph, [scale / self._scale for scale in scales], penalties)

    def _search_grid(self, loglike: np.ndarray, scales: Sequence[float], penalties: Sequence[float]) -> Grid:
        def words(scale: float, penalty: float) -> tuple[str, ...]:
            decoder = KaldiDecoder(self._graph, self._settings, acoustic_scale=scale, word_penalty=penalty)
            return decoder.decode([loglike])[0].words

        return tuple(tuple(words(scale, penalty) for penalty in penalties) for scale in scales)

    def _decode(self, loglike: np.ndarray) -> Hypothesis:
        decodable = self._decodable(loglike)
        settings = self._settings
        hypothesis = self._search(decodable, settings.search_beam, settings.max_active)
        for beam in settings.retry_beams:
            if hypothesis is None:
                hypothesis = self._search(decodable, beam, 10 * settings.max_active, retried=True)
        return hypothesis or NO_PATH

    def _search(self, decodable: Any, beam: float, max_active: int, retried: bool = False) -> Hypothesis | None:
        options = kaldi_decoder.FasterDecoderOptions(
            beam=beam, max_active=max_active, min_active=self._settings.min_active
        )
        search = kaldi_decoder.FasterDecoder(self._fst, options)
        search.decode(decodable)
        if not search.reached_final():
            return None
        success, path = search.get_best_path()
        if not success:
            return None
        _, _, outputs, weight = kaldifst.get_linear_symbol_sequence(path)
        return Hypothesis(self._graph.spell(outputs), -(weight.value1 + weight.value2), retried)

    def _decodable(self, loglike: np.ndarray) -> Any:
        return kaldi_decoder.DecodableCtc(np.ascontiguousarray(loglike * np.float32(self._scale), np.float32), 0)


def decoding_fst(graph: Graph, word_penalty: float = 0.0) -> Fst:
    """The graph with final weights in place of final arcs and the last state, costs for scores, input labels from 1."""
    real = graph.senone >= 0
    final = np.full(graph.num_states - 1, np.inf, np.float32)
    final[graph.src[~real]] = -graph.score[~real]
    cost = -graph.scores_with(word_penalty)[real]
    return Fst(graph.src[real], graph.dst[real], graph.senone[real] + 1, graph.output[real], cost, final)
