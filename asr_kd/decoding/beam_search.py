"""Time-synchronous beam search over the arrays of a decoding graph, compiled by numba (token passing).

A token is the best path so far into a state. In each frame those that score lower than the best one by more than the
beam are dropped, and the worst of the others beyond `max_active`; the rest is expanded along its arcs. What survives is
kept with its predecessor: the best path is read from that at the end, and a second pass from the last frame to the
first gives the lattice of all paths within a beam of the best one.

The graph is epsilon-free, so a frame is one pass over the arcs of its tokens. That pass is bound by memory: of each
token it reads the place of its arcs, the arcs (16 bytes each), and of each arc within the beam the slot of its state.
Nothing here holds Python's lock.

Shapes:  T frames, C senones, S states and A arcs of the graph, K tokens that survive, N tokens of a frame before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_kd.decoding.fst_io import Lattice
from asr_kd.decoding.graph import Graph
from asr_kd.kernels import compiled

_BINS = 1024  # of the histogram that finds the score of the token at place max_active
_SLACK = np.float32(0.5)  # nats by which a beam that is not the ordinary one is wider in the next frame's first cutoff
_LARGEST = 1 << 30  # number of tokens after which the slots are cleared: they are int32


@dataclass(frozen=True)
class Beams:
    """How much a search keeps.

    Attributes:
      beam: nats below the best token of a frame.
      max_active: tokens of a frame; more only where they score nearly the same. min_active: about so many, whatever the
        beam.
    """

    beam: float
    max_active: int
    min_active: int


class SearchGraph:
    """The arrays of a graph as the search reads them; see `Graph`.

    Args:
      word_penalty: added to the score of each word.
    """

    def __init__(self, graph: Graph, word_penalty: float = 0.0) -> None:
        real = graph.senone >= 0
        score = graph.scores_with(word_penalty)
        self.num_states = graph.num_states - 1  # without the last one, which final arcs enter
        self.final = np.full(self.num_states, -np.inf, np.float32)
        self.final[graph.src[~real]] = score[~real]
        self.first = np.searchsorted(graph.src[real], np.arange(self.num_states + 1)).astype(np.int32)
        columns = graph.dst[real], graph.senone[real], score[real].view(np.int32), graph.output[real]
        self.arcs = np.stack(columns, axis=1)  # side by side: what is read of an arc comes with one line of memory

    @property
    def scores(self) -> NDArray[np.float32]:
        """(A, 4) of which column 2 has the arcs' scores."""
        return self.arcs.view(np.float32)


