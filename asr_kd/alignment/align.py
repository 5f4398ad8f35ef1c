"""Forced alignment from scratch: features, transcripts and a lexicon -> the state of every frame.

Shapes:  T frames of an utterance, D dimensions of a frame, U utterances.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asr_kd.alignment.aligner import UtteranceAlignment
from asr_kd.alignment.flat_start import flat_start
from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.alignment.topology import CannotAlignError
from asr_kd.alignment.transcripts import TranscribedFrames
from asr_kd.frames.features import FRAME_SHIFT
from asr_kd.frames.source import ArrayFrames
from asr_kd.lang.lexicon import Lang


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
    speeds = np.ones(len(features), np.float32)
    data = TranscribedFrames(ArrayFrames(features), texts, speeds, durations, lang, settings.optional_silence)
    aligner = flat_start(data, settings, seed=seed, nj=nj)
    alignments = aligner.align(data, range(len(features)), nj=nj)
    return [alignments[utterance] for utterance in range(len(features))]
