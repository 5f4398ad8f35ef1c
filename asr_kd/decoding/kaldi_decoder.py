"""Decoding with kaldi-decoder's FasterDecoder on the same graph: no k2 needed, and a check of k2's answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import kaldi_decoder
import kaldifst
import numpy as np

from asr_kd.decoding.decoder import Grid, Hypothesis, check_loglikes
from asr_kd.decoding.fst_io import Fst, to_kaldifst
from asr_kd.decoding.graph import Graph
from asr_kd.workspace.config import DecodingConfig


class KaldiDecoder:
    """See `Decoder`; the arguments are those of K2Decoder."""

    def __init__(self, graph: Graph, settings: DecodingConfig, *, acoustic_scale: float, word_penalty: float = 0.0):
        self._graph, self._settings = graph, settings
        self._scale, self._penalty = acoustic_scale, word_penalty
        self._fst = to_kaldifst(decoding_fst(graph, word_penalty))

    def decode(self, loglikes: Sequence[np.ndarray]) -> list[Hypothesis]:
        check_loglikes(loglikes, self._graph)
        return [self._decode(array) for array in loglikes]

    def decode_grid(
        self, loglikes: Sequence[np.ndarray], scales: Sequence[float], penalties: Sequence[float]
    ) -> list[Grid]:
        """One search for each pair of scales: this back end keeps no lattice."""
        decoders = [
            [KaldiDecoder(self._graph, self._settings, acoustic_scale=s, word_penalty=p) for p in penalties]
            for s in scales
        ]
        found = [[[h.words for h in decoder.decode(loglikes)] for decoder in row] for row in decoders]
        return [tuple(tuple(cell[number] for cell in row) for row in found) for number in range(len(loglikes))]

    def _decode(self, loglike: np.ndarray) -> Hypothesis:
        scaled = np.ascontiguousarray(loglike * np.float32(self._scale), np.float32)
        settings = self._settings
        hypothesis = self._search(scaled, settings.search_beam, settings.max_active)
        for beam in settings.retry_beams:
            if hypothesis is None:
                hypothesis = self._search(scaled, beam, 10 * settings.max_active, retried=True)
        return hypothesis or Hypothesis((), -np.inf, retried=True)

    def _search(self, scaled: np.ndarray, beam: float, max_active: int, retried: bool = False) -> Hypothesis | None:
        if not len(scaled):
            return None
        options = kaldi_decoder.FasterDecoderOptions(
            beam=beam, max_active=max_active, min_active=self._settings.min_active
        )
        search = kaldi_decoder.FasterDecoder(self._fst, options)
        search.decode(kaldi_decoder.DecodableCtc(scaled))
        if not search.reached_final():
            return None
        found, path = search.get_best_path()
        if not found:
            return None
        _, _, outputs, weight = kaldifst.get_linear_symbol_sequence(path)
        return Hypothesis(self._graph.spell(outputs), -_cost(weight), retried)


def _cost(weight: Any) -> float:
    """Of a tropical weight, or of a lattice weight (graph and acoustic cost apart)."""
    value = getattr(weight, "value", None)
    if value is not None:
        return float(value() if callable(value) else value)
    parts = (getattr(weight, name) for name in ("value1", "value2"))
    return sum(float(part() if callable(part) else part) for part in parts)


def decoding_fst(graph: Graph, word_penalty: float = 0.0) -> Fst:
    """The graph with final weights for its final arcs, costs for scores and input labels from 1."""
    real = graph.pdf >= 0
    final = np.full(graph.num_states, np.inf, np.float32)
    final[graph.src[~real]] = -graph.score[~real]
    cost = -(graph.score + word_penalty * graph.words_per_output()[graph.output])[real]
    return Fst(
        graph.src[real], graph.dst[real], graph.pdf[real] + 1, graph.output[real], cost.astype(np.float32), final, 0
    )
