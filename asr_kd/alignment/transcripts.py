"""What is aligned: utterances with their transcripts, and the graphs of these.

Shapes:  U utterances, T frames of an utterance, K phones of its transcript.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.context_graph import compile_in_context
from asr_kd.alignment.topology import CannotAlignError, TranscriptGraph, compile_transcript
from asr_kd.alignment.tree import Tree
from asr_kd.frames.source import ConcatFrames, FrameSource, SelectedFrames
from asr_kd.frames.store import FrameStore
from asr_kd.lang.lexicon import Lang

Starts = dict[int, NDArray[np.int32]]  # utterance -> (K + 1,) first frame of each phone, then T
Failures = dict[int, str]  # utterance -> why it has no alignment


@dataclass(frozen=True)
class TranscribedFrames:
    """The utterances of a set."""

    frames: FrameSource
    texts: Sequence[str]  # (U,) transcripts, words of `lang` with spaces between them
    unaltered: np.ndarray  # (U,) bool, False for altered copies
    durations: np.ndarray  # (U,) float64, seconds
    lang: Lang
    optional_silence: bool = True  # allow silence that a transcript does not name
    # where each phone begins, if that is known: alignments keep to it; an utterance that is not in it has fewer frames
    # than phones
    starts: Starts | None = None
    # (U,) int64, the utterance whose alignment each one gets. Warping the frequency axis changes no time: a warped copy
    # gets that of the copy without warp. None: each its own
    aligned_as: np.ndarray | None = None

    @classmethod
    def of_store(
        cls, store: FrameStore, lang: Lang, optional_silence: bool = True, starts: Starts | None = None
    ) -> TranscribedFrames:
        texts, durations = store.texts, store.durations
        return cls(store, texts, store.unaltered, durations, lang, optional_silence, starts, store.unwarped)

    @classmethod
    def concatenated(cls, parts: Sequence[TranscribedFrames], lang: Lang) -> TranscribedFrames:
        """The utterances of all parts, one part after the other; `starts` and `aligned_as` are dropped."""
        return cls(
            ConcatFrames([part.frames for part in parts]),
            [text for part in parts for text in part.texts],
            np.concatenate([part.unaltered for part in parts]),
            np.concatenate([part.durations for part in parts]),
            lang,
            parts[0].optional_silence,
        )

    def selected(self, utterances: Sequence[int]) -> TranscribedFrames:
        """Some of the utterances, numbered anew in this order; each gets an alignment of its own."""
        starts = self.starts
        return replace(
            self,
            frames=SelectedFrames(self.frames, utterances),
            texts=[self.texts[utterance] for utterance in utterances],
            unaltered=self.unaltered[utterances],
            durations=self.durations[utterances],
            starts=None if starts is None else {k: starts[u] for k, u in enumerate(utterances) if u in starts},
            aligned_as=None,
        )

    def span(self, utterance: int) -> slice:
        """The frame numbers of an utterance."""
        return slice(int(self.frames.offsets[utterance]), int(self.frames.offsets[utterance + 1]))

    def choose_subset(self, hours: float, seed: int) -> list[int]:
        """Unaltered utterances in random order up to `hours` of speech; their numbers, sorted."""
        order = np.random.default_rng(seed).permutation(np.flatnonzero(self.unaltered))
        until = int(np.searchsorted(np.cumsum(self.durations[order]), hours * 3600, side="left")) + 1
        chosen: list[int] = sorted(order[:until].tolist())
        return chosen

    def graphs(
        self, utterances: Iterable[int], tree: Tree | None = None
    ) -> tuple[dict[int, TranscriptGraph], Failures]:
        """The graph of each of these utterances that can have one, in order, and why the others cannot.

        Utterances with the same words share a graph. Where `starts` are known there is no optional silence, and each
        graph has the starts of its utterance.

        Args:
          tree: whose senones the graphs have; None: context-independent states.
        """
        silence = self.optional_silence and self.starts is None
        of_texts: dict[str, TranscriptGraph] = {}
        graphs: dict[int, TranscriptGraph] = {}
        failures: Failures = {}
        for utterance in utterances:
            text = self.texts[utterance]
            try:
                if text not in of_texts:
                    of_texts[text] = self._compiled(text.split(), tree, silence)
                graph = of_texts[text]
                graphs[utterance] = graph if self.starts is None else _with_starts(graph, self.starts.get(utterance))
            except CannotAlignError as error:
                failures[utterance] = str(error)
        return graphs, failures

    def _compiled(self, words: Sequence[str], tree: Tree | None, silence: bool) -> TranscriptGraph:
        if tree is None:
            return compile_transcript(words, self.lang, optional_silence=silence)
        return compile_in_context(words, self.lang, tree, optional_silence=silence)


def _with_starts(graph: TranscriptGraph, starts: NDArray[np.int32] | None) -> TranscriptGraph:
    if starts is None:
        raise CannotAlignError("it has fewer frames than phones")
    if len(starts) - 1 != len(graph.phone):
        raise CannotAlignError(
            f"its transcript has {len(graph.phone)} phones, but there are times of {len(starts) - 1}"
        )
    return replace(graph, starts=starts)
