"""Decoding with kaldi-decoder on the same graph: needs no k2, and is a check of k2's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import kaldi_decoder
import kaldifst
import numpy as np

from asr_kd.decoding.decoder import NO_PATH, Grid, Hypothesis, check_loglikes, check_no_penalty
from asr_kd.decoding.fst_io import Fst, Lattice, from_lattice, to_kaldifst
from asr_kd.decoding.graph import Graph
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.decoding.word_paths import best_outputs

LATTICE_BEAM = 15.0  # of a search for a lattice, which has no max_active; 12 costs a quarter but chose worse scales
SMALL_GRAPH = 5  # times max_active: with at most so many states no search needs a max_active


class KaldiDecoder:
    """See `Decoder`; the arguments are those of K2Decoder."""

    def __init__(self, graph: Graph, settings: DecodingConfig, *, acoustic_scale: float, word_penalty: float = 0.0):
        self._graph, self._settings = graph, settings
        self._scale, self._penalty = acoustic_scale, word_penalty
        self._fst = to_kaldifst(decoding_fst(graph, word_penalty))

    def decode(self, loglikes: Sequence[np.ndarray]) -> list[Hypothesis]:
        """The best path of each utterance, by FasterDecoder."""
        check_loglikes(loglikes, self._graph)
        return [self._decode(array) for array in loglikes]

    def decode_grid(
        self, loglikes: Sequence[np.ndarray], scales: Sequence[float], penalties: Sequence[float]
    ) -> list[Grid]:
        """From one lattice per utterance, made at this decoder's scale by LatticeSimpleDecoder.

        An utterance for which it finds no path is searched at each point of the grid.
        """
        check_no_penalty(self._penalty)
        check_loglikes(loglikes, self._graph)
        return [self._grid(array, scales, penalties) for array in loglikes]

    def lattice(self, loglike: np.ndarray, widest: float | None = None) -> Lattice | None:
        """The lattice of one utterance, each arc a frame; None where no path was found.

        Args:
          widest: beam on a large graph, where the search's own is wider: this search has no bound on its active states.
            None: LATTICE_BEAM.
        """
        beam, small = self._settings.search_beam, self._graph.num_states <= SMALL_GRAPH * self._settings.max_active
        options = kaldi_decoder.LatticeSimpleDecoderConfig(
            beam=beam if small else min(LATTICE_BEAM if widest is None else widest, beam),
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
        words = self._graph.words_per_output()[lattice.output]
        points = [(scale / self._scale, penalty) for scale in scales for penalty in penalties]
        paths = iter(best_outputs(lattice, words, points))
        return tuple(tuple(self._graph.spell(next(paths)) for _ in penalties) for _ in scales)

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
        search = self._faster_decoder(beam, max_active)
        search.decode(decodable)
        best = _best(search, self._graph) if search.reached_final() else None
        return replace(best, retried=retried) if best else None

    def _faster_decoder(self, beam: float, max_active: int) -> Any:
        options = kaldi_decoder.FasterDecoderOptions(
            beam=beam, max_active=max_active, min_active=self._settings.min_active
        )
        return kaldi_decoder.FasterDecoder(self._fst, options)

    def _decodable(self, loglike: np.ndarray, first: int = 0) -> Any:
        """Args: first: number of the first frame."""
        return kaldi_decoder.DecodableCtc(np.ascontiguousarray(loglike * np.float32(self._scale), np.float32), first)

    def stream(self) -> KaldiStream:
        """A search that gets its frames little by little."""
        search = self._faster_decoder(self._settings.search_beam, self._settings.max_active)
        return KaldiStream(search, self._graph, self._decodable)


class KaldiStream:
    """The ordinary search of a `KaldiDecoder`, over frames that come in portions."""

    def __init__(self, search: Any, graph: Graph, decodable: Callable[[np.ndarray, int], Any]) -> None:
        self._search, self._graph, self._decodable = search, graph, decodable
        self.restart()

    def restart(self) -> None:
        """Forgets all frames."""
        self._portions: list[np.ndarray] = []
        self._search.init_decoding()

    @property
    def num_frames(self) -> int:
        return sum(map(len, self._portions))

    @property
    def loglikes(self) -> np.ndarray:
        """(T, C) of all frames since it began; at least one."""
        return np.concatenate(self._portions)

    def accept(self, loglikes: np.ndarray) -> None:
        """(L, C) log-likelihoods of the next frames."""
        check_loglikes([loglikes], self._graph)
        self._search.advance_decoding(self._decodable(loglikes, self.num_frames))
        self._portions.append(loglikes)

    def best(self, *, final: bool = False) -> tuple[tuple[str, ...], np.ndarray]:
        """The words of the best path so far, and its (T,) senones; nothing where no path is left.

        Args:
          final: only paths that end at the end of a word or in silence; where there is none, any.
        """
        success, path = self._search.get_best_path(use_final_probs=final)
        if not success or not self._portions:
            return (), np.zeros(0, np.int32)
        _, labels, outputs, _ = kaldifst.get_linear_symbol_sequence(path)
        return self._graph.spell(outputs), np.array(labels, np.int32) - 1

    def finish(self) -> Hypothesis:
        """The best path to a final state; where the beam has lost all of them, the best one wherever it ends.

        There is no second search, as `KaldiDecoder.decode` makes: its wider beams take minutes on a large graph, while
        somebody speaks. `restart` comes next.
        """
        return (_best(self._search, self._graph) if self._portions else None) or NO_PATH


def _best(search: Any, graph: Graph) -> Hypothesis | None:
    """The best path to a final state that a FasterDecoder has left; to any where it has left none of these."""
    success, path = search.get_best_path()
    if not success:
        return None
    _, _, outputs, weight = kaldifst.get_linear_symbol_sequence(path)
    return Hypothesis(graph.spell(outputs), -(weight.value1 + weight.value2))


def decoding_fst(graph: Graph, word_penalty: float = 0.0) -> Fst:
    """The graph with final weights in place of final arcs and the last state, costs for scores, input labels from 1."""
    real = graph.senone >= 0
    final = np.full(graph.num_states - 1, np.inf, np.float32)
    final[graph.src[~real]] = -graph.score[~real]
    cost = -(graph.score + word_penalty * graph.words_per_output()[graph.output])[real]
    return Fst(
        graph.src[real], graph.dst[real], graph.senone[real] + 1, graph.output[real], cost.astype(np.float32), final
    )
