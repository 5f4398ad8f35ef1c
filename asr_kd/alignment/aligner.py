"""A trained aligner: the net that the flat start trained, with the priors of its states.

Shapes:  T frames of an utterance, C context-independent states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from asr_kd.alignment.manual import best_split
from asr_kd.alignment.monophone_net import MonophoneNet
from asr_kd.alignment.topology import CannotAlignError, TranscriptGraph
from asr_kd.alignment.viterbi import viterbi
from asr_kd.errors import UserError
from asr_kd.frames.source import FrameSource

_BLOCK = 64  # utterances whose posteriors are in memory at once
_PRIORS = "log_priors.npy"

PathOrError = tuple[NDArray[np.int32], float] | CannotAlignError


class Classifier(Protocol):
    """Context-independent states of frames: `MonophoneNet` or `LdaClassifier`."""

    def log_posteriors(self, source: FrameSource, utterances: Sequence[int]) -> list[np.ndarray]:
        """(T, C) float32 natural logarithms, for each utterance."""


@dataclass(frozen=True)
class Aligner:
    """Aligns any utterance of any set.

    Attributes:
      log_priors: (C,) natural logarithms of each state's share of the frames that the classifier learnt from.
      beam: of the search, see `viterbi.viterbi`; 0: exact.
    """

    classifier: Classifier
    log_priors: NDArray[np.float32]
    beam: float = 0.0

    def paths(
        self,
        source: FrameSource,
        graphs: Sequence[tuple[int, TranscriptGraph]],
        *,
        nj: int = 1,
        progress: str | None = None,
    ) -> Iterator[PathOrError]:
        """For each (utterance, graph) the (T,) states of the graph and the score in nats, or why there is no path.

        The net runs in this thread; Viterbi, which is compiled and holds no lock, on `nj` others.

        Args:
          progress: label of the progress bar; None: no bar.
        """
        with (
            ThreadPoolExecutor(nj) as pool,
            tqdm(total=len(graphs), desc=progress, disable=progress is None, unit="utt", mininterval=1.0) as bar,
        ):
            for first in range(0, len(graphs), _BLOCK):
                block = graphs[first : first + _BLOCK]
                posteriors = self.classifier.log_posteriors(source, [utterance for utterance, _ in block])
                scores = [of_utterance - self.log_priors for of_utterance in posteriors]
                yield from pool.map(self._search, [graph for _, graph in block], scores)
                bar.update(len(block))

    def _search(self, graph: TranscriptGraph, scores: np.ndarray) -> PathOrError:
        try:
            if graph.starts is not None:
                return best_split(scores, graph)
            return viterbi(scores, graph, beam=self.beam)
        except CannotAlignError as error:
            return error

    def save(self, folder: Path) -> None:
        """Writes the net and the priors into an existing folder; nothing is pickled."""
        assert isinstance(self.classifier, MonophoneNet), "only nets are saved"
        self.classifier.save(folder)
        np.save(folder / _PRIORS, self.log_priors, allow_pickle=False)


def load_aligner(folder: Path, *, beam: float = 0.0) -> Aligner:
    """The aligner that `Aligner.save` wrote.

    Raises:
      UserError: a file is missing or damaged.
    """
    net = MonophoneNet.load(folder)
    try:
        log_priors = np.load(folder / _PRIORS, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{folder / _PRIORS} is missing or damaged ({error}); delete {folder} and align again."
        ) from None
    return Aligner(net, log_priors, beam)