class BeamSearch:
    """A search that gets its frames little by little. It is for one thread at a time.

    Args:
      graph: several searches may share it, in any threads.
    """

    def __init__(self, graph: SearchGraph, beams: Beams) -> None:
        self._graph = graph
        self._limits = np.float32(beams.beam), beams.max_active, beams.min_active
        # state -> number of its token in this frame; of older frames something smaller
        self._slots = np.full(graph.num_states, -1, np.int32)
        # of a frame's tokens: state, the predecessor's place in the history, arc; score less the frame before's best
        self._tokens = np.empty((graph.num_states, 3), np.int32)
        self._scores = np.empty(graph.num_states, np.float32)
        self._alive = np.empty(graph.num_states, np.int32)  # states of the survivors of a frame
        self._counter = self._num_tokens = 0
        self.restart()

    def restart(self) -> None:
        """Forgets all frames."""
        self._counter += self._num_tokens  # the slots of the last frame are older ones now
        self._tokens[0], self._scores[0] = (0, -1, -1), 0.0
        self._num_tokens = 1
        # of all survivors, frame by frame: place of the predecessor, arc; score less the best of the frame
        self._history, self._kept, self._used = np.empty((1 << 14, 2), np.int32), np.empty(1 << 14, np.float32), 0
        self._begins: list[NDArray[np.int64]] = []  # where each frame's survivors are in the history
        self._bests: list[NDArray[np.float64]] = []  # each frame's best score less that of the frame before
        self.num_frames = 0

    def advance(self, loglikes: NDArray[np.float32]) -> None:
        """(L, C) scaled log-likelihoods of the next frames; they must be finite."""
        frames = np.ascontiguousarray(loglikes, np.float32)
        begins, bests = np.empty(len(frames), np.int64), np.empty(len(frames))
        graph, active = self._graph, (self._tokens, self._scores, self._alive)
        self._history, self._kept, self._used, self._num_tokens, self._counter = _advance(
            (graph.first, graph.arcs, graph.scores), frames, self._limits, active, self._slots,
            (begins, bests, self._history, self._kept), (self._used, self._num_tokens, self._counter),
        )  # fmt: skip
        self._begins.append(begins)
        self._bests.append(bests)
        self.num_frames += len(frames)

    def best(self, *, final: bool) -> NDArray[np.int32]:
        """(T,) arcs of the best path so far; empty where there is none.

        Args:
          final: only of paths that may end here.
        """
        scores = self._scores[: self._num_tokens]
        if final:
            scores = scores + self._graph.final[self._tokens[: self._num_tokens, 0]]
        if not self.num_frames or not len(scores) or scores.max() == -np.inf:
            return np.zeros(0, np.int32)
        _, before, arc = self._tokens[int(scores.argmax())]
        return np.asarray(_trace(self._history, before, arc, self.num_frames))

    def lattice(self, loglikes: NDArray[np.float32], beam: float) -> Lattice | None:
        """All paths within a beam of the best one among those that survived; None where none may end here.

        The search goes on after it as if nothing had been asked.

        Args:
          loglikes: (T, C) all frames since the beginning, scaled.
        """
        graph = self._graph
        if self.best(final=True).size == 0:
            return None
        history, kept, used, best, _, _ = _keep(
            (self._tokens, self._scores, self._alive), self._num_tokens, self._limits, self._history, self._kept,
            self._used,
        )  # fmt: skip
        begins = np.concatenate([*self._begins, [self._used, used]])
        totals = np.cumsum(np.concatenate([*self._bests, [best]]))
        frames = np.ascontiguousarray(loglikes, np.float32)
        self._slots[:], self._counter = -1, 0
        src, dst, arc = _links(
            (graph.first, graph.arcs, graph.scores, graph.final), frames, (begins, totals), (history, kept),
            self._slots, beam,
        )  # fmt: skip
        self._slots[:] = -1
        order = np.argsort(src, kind="stable")
        src, dst, arc = src[order], dst[order], arc[order]
        states = np.unique(np.concatenate([[0], src, dst]))
        frame_of = np.searchsorted(begins, src, side="right") - 1
        final = np.full(len(states), np.inf, np.float32)
        last = states >= begins[-2]
        final[last] = -graph.final[graph.arcs[history[states[last], 1], 0]]
        return Lattice(
            src=np.searchsorted(states, src).astype(np.int32),
            dst=np.searchsorted(states, dst).astype(np.int32),
            output=graph.arcs[arc, 3],
            graph=-graph.scores[arc, 2],
            acoustic=-frames[frame_of, graph.arcs[arc, 1]],
            final=final,
        )


@compiled()
def _advance(graph, frames, limits, active, slots, log, counts):  # type: ignore[no-untyped-def]
    begins, bests, history, kept = log
    used, num_tokens, counter = counts
    for number in range(len(frames)):
        begins[number] = used
        history, kept, used, bests[number], width, best = _keep(active, num_tokens, limits, history, kept, used)
        if counter > _LARGEST:
            slots[:] = -1
            counter = 0
        counter += num_tokens
        survivors = begins[number], used, best
        num_tokens = _expand(graph, frames[number], kept, survivors, active, (slots, counter), width)
    return history, kept, used, num_tokens, counter


@compiled()
def _keep(active, num_tokens, limits, history, kept, used):  # type: ignore[no-untyped-def]
    """Appends a frame's survivors to the history, with new arrays where it is full.

    Returns:
      history, kept, used; the best score, the beam of the next frame's first cutoff, the best one's place.
    """
    (tokens, scores, alive), (beam, max_active, min_active) = active, limits
    best, cutoff = _cutoff(scores[:num_tokens], beam, max_active, min_active)
    if used + num_tokens > len(history):
        larger = np.empty((2 * (used + num_tokens), 2), np.int32)
        larger[:used] = history[:used]
        longer = np.empty(2 * (used + num_tokens), np.float32)
        longer[:used] = kept[:used]
        history, kept = larger, longer
    begin, place = used, used
    for token in range(num_tokens):
        if scores[token] >= cutoff:
            if scores[token] == best:
                place = used
            history[used, 0], history[used, 1] = tokens[token, 1], tokens[token, 2]
            kept[used], alive[used - begin] = scores[token] - best, tokens[token, 0]
            used += 1
    return history, kept, used, best, beam if cutoff == best - beam else best - cutoff + _SLACK, place


