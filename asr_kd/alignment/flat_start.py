"""From no alignment at all to a good one, without Gaussian mixtures (Senior et al. 2014).

Every utterance is first cut into equal parts; then rounds of {train a small net for one epoch on the present states;
posterior over prior is a likelihood; Viterbi gives new states}. The net sees little context, so that it cannot
memorise the equal alignment, and goes on from round to round.

Shapes:  T frames of an utterance, C = 3 * phones context-independent states.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from asr_kd.alignment.topology import NUM_HMM_STATES, CannotAlignError, Graph, compile_graph, equal_alignment
from asr_kd.alignment.viterbi import viterbi
from asr_kd.config import AlignmentConfig
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.lang.lexicon import Lang

log = logging.getLogger(__name__)


class FrameClassifier(Protocol):
    """What the flat start needs of a net: it is trained further and further, and asked in between."""

    def fit(self, frames: np.ndarray, states: np.ndarray, *, epochs: int) -> None:
        """Trains on frames (n,) int64, numbers in the store it was made for, and their states (n,) int32."""

    def log_posteriors(self, utterance: int, store: FrameStore | None = None) -> np.ndarray:
        """(T, C) float32 natural logarithms for an utterance of `store`; None: the store it was made for."""
        ...


ClassifierFactory = Callable[[FrameStore, int, AlignmentConfig, int], FrameClassifier]  # store, classes, config, seed


@dataclass(frozen=True)
class Round:
    """What one round of the flat start did."""

    frame_accuracy: float  # of the net just trained, on the states it was trained on
    log_likelihood: float  # of the new best paths, per frame, in nats (up to the frames' own probability)
    changed: float  # share of frames that got another state


@dataclass(frozen=True)
class Aligned:
    """One utterance's best path."""

    graph: Graph
    path: NDArray[np.int32]  # (T,) states of the graph
    log_likelihood: float  # of the whole path, in nats

    @property
    def classes(self) -> NDArray[np.int32]:
        """(T,) context-independent states, 3 * phone + HMM state."""
        return self.graph.classes[self.path]


@dataclass(frozen=True)
class Aligner:
    """A trained classifier with what turns its posteriors into an alignment."""

    lang: Lang
    classifier: FrameClassifier
    log_priors: NDArray[np.float32]  # (C,)
    beam: float = 0.0

    def align(
        self, store: FrameStore, utterances: Sequence[int], *, nj: int = 1
    ) -> Iterator[tuple[int, Aligned | CannotAlignError]]:
        """Yields (utterance, its best path or why it has none), in order.

        The net runs in this thread, the searches in `nj` others: compiled code needs no process of its own.
        """
        waiting: deque[tuple[int, Future[Aligned | CannotAlignError]]] = deque()
        with ThreadPoolExecutor(nj) as pool:
            for utterance in utterances:
                posteriors = self.classifier.log_posteriors(utterance, store)
                waiting.append((utterance, pool.submit(self._best_path, store.texts[utterance], posteriors)))
                if len(waiting) > 4 * nj:
                    ready, result = waiting.popleft()
                    yield ready, result.result()
            for ready, result in waiting:
                yield ready, result.result()

    def _best_path(self, text: str, log_posteriors: np.ndarray) -> Aligned | CannotAlignError:
        try:
            graph = compile_graph(text.split(), self.lang)
            return Aligned(graph, *viterbi(log_posteriors - self.log_priors, graph, beam=self.beam))
        except CannotAlignError as error:
            return error


def pick_subset(store: FrameStore, hours: float, seed: int) -> NDArray[np.int64]:
    """Random unaltered utterances of at most `hours` in all (at least one), in the store's order."""
    unaltered = np.flatnonzero(store.speeds == 1.0)
    order = np.random.default_rng(seed).permutation(unaltered)
    fits = np.cumsum(store.durations[order]) <= hours * 3600
    return np.sort(order[: max(1, int(fits.sum()))])


def flat_start(
    store: FrameStore,
    lang: Lang,
    classifier: FrameClassifier,
    settings: AlignmentConfig,
    utterances: NDArray[np.int64],
    *,
    nj: int = 1,
) -> tuple[Aligner, list[Round]]:
    """Trains `classifier` from nothing on these utterances of `store`; those that cannot be aligned are passed over.

    Raises:
      UserError: no utterance can be aligned.
    """
    num_classes = NUM_HMM_STATES * len(lang.phones)
    frames, states, usable = _equal_start(store, lang, utterances)
    rounds = []
    for number in range(1, settings.rounds + 1):
        began = time.monotonic()
        classifier.fit(frames, states, epochs=1)
        aligner = Aligner(lang, classifier, log_priors(states, num_classes), settings.beam)
        new = np.empty_like(states)
        score = hits = 0.0
        done = 0
        paths = aligner.align(store, usable, nj=nj)
        for utterance, result in tqdm(paths, total=len(usable), desc=f"round {number}", leave=False, mininterval=0.5):
            if isinstance(result, CannotAlignError):
                raise UserError(
                    f"utterance {store.ids[utterance]}: {result}, in round {number} of the flat start; "
                    "look at its features, or lower alignment.rounds."
                )
            classes = result.classes
            new[done : done + len(classes)] = classes
            done += len(classes)
            score += result.log_likelihood
        hits = _frame_accuracy(classifier, store, usable, states)
        rounds.append(Round(hits, score / len(states), float((new != states).mean())))
        states = new
        log.info(
            "round %d of %d: frame accuracy %.1f %%, log-likelihood %.3f per frame, %.1f %% of frames changed, %.1f s",
            number,
            settings.rounds,
            100 * rounds[-1].frame_accuracy,
            rounds[-1].log_likelihood,
            100 * rounds[-1].changed,
            time.monotonic() - began,
        )
    return aligner, rounds
