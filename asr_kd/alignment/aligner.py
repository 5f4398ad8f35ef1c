"""A trained aligner: the net that the flat start trained, with the priors of its states.

Shapes:  T frames of an utterance, C context-independent states.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from asr_kd.alignment.classifiers import LdaClassifier, MonophoneNet
from asr_kd.alignment.manual import best_split
from asr_kd.alignment.set_alignment import read_array
from asr_kd.alignment.topology import CannotAlignError, Segments, TranscriptGraph, path_segments
from asr_kd.alignment.transcripts import TranscribedFrames
from asr_kd.alignment.viterbi import viterbi
from asr_kd.frames.source import FrameSource

_BLOCK = 64  # utterances whose posteriors are in memory at once
_PRIORS = "log_priors.npy"

PathOrError = tuple[NDArray[np.int32], float] | CannotAlignError


@dataclass(frozen=True)
class UtteranceAlignment:
    """The best path of an utterance."""

    states: NDArray[np.int32]  # (T,) context-independent state of each frame: 3 * phone + HMM state
    segments: Segments  # the phones with their words and first frames
    score: float  # of the path, in nats


@dataclass(frozen=True)
class Aligner:
    """Aligns any utterance of any set."""

    classifier: MonophoneNet | LdaClassifier
    log_priors: NDArray[np.float32]  # (C,) natural log of each state's share of the frames that the classifier learnt
    beam: float = 0.0  # of the search, see `viterbi.viterbi`; 0: exact
    notes: Sequence[str] = ()  # of the flat start, on labels that it was given; not saved

    def paths(
        self,
        source: FrameSource,
        graphs: Mapping[int, TranscriptGraph],
        *,
        nj: int = 1,
        progress: str | None = None,
    ) -> Iterator[PathOrError]:
        """For the graph of each utterance its (T,) states and the score in nats, or why there is no path; in order.

        The net runs in this thread; Viterbi, which is compiled and holds no lock, on `nj` others.

        Args:
          progress: label of the progress bar; None: no bar.
        """
        with (
            ThreadPoolExecutor(nj) as pool,
            tqdm(total=len(graphs), desc=progress, disable=progress is None, unit="utt", mininterval=1.0) as bar,
        ):
            utterances = list(graphs)
            for first in range(0, len(utterances), _BLOCK):
                block = utterances[first : first + _BLOCK]
                posteriors = self.classifier.log_posteriors(source, block)
                scores = [of_utterance - self.log_priors for of_utterance in posteriors]
                yield from pool.map(self._search, [graphs[utterance] for utterance in block], scores)
                bar.update(len(block))

    def align(
        self, data: TranscribedFrames, utterances: Iterable[int], *, nj: int = 1
    ) -> dict[int, UtteranceAlignment | CannotAlignError]:
        """The alignment of each of these utterances, or why there is none."""
        graphs, failures = data.graphs(utterances)
        aligned: dict[int, UtteranceAlignment | CannotAlignError] = {
            utterance: CannotAlignError(reason) for utterance, reason in failures.items()
        }
        for (utterance, graph), path in zip(graphs.items(), self.paths(data.frames, graphs, nj=nj), strict=True):
            if isinstance(path, CannotAlignError):
                aligned[utterance] = path
            else:
                states, score = path
                aligned[utterance] = UtteranceAlignment(graph.classes[states], path_segments(graph, states), score)
        return aligned

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
    """The aligner that `Aligner.save` wrote; raises UserError where a file is missing or damaged."""
    return Aligner(MonophoneNet.load(folder), read_array(folder / _PRIORS), beam)