@compiled()
def _cutoff(scores, beam, max_active, min_active):  # type: ignore[no-untyped-def]
    """The best score, and the one from which on tokens survive."""
    best = np.float32(-np.inf)
    for score in scores:
        best = max(best, score)
    cutoff = best - beam
    counts = np.zeros(_BINS + 1, np.int64)
    inside, per_nat = 0, np.float32(_BINS) / beam
    for score in scores:
        if score >= cutoff:
            counts[min(_BINS, int((best - score) * per_nat))] += 1
            inside += 1
    if inside > max_active:
        total, edge = counts[0], 1
        while total + counts[edge] <= max_active:
            total += counts[edge]
            edge += 1
        return best, best - np.float32(edge) / per_nat
    if inside < min_active and inside < len(scores):
        place = len(scores) - min(min_active, len(scores))
        return best, np.partition(scores, place)[place]
    return best, cutoff


@compiled()
def _expand(graph, frame, kept, survivors, active, numbers, width):  # type: ignore[no-untyped-def]
    """The tokens of the next frame; returns how many they are.

    Args:
      survivors: where they are in the history, and which is the best one: it is expanded first, for a good cutoff.
      numbers: the slots, and the number below which those of older frames are.
      width: beam of the first cutoff, which spares tokens that would be dropped at once.
    """
    (first, arcs, arc_scores), (tokens, scores, alive), (slots, counter) = graph, active, numbers
    begin, end, best = survivors
    count, cutoff = 0, np.float32(-np.inf)
    if begin == end:  # every path has come to a state that no arc leaves
        return count
    for turn in range(begin - 1, end):
        place = best if turn < begin else turn
        state = alive[place - begin]
        for arc in range(first[state], first[state + 1]):
            score = kept[place] + arc_scores[arc, 2] + frame[arcs[arc, 1]]
            if score < cutoff:
                continue
            cutoff = max(cutoff, score - width)
            token = slots[arcs[arc, 0]] - counter
            if token < 0:
                token, count = count, count + 1
                slots[arcs[arc, 0]] = counter + token
                tokens[token, 0] = arcs[arc, 0]
            elif score <= scores[token]:
                continue
            scores[token], tokens[token, 1], tokens[token, 2] = score, place, arc
    return count


@compiled()
def _trace(history, before, arc, num_frames):  # type: ignore[no-untyped-def]
    """(T,) arcs of the path that ends with an arc after a place of the history."""
    path = np.empty(num_frames, np.int32)
    for frame in range(num_frames - 1, -1, -1):
        path[frame] = arc
        before, arc = history[before, 0], history[before, 1]
    return path


@compiled()
def _links(graph, frames, log, past, slots, beam):  # type: ignore[no-untyped-def]
    """Finds, from the last frame to the first, the arcs between survivors on paths within a beam of the best one.

    Args:
      log: (T + 2,) where each frame's survivors begin, those after the last frame included, and where these end;
        (T + 1,) the best score of each.
      slots: all -1; then of each state the place of its last survivor that was visited.

    Returns:
      Places in the history of each arc's two ends, and its number.
    """
    (first, arcs, arc_scores, final), (begins, totals), (history, kept) = graph, log, past
    num_frames = len(frames)
    rest = np.full(begins[num_frames + 1], -np.inf)  # of each survivor the best score of a way to the end
    best = -np.inf
    for place in range(begins[num_frames], begins[num_frames + 1]):
        state = arcs[history[place, 1], 0]
        slots[state], rest[place] = place, final[state]
        best = max(best, totals[num_frames] + kept[place] + rest[place])
    links = np.empty((1 << 12, 3), np.int64)
    count = 0
    for number in range(num_frames - 1, -1, -1):
        begin, end = begins[number], begins[number + 1]
        for place in range(begin, end):
            arc_before = history[place, 1]
            state = arcs[arc_before, 0] if arc_before >= 0 else 0
            for arc in range(first[state], first[state + 1]):
                after = slots[arcs[arc, 0]]
                if not end <= after < begins[number + 2]:
                    continue
                score = np.float64(arc_scores[arc, 2]) + frames[number, arcs[arc, 1]] + rest[after]
                rest[place] = max(rest[place], score)
                if totals[number] + kept[place] + score >= best - beam:
                    if count == len(links):
                        longer = np.empty((2 * count, 3), np.int64)
                        longer[:count] = links
                        links = longer
                    links[count, 0], links[count, 1], links[count, 2] = place, after, arc
                    count += 1
        for place in range(begin, end):
            arc_before = history[place, 1]
            slots[arcs[arc_before, 0] if arc_before >= 0 else 0] = place
    return links[:count, 0].copy(), links[:count, 1].copy(), links[:count, 2].copy()
