"""Our own decoder: the beam search of `beam_search` behind the interface of all decoders, and over streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from asr_kd.decoding.beam_search import Beams, BeamSearch, SearchGraph
from asr_kd.decoding.confidence import sample_paths
from asr_kd.decoding.decoder import (
    NO_PATH,
    Grid,
    Hypothesis,
    NBest,
    OneByOne,
    check_loglikes,
    check_no_penalty,
    empty_grid,
)
from asr_kd.decoding.fst_io import Lattice, with_one_end
from asr_kd.decoding.graph import Graph
from asr_kd.decoding.nbest import FLATTENING, most_drawn, ranked
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.decoding.word_paths import best_outputs, best_scores, words_at


class NativeDecoder(OneByOne):
    """See `LatticeDecoder`; the arguments are those of K2Decoder."""

    def __init__(self, graph: Graph, settings: DecodingConfig, *, acoustic_scale: float, word_penalty: float = 0.0):
        super().__init__(graph, settings, acoustic_scale, word_penalty)
        self._arcs = SearchGraph(graph, word_penalty)
        self._ordinary = Beams(settings.search_beam, settings.max_active, settings.min_active)
        self._search = BeamSearch(self._arcs, self._ordinary)

    def nbest(self, loglikes: Sequence[np.ndarray], draws: int, size: int) -> list[NBest]:
        """The best path, and word sequences that many of `draws` paths drawn from the lattice have."""
        check_no_penalty(self._penalty)
        check_loglikes(loglikes, self._graph)
        return [self._nbest(array, draws, size) for array in loglikes]

    def lattice(self, loglike: np.ndarray) -> Lattice | None:
        """The lattice of one utterance, within `output_beam` of its best path; None where no path was found."""
        return self._lattice_of(self._found(loglike)[1], loglike)

    def decode_with_lattice(self, loglike: np.ndarray) -> tuple[Hypothesis, Lattice | None]:
        """What `decode` and `lattice` say of one utterance, by one search."""
        check_loglikes([loglike], self._graph)
        hypothesis, search = self._found(loglike)
        return hypothesis, self._lattice_of(search, loglike)

    def stream(self) -> NativeStream:
        """A search that gets its frames little by little."""
        return NativeStream(self)

    def new_search(self, beams: Beams | None = None) -> BeamSearch:
        """Returns a search with memory of its own; `beams` None: with the ordinary beams."""
        return BeamSearch(self._arcs, beams or self._ordinary)

    def advance(self, search: BeamSearch, loglikes: np.ndarray) -> None:
        """(L, C) log-likelihoods of the next frames of a search; raises as `decode`."""
        check_loglikes([loglikes], self._graph)
        search.advance(loglikes * np.float32(self._scale))

    def hypothesis(self, arcs: NDArray[np.int32], loglikes: np.ndarray) -> Hypothesis:
        """Returns the words and the score of a path through the graph.

        Args:
          arcs: (T,); none: no path was found.
          loglikes: (T, C) not scaled.
        """
        if not len(arcs):
            return NO_PATH
        acoustic = loglikes[np.arange(len(arcs)), self.senones_of(arcs)].sum(dtype=np.float64)
        final = self._arcs.final[self._arcs.arcs[arcs[-1], 0]]
        graph = self._arcs.scores[arcs, 2].sum(dtype=np.float64) + (final if np.isfinite(final) else 0.0)
        return Hypothesis(self.words_of(arcs), float(graph + self._scale * acoustic))

    def words_of(self, arcs: NDArray[np.int32]) -> tuple[str, ...]:
        """Returns the words of a path through the graph."""
        return self._graph.spell(self._arcs.arcs[arcs, 3].tolist())

    def senones_of(self, arcs: NDArray[np.int32]) -> NDArray[np.int32]:
        """Returns the (T,) senones of a path through the graph."""
        return self._arcs.arcs[arcs, 1]

    def _all_beams(self) -> list[Beams]:
        """Yields the ordinary beams, then the wider ones that `retry_beams` asks for."""
        settings = self._settings
        wider = (Beams(beam, 10 * settings.max_active, settings.min_active) for beam in settings.retry_beams)
        return [self._ordinary, *wider]

    def _searched(self, loglike: np.ndarray, beams: Beams) -> BeamSearch:
        search = self._search if beams == self._ordinary else self.new_search(beams)
        search.restart()
        search.advance(loglike * np.float32(self._scale))
        return search

    def _found(self, loglike: np.ndarray) -> tuple[Hypothesis, BeamSearch | None]:
        """The best path, and the search that came to an end."""
        for number, beams in enumerate(self._all_beams()):
            search = self._searched(loglike, beams)
            hypothesis = self.hypothesis(search.best(final=True), loglike)
            if not hypothesis.failed:
                return replace(hypothesis, retried=number > 0), search
        return NO_PATH, None

    def _lattice_of(self, search: BeamSearch | None, loglike: np.ndarray) -> Lattice | None:
        return None if search is None else self.lattice_so_far(search, loglike)

    def lattice_so_far(self, search: BeamSearch, loglikes: np.ndarray) -> Lattice | None:
        """Returns the lattice of a search that has seen these frames; None where no path may end here.

        Args:
          loglikes: (T, C) not scaled.
        """
        return search.lattice(loglikes * np.float32(self._scale), self._settings.output_beam)

    def _decode(self, loglike: np.ndarray) -> Hypothesis:
        return self._found(loglike)[0]

    def _nbest(self, loglike: np.ndarray, draws: int, size: int) -> NBest:
        lattice = self.lattice(loglike)
        if lattice is None:
            return NBest((), np.empty(0), np.empty(0))
        flat = replace(
            lattice, **{part: FLATTENING * getattr(lattice, part) for part in ("graph", "acoustic", "final")}
        )
        paths = sample_paths(flat, draws, np.random.default_rng(0))
        (best,) = best_outputs(lattice, np.zeros(len(lattice.output), np.float32), [(1.0, 0.0)])
        sequences = most_drawn(best, (lattice.output[path] for path in paths), 2 * size)
        closed = with_one_end(lattice)
        graph, acoustic = -closed.graph.astype(np.float64), -closed.acoustic.astype(np.float64)
        sums = best_scores(closed.src, closed.dst, closed.output, graph + acoustic, graph, sequences)
        return ranked(sequences, sums, self._graph, self._scale, size)

    def _grid(self, loglike: np.ndarray, scales: Sequence[float], penalties: Sequence[float]) -> Grid:
        lattice = self.lattice(loglike)
        if lattice is None:
            return empty_grid(scales, penalties)
        return words_at(lattice, self._graph, [scale / self._scale for scale in scales], penalties)


class NativeStream:
    """The ordinary search of a `NativeDecoder`, over frames that come in portions."""

    def __init__(self, decoder: NativeDecoder) -> None:
        self._decoder, self._search = decoder, decoder.new_search()
        self.restart()

    def restart(self) -> None:
        """Forgets all frames."""
        self._portions: list[np.ndarray] = []
        self._search.restart()

    @property
    def num_frames(self) -> int:
        return self._search.num_frames

    @property
    def loglikes(self) -> np.ndarray:
        """(T, C) of all frames since it began; at least one."""
        return np.concatenate(self._portions)

    def accept(self, loglikes: np.ndarray) -> None:
        """(L, C) log-likelihoods of the next frames."""
        self._decoder.advance(self._search, loglikes)
        self._portions.append(loglikes)

    def best(self, *, final: bool = False) -> tuple[tuple[str, ...], np.ndarray]:
        """The words of the best path so far, and its (T,) senones; nothing where no path is left.

        Args:
          final: only paths that end at the end of a word or in silence; where there is none, any.
        """
        arcs = self._path(final=final)
        return self._decoder.words_of(arcs), self._decoder.senones_of(arcs)

    def finish(self) -> Hypothesis:
        """The best path to a final state; where the beam has lost all of them, the best one wherever it ends.

        There is no second search, as `NativeDecoder.decode` makes: its wider beams take long on a large graph, while
        somebody speaks. `restart` comes next.
        """
        return self._decoder.hypothesis(self._path(final=True), self.loglikes) if self._portions else NO_PATH

    def lattice(self) -> Lattice | None:
        """Returns the lattice of the frames so far; None where no path may end here.

        It is as `NativeDecoder.lattice` makes it, without a wider search.
        """
        return self._decoder.lattice_so_far(self._search, self.loglikes) if self._portions else None

    def _path(self, *, final: bool) -> NDArray[np.int32]:
        arcs = self._search.best(final=final)
        return arcs if len(arcs) or not final else self._search.best(final=False)
