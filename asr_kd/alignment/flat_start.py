"""Forced alignment from scratch: features, transcripts and a lexicon -> an aligner, and the state of every frame.

The flat start needs no GMM (Senior et al. 2014): an equal alignment, or the labels of another aligner; then rounds of
{train a small net, realign}.
Rounds of linear discriminants (`linear_rounds`) may come before those of the net.

Shapes:  T frames of an utterance, D dimensions of a frame, C context-independent states, n frames of all utterances.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.aligner import Aligner
from asr_kd.alignment.classifiers import LdaClassifier, MonophoneNet
from asr_kd.alignment.given_labels import GivenLabels
from asr_kd.alignment.label_paths import LabelledStart, label_paths
from asr_kd.alignment.manual import equal_split
from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.alignment.topology import NUM_HMM_STATES, CannotAlignError, TranscriptGraph, equal_alignment
from asr_kd.alignment.transcripts import TranscribedFrames

log = logging.getLogger(__name__)

SMOOTHING = 1.0  # frames added to each state's count before the prior is taken

State = Mapping[str, np.ndarray]  # after a round: all that later rounds depend on
MapRounds = Callable[[Callable[[int], State], Sequence[int]], Iterable[State]]  # of the rounds' numbers


def flat_start(
    data: TranscribedFrames,
    settings: AlignmentConfig,
    *,
    seed: int,
    nj: int = 1,
    map_rounds: MapRounds = map,
    labels: GivenLabels | None = None,
) -> Aligner:
    """Trains an aligner on up to `settings.subset_hours` of these utterances, whose graphs are in memory while it runs.

    Utterances that are too short for their transcript take no part.

    Args:
      nj: threads of the search.
      map_rounds: as `map`; one that begins with what the last finished round of a killed run returned resumes.
      labels: what to begin with in place of equal alignments; the aligner's `notes` say which could not be used.

    Raises:
      CannotAlignError: no utterance can be aligned.
      UserError: none of the labels can be used.
    """
    training = _FlatStart(data, settings, seed, nj, labels)
    for state in map_rounds(training.run_round, range(settings.linear_rounds + settings.rounds)):
        training.restore(state)
        del state  # not in memory beside the next one
    return training.aligner()


class _FlatStart:
    """What changes from round to round: the net, and the present path of each utterance."""

    def __init__(
        self, data: TranscribedFrames, settings: AlignmentConfig, seed: int, nj: int, labels: GivenLabels | None
    ) -> None:
        graphs, failures = data.graphs(data.choose_subset(settings.subset_hours, seed))
        if not graphs:
            reason = next(iter(failures.values()), "there is none")
            raise CannotAlignError(f"no utterance can be aligned; the first: {reason}")
        self._source, self._settings, self._nj = data.frames, settings, nj
        start = LabelledStart({}, ()) if labels is None else label_paths(labels, data, graphs)
        self._notes = start.notes
        for note in start.notes:
            log.info("flat start: %s", note)
        self._graphs: dict[int, TranscriptGraph] = {}
        self._paths: list[NDArray[np.int32]] = []
        for utterance, graph in graphs.items():
            try:
                path = start.paths[utterance] if utterance in start.paths else _equal(data, utterance, graph)
            except CannotAlignError:
                continue  # the alignment of the whole set names it
            self._graphs[utterance] = graph
            self._paths.append(path)
        if not self._graphs:
            raise CannotAlignError("every utterance is too short for its transcript; check that they belong together")
        spans = [data.span(utterance) for utterance in self._graphs]
        self._frames = np.concatenate([np.arange(span.start, span.stop) for span in spans])  # (n,)
        self._num_states = NUM_HMM_STATES * len(data.lang.phones)
        self._linear = LdaClassifier(data.frames, self._num_states)
        self._net = MonophoneNet.untrained(data.frames.num_dims, self._num_states, settings, seed)
        self._net.prepare(data.frames, list(graphs), settings)

    def run_round(self, number: int) -> State:
        """Trains on the present paths and replaces them. An utterance without a path keeps the last one."""
        settings, states = self._settings, self._states()
        classifier = self._linear if number < settings.linear_rounds else self._net
        classifier.fit(self._frames, states)
        aligner = Aligner(classifier, self._log_priors(states), beam=settings.beam)
        progress = f"flat start, round {number + 1} of {settings.linear_rounds + settings.rounds}"
        score = 0.0
        for k, result in enumerate(aligner.paths(self._source, self._graphs, nj=self._nj, progress=progress)):
            if not isinstance(result, CannotAlignError):
                self._paths[k] = result[0]
                score += result[1]
        log.info(
            "flat start, round %d: score %.3f a frame, %.1f %% of the frames changed their state",
            number + 1,
            score / len(states),
            100 * float((states != self._states()).mean()),
        )
        return {"paths": np.concatenate(self._paths), **self._net.state()}

    def restore(self, state: State) -> None:
        """Restores the net and the paths as they were after the round that returned `state`."""
        ends = np.cumsum([len(path) for path in self._paths])
        self._paths = np.split(state["paths"], ends[:-1])
        self._net.restore(state)

    def aligner(self) -> Aligner:
        return Aligner(self._net, self._log_priors(self._states()), beam=self._settings.beam, notes=self._notes)

    def _states(self) -> NDArray[np.int32]:
        """(n,) context-independent state of each frame."""
        pairs = zip(self._graphs.values(), self._paths, strict=True)
        return np.concatenate([graph.classes[path] for graph, path in pairs]).astype(np.int32)

    def _log_priors(self, states: NDArray[np.int32]) -> NDArray[np.float32]:
        counts = np.bincount(states, minlength=self._num_states) + SMOOTHING
        return np.log(counts / counts.sum()).astype(np.float32)


def _equal(data: TranscribedFrames, utterance: int, graph: TranscriptGraph) -> NDArray[np.int32]:
    span = data.span(utterance)
    return equal_alignment(graph, span.stop - span.start) if graph.starts is None else equal_split(graph)
