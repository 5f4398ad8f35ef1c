"""Forced alignment from scratch: features, transcripts and a lexicon -> the state of every frame.

Shapes:  T frames of an utterance, D dimensions of a frame, U utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.aligner import Aligner
from asr_kd.alignment.flat_start import flat_start
from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.alignment.topology import NUM_HMM_STATES, CannotAlignError, Segments, path_segments
from asr_kd.alignment.transcripts import GraphCompiler, TranscribedFrames
from asr_kd.frames.array_frames import ArrayFrames
from asr_kd.frames.features import FRAME_SHIFT
from asr_kd.lang.lexicon import Lang


@dataclass(frozen=True)
class UtteranceAlignment:
    """The best path of an utterance.

    Attributes:
      states: (T,) int32, context-independent state of each frame: 3 * phone + HMM state.
      segments: the phones with their words and first frames.
      score: of the path, in nats.
    """

    states: NDArray[np.int32]
    segments: Segments
    score: float


def align(
    features: Sequence[np.ndarray],
    texts: Sequence[str],
    lang: Lang,
    settings: AlignmentConfig | None = None,
    *,
    seed: int = 1,
    nj: int = 1,
) -> list[UtteranceAlignment | CannotAlignError]:
    """Trains an aligner on these utterances by a flat start, and aligns them with it.

    Args:
      features: (T, D) log-mel energies of each utterance, 10 ms a frame. The mean of each utterance is subtracted,
        and the variance of all is made 1.
      texts: the transcript of each, words of `lang` with spaces between them.
      settings: of the flat start; None: the defaults.
      nj: threads of the search.

    Returns:
      For each utterance its alignment, or why there is none.

    Raises:
      CannotAlignError: no utterance at all can be aligned.

    >>> from asr_kd.lang.lexicon import Lang
    >>> lang = Lang(("SIL", "A", "B"), ("AB",), {"AB": ((1, 2),)})
    >>> rng = np.random.default_rng(0)
    >>> means = np.repeat([[0, 0], [4, 0], [0, 4], [0, 0]], 20, axis=0)  # silence, A, B, silence
    >>> features = [means + rng.normal(0, 0.3, means.shape) for _ in range(20)]
    >>> aligned = align(features, ["AB"] * 20, lang, AlignmentConfig(linear_rounds=4, rounds=4, batch_size=16))
    >>> [lang.phones[phone] for phone in aligned[0].segments.phone]
    ['SIL', 'A', 'B', 'SIL']
    >>> bool(abs(aligned[0].segments.start - [0, 20, 40, 60, 80]).max() < 4)
    True
    """
    settings = settings or AlignmentConfig()
    durations = np.array([len(frames) * FRAME_SHIFT for frames in features])
    data = TranscribedFrames(ArrayFrames(features), texts, np.ones(len(features), np.float32), durations)
    compiler = GraphCompiler(lang, settings.optional_silence, cache={})
    aligner = train_aligner(data, compiler, settings, seed=seed, nj=nj)
    graphs, failures = compiler.graphs(data, range(len(features)))
    alignments: dict[int, UtteranceAlignment | CannotAlignError] = {
        utterance: CannotAlignError(reason) for utterance, reason in failures.items()
    }
    paths = aligner.paths(data.frames, list(graphs.items()), nj=nj)
    for (utterance, graph), path in zip(graphs.items(), paths, strict=True):
        if isinstance(path, CannotAlignError):
            alignments[utterance] = path
        else:
            states, score = path
            alignments[utterance] = UtteranceAlignment(graph.classes[states], path_segments(graph, states), score)
    return [alignments[utterance] for utterance in range(len(features))]


def train_aligner(
    data: TranscribedFrames,
    compiler: GraphCompiler,
    settings: AlignmentConfig,
    *,
    seed: int,
    nj: int = 1,
    checkpoint: Path | None = None,
) -> Aligner:
    """A flat start on up to `settings.subset_hours` of these utterances, whose graphs are in memory while it runs.

    Args:
      checkpoint: see `flat_start`.

    Raises:
      CannotAlignError: no utterance can be aligned.
    """
    graphs, failures = compiler.graphs(data, data.choose_subset(settings.subset_hours, seed))
    if not graphs:
        reason = next(iter(failures.values()), "there is none")
        raise CannotAlignError(f"no utterance can be aligned; the first: {reason}")
    num_states = NUM_HMM_STATES * len(compiler.lang.phones)
    return flat_start(data.frames, graphs, num_states, settings, seed=seed, nj=nj, checkpoint=checkpoint)
