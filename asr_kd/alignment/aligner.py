"""A trained aligner: a net and the priors of its classes.

The flat start's net knows context-independent states, that of realignment the senones of a tree.

Shapes:  T frames of an utterance, C context-independent states or senones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.classifiers import LdaClassifier, NetClassifier
from asr_kd.alignment.manual import best_split
from asr_kd.alignment.set_alignment import read_array
from asr_kd.alignment.topology import CannotAlignError, Segments, TranscriptGraph, path_segments
from asr_kd.alignment.transcripts import TranscribedFrames
from asr_kd.alignment.tree import TREE, Tree, read_tree, write_tree
from asr_kd.alignment.viterbi import viterbi
from asr_kd.frames.source import FrameSource
from asr_kd.io.progress import progress_bar

_BLOCK = 64  # utterances whose posteriors are in memory at once,
_BLOCK_SCORES = 1 << 26  # unless these are more numbers than this (268 MB)
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

    classifier: NetClassifier | LdaClassifier
    log_priors: NDArray[np.float32]  # (C,) natural log of each class's share of the frames that the classifier learnt
    tree: Tree | None = None  # whose senones the classes are; None: context-independent states
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
        """Yields the best path of each utterance, in order: its (T,) states and score in nats, or why there is no path.

        The net runs in this thread; Viterbi, which is compiled and holds no lock, on `nj` others.

        Args:
          progress: label of the progress bar; None: no bar.
        """
        with (
            ThreadPoolExecutor(nj) as pool,
            progress_bar(progress, len(graphs), "utt") as bar,
        ):
            for block in self._blocks(source, list(graphs)):
                posteriors = self.classifier.log_posteriors(source, block)
                scores = [of_utterance - self.log_priors for of_utterance in posteriors]
                yield from pool.map(self._search, [graphs[utterance] for utterance in block], scores)
                bar.update(len(block))

    def _blocks(self, source: FrameSource, utterances: Sequence[int]) -> Iterator[list[int]]:
        block: list[int] = []
        frames, most = 0, _BLOCK_SCORES // len(self.log_priors)
        for utterance in utterances:
            length = int(source.offsets[utterance + 1] - source.offsets[utterance])
            if block and (len(block) == _BLOCK or frames + length > most):
                yield block
                block, frames = [], 0
            block.append(utterance)
            frames += length
        if block:
            yield block

    def align(
        self, data: TranscribedFrames, utterances: Iterable[int], *, nj: int = 1
    ) -> dict[int, UtteranceAlignment | CannotAlignError]:
        """The alignment of each of these utterances, or why there is none."""
        graphs, failures = data.graphs(utterances, self.tree)
        aligned: dict[int, UtteranceAlignment | CannotAlignError] = {
            utterance: CannotAlignError(reason) for utterance, reason in failures.items()
        }
        for (utterance, graph), path in zip(graphs.items(), self.paths(data.frames, graphs, nj=nj), strict=True):
            if isinstance(path, CannotAlignError):
                aligned[utterance] = path
            else:
                states, score = path
                aligned[utterance] = UtteranceAlignment(
                    graph.context_independent(states), path_segments(graph, states), score
                )
        return aligned

    def _search(self, graph: TranscriptGraph, scores: np.ndarray) -> PathOrError:
        try:
            if graph.starts is not None:
                return best_split(scores, graph)
            return viterbi(scores, graph, beam=self.beam)
        except CannotAlignError as error:
            return error

    def save(self, folder: Path) -> None:
        """Writes the net, the priors and the tree into an existing folder; nothing is pickled."""
        assert not isinstance(self.classifier, LdaClassifier), "only nets are saved"
        self.classifier.save(folder)
        if self.tree is not None:
            write_tree(self.tree, folder)
        np.save(folder / _PRIORS, self.log_priors, allow_pickle=False)


def load_aligner(folder: Path, *, beam: float = 0.0) -> Aligner:
    """The aligner that `Aligner.save` wrote; raises UserError where a file is missing or damaged."""
    tree = read_tree(folder) if (folder / TREE).exists() else None
    return Aligner(NetClassifier.load(folder), read_array(folder / _PRIORS), tree, beam)
