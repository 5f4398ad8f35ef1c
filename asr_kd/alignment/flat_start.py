"""The GMM-free flat start (Senior et al. 2014): an equal alignment, then rounds of {train a small net, realign}.

Rounds of linear discriminants (`linear_rounds`) may come before those of the net.

Shapes:  T frames of an utterance, C context-independent states, n frames of all utterances.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.aligner import Aligner, Classifier
from asr_kd.alignment.lda_classifier import LdaClassifier
from asr_kd.alignment.manual import equal_split
from asr_kd.alignment.monophone_net import MonophoneNet
from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.alignment.topology import CannotAlignError, TranscriptGraph, equal_alignment
from asr_kd.frames.source import FrameSource
from asr_kd.io.files import replacing_file

log = logging.getLogger(__name__)

SMOOTHING = 1.0  # frames added to each state's count before the prior is taken


class TrainableClassifier(Classifier, Protocol):
    """What the rounds train."""

    def fit(self, frames: np.ndarray, states: np.ndarray) -> None:
        """Trains on these frames (numbers of the source's frames) and their states, both (n,)."""

    def state(self) -> dict[str, np.ndarray]:
        """All that later rounds depend on."""

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restores what `state` returned."""


class _Labelling:
    """The present path of each utterance."""

    def __init__(self, source: FrameSource, graphs: Mapping[int, TranscriptGraph]) -> None:
        """The equal alignment; utterances that are too short for their transcript are left out."""
        self.graphs: list[tuple[int, TranscriptGraph]] = []
        self._paths: list[NDArray[np.int32]] = []
        for utterance, graph in sorted(graphs.items()):
            num_frames = int(source.offsets[utterance + 1] - source.offsets[utterance])
            try:
                path = equal_alignment(graph, num_frames) if graph.starts is None else equal_split(graph)
            except CannotAlignError:
                continue  # the alignment of the whole set names it
            self.graphs.append((utterance, graph))
            self._paths.append(path)
        if not self.graphs:
            raise CannotAlignError("every utterance is too short for its transcript; check that they belong together")
        offsets = source.offsets
        self.frames = np.concatenate([np.arange(offsets[u], offsets[u + 1]) for u, _ in self.graphs])  # (n,)

    def states(self) -> NDArray[np.int32]:
        """(n,) context-independent state of each frame."""
        pairs = zip(self.graphs, self._paths, strict=True)
        return np.concatenate([graph.classes[path] for (_, graph), path in pairs]).astype(np.int32)

    def realign(self, aligner: Aligner, source: FrameSource, *, nj: int, progress: str | None) -> float:
        """Replaces the paths; returns the score of all, in nats. An utterance without a path keeps the last one."""
        total = 0.0
        for k, result in enumerate(aligner.paths(source, self.graphs, nj=nj, progress=progress)):
            if not isinstance(result, CannotAlignError):
                self._paths[k] = result[0]
                total += result[1]
        return total

    def save(self, file: Path, rounds: int, net: TrainableClassifier | None) -> None:
        """Writes a checkpoint; `net` is None while it has not been trained."""
        states = {f"net.{name}": value for name, value in net.state().items()} if net is not None else {}
        with replacing_file(file) as temporary:
            np.savez(temporary, rounds=rounds, paths=np.concatenate(self._paths), **states)

    def resume(self, file: Path, net: TrainableClassifier) -> int:
        """Restores net and paths; returns the number of finished rounds."""
        with np.load(file, allow_pickle=False) as saved:
            if state := {name[4:]: saved[name] for name in saved.files if name.startswith("net.")}:
                net.restore(state)
            ends = np.cumsum([len(path) for path in self._paths])
            self._paths = np.split(saved["paths"], ends[:-1])
            return int(saved["rounds"])


def flat_start(
    source: FrameSource,
    graphs: Mapping[int, TranscriptGraph],
    num_states: int,
    settings: AlignmentConfig,
    *,
    seed: int,
    nj: int = 1,
    checkpoint: Path | None = None,
) -> Aligner:
    """Trains an aligner.

    Args:
      graphs: of the utterances to learn from; those that are too short for their transcript take no part.
      num_states: C.
      checkpoint: a file that is written after each round, and resumed from where it exists.

    Raises:
      CannotAlignError: every utterance is too short for its transcript.
    """
    labelling = _Labelling(source, graphs)
    linear = LdaClassifier(source, num_states)
    net = MonophoneNet.untrained(source.num_dims, num_states, settings, seed)
    net.prepare(source, list(graphs), settings)
    first = labelling.resume(checkpoint, net) if checkpoint is not None and checkpoint.exists() else 0
    states = labelling.states()
    rounds = settings.linear_rounds + settings.rounds
    for number in range(first, rounds):
        classifier: TrainableClassifier = linear if number < settings.linear_rounds else net
        classifier.fit(labelling.frames, states)
        aligner = Aligner(classifier, _log_priors(states, num_states), settings.beam)
        progress = f"flat start, round {number + 1} of {rounds}"
        score = labelling.realign(aligner, source, nj=nj, progress=progress)
        before, states = states, labelling.states()
        log.info(
            "flat start, round %d: score %.3f a frame, %.1f %% of the frames changed their state",
            number + 1,
            score / len(states),
            100 * float((before != states).mean()),
        )
        if checkpoint is not None:
            labelling.save(checkpoint, number + 1, net if classifier is net else None)
    return Aligner(net, _log_priors(states, num_states), settings.beam)


def _log_priors(states: NDArray[np.int32], num_states: int) -> NDArray[np.float32]:
    counts = np.bincount(states, minlength=num_states) + SMOOTHING
    return np.log(counts / counts.sum()).astype(np.float32)
