"""The GMM-free flat start (Senior et al. 2014): an equal alignment, then rounds of {train a small net, realign}.

`linear_rounds` of linear discriminants may come before those of the net.

The net comes from outside (`FrameClassifier`): aligning knows nothing of how nets are trained.

Shapes:  T frames of an utterance, C context-independent states, U utterances.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from asr_kd.alignment.lda_classifier import LdaClassifier
from asr_kd.alignment.manual import best_split, equal_split
from asr_kd.alignment.topology import CannotAlignError, Graph, equal_alignment
from asr_kd.alignment.viterbi import viterbi
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import replacing_file
from asr_kd.workspace.config import AlignmentConfig

log = logging.getLogger(__name__)

SMOOTHING = 1.0  # frames added to each state's count before the prior is taken
_BLOCK = 64  # utterances whose posteriors are held at once


class FrameClassifier(Protocol):
    """What the flat start needs from a net over context-independent states."""

    def fit(self, frames: np.ndarray, states: np.ndarray, *, epochs: int) -> None:
        """Goes on training on these frames (numbers of the store that it was made for) and their states, both (n,)."""

    def log_posteriors(self, store: FrameStore, utterances: Sequence[int]) -> list[np.ndarray]:
        """(T, C) float32 natural logarithms, for each utterance."""

    def state(self) -> dict[str, np.ndarray]:
        """All that makes it what it is after the rounds so far."""

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Goes back to what `state` gave."""


MakeClassifier = Callable[[FrameStore, int, AlignmentConfig, int, Sequence[int]], FrameClassifier]
Found = tuple[NDArray[np.int32], float] | CannotAlignError


class MonophoneAligner:
    """A trained net with the priors of its states: aligns any utterance of any set."""

    def __init__(self, classifier: FrameClassifier, log_priors: np.ndarray, beam: float) -> None:
        self._classifier, self._log_priors, self._beam = classifier, log_priors, beam

    def paths(
        self, store: FrameStore, utterances: Sequence[int], graphs: Sequence[Graph], *, nj: int, progress: str | None
    ) -> Iterator[Found]:
        """For each utterance (T,) states of its graph and the score, or why there is none.

        The net runs in this thread; Viterbi, which is compiled and holds no lock, on `nj` others.
        """

        def search(item: tuple[Graph, np.ndarray]) -> Found:
            graph, scores = item
            try:
                if graph.starts is not None:
                    return best_split(scores, graph)
                return viterbi(scores, graph, beam=self._beam)
            except CannotAlignError as error:
                return error

        with (
            ThreadPoolExecutor(nj) as pool,
            tqdm(total=len(utterances), desc=progress, disable=progress is None, unit="utt", mininterval=1.0) as bar,
        ):
            for first in range(0, len(utterances), _BLOCK):
                block = range(first, min(first + _BLOCK, len(utterances)))
                posteriors = self._classifier.log_posteriors(store, [utterances[k] for k in block])
                items = [(graphs[k], p - self._log_priors) for k, p in zip(block, posteriors, strict=True)]
                yield from pool.map(search, items)
                bar.update(len(block))


def flat_start(
    store: FrameStore,
    utterances: Sequence[int],
    graphs: Sequence[Graph],
    num_classes: int,
    settings: AlignmentConfig,
    make_classifier: MakeClassifier,
    *,
    seed: int,
    nj: int = 1,
    quiet: bool = False,
    checkpoint: Path | None = None,
) -> MonophoneAligner:
    """Trains an aligner on these utterances of a store.

    Args:
      utterances: their numbers, with their `graphs`; those that are too short for their transcript take no part.
      checkpoint: a file that is written after each round, and gone on from where it is there.
    """
    net, linear = make_classifier(store, num_classes, settings, seed, utterances), LdaClassifier(store, num_classes)
    paths: dict[int, NDArray[np.int32]] = {}
    for k, utterance in enumerate(utterances):
        try:
            graph, num_frames = graphs[k], int(store.offsets[utterance + 1] - store.offsets[utterance])
            paths[k] = equal_alignment(graph, num_frames) if graph.starts is None else equal_split(graph)
        except CannotAlignError:
            continue  # the final pass names it
    kept = sorted(paths)
    if not kept:
        raise UserError(
            f"{store.folder}: every utterance is too short for its transcript; check that they belong together."
        )
    frames = np.concatenate([np.arange(store.offsets[utterances[k]], store.offsets[utterances[k] + 1]) for k in kept])
    done = 0 if checkpoint is None or not checkpoint.exists() else _resume(checkpoint, net, paths, kept)
    labels = _labels(graphs, paths, kept)
    rounds = settings.linear_rounds + settings.rounds
    for number in range(done, rounds):
        classifier: FrameClassifier = linear if number < settings.linear_rounds else net
        classifier.fit(frames, labels, epochs=1)
        aligner = MonophoneAligner(classifier, _log_priors(labels, num_classes), settings.beam)
        progress = None if quiet else f"flat start, round {number + 1} of {rounds}"
        found = aligner.paths(store, [utterances[k] for k in kept], [graphs[k] for k in kept], nj=nj, progress=progress)
        total = 0.0
        for k, result in zip(kept, found, strict=True):
            if not isinstance(result, CannotAlignError):
                paths[k] = result[0]
                total += result[1]
        before, labels = labels, _labels(graphs, paths, kept)
        log.info(
            "flat start, round %d: score %.3f a frame, %.1f %% of the frames changed their state",
            number + 1,
            total / len(frames),
            100 * float((before != labels).mean()),
        )
        if checkpoint is not None:
            _save(checkpoint, number + 1, net if classifier is net else None, paths, kept)
    return MonophoneAligner(net, _log_priors(labels, num_classes), settings.beam)


def _save(
    file: Path, rounds: int, net: FrameClassifier | None, paths: dict[int, NDArray[np.int32]], kept: list[int]
) -> None:
    """None: the net has not begun."""
    with replacing_file(file) as temporary:
        states = {f"net.{name}": value for name, value in net.state().items()} if net is not None else {}
        np.savez(temporary, rounds=rounds, paths=np.concatenate([paths[k] for k in kept]), **states)


def _resume(file: Path, net: FrameClassifier, paths: dict[int, NDArray[np.int32]], kept: list[int]) -> int:
    """Puts classifier and paths back; returns the rounds that are done."""
    with np.load(file, allow_pickle=False) as saved:
        if state := {name[4:]: saved[name] for name in saved.files if name.startswith("net.")}:
            net.restore(state)
        ends = np.cumsum([len(paths[k]) for k in kept])
        for k, path in zip(kept, np.split(saved["paths"], ends[:-1]), strict=True):
            paths[k] = path
        return int(saved["rounds"])


def choose_subset(store: FrameStore, hours: float, seed: int) -> list[int]:
    """Unaltered utterances in random order until `hours` of speech are there; their numbers, sorted."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(store.speeds == 1.0))
    until = int(np.searchsorted(np.cumsum(store.durations[order]), hours * 3600, side="left")) + 1
    chosen: list[int] = sorted(order[:until].tolist())
    return chosen


def _labels(graphs: Sequence[Graph], paths: dict[int, NDArray[np.int32]], kept: list[int]) -> NDArray[np.int32]:
    return np.concatenate([graphs[k].classes[paths[k]] for k in kept]).astype(np.int32)


def _log_priors(labels: NDArray[np.int32], num_classes: int) -> np.ndarray:
    counts = np.bincount(labels, minlength=num_classes) + SMOOTHING
    return np.log(counts / counts.sum()).astype(np.float32)
