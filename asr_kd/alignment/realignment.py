"""Realignment: a net that is trained on the senones of an alignment aligns again, and better.

The flat start's net sees hardly more than one frame and no phone's neighbours, or it would learn the equal alignment by
heart. Once there is an alignment, a tree of its phones in context tells apart what these states are like between other
phones, and a net with a wide window learns where one gives way to the next. Its posteriors over priors then align the
transcripts anew, with every pronunciation and every optional silence chosen again.

Shapes:  N frames of the utterances that it learns from, C senones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.model import build_model, pick_device
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.alignment.aligner import Aligner, UtteranceAlignment
from asr_kd.alignment.classifiers import NetClassifier
from asr_kd.alignment.flat_start import flat_start
from asr_kd.alignment.set_alignment import AlignedBlock, align_block
from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.alignment.topology import CannotAlignError
from asr_kd.alignment.transcripts import TranscribedFrames
from asr_kd.alignment.tree_growing import grow_tree_of_set
from asr_kd.frames.features import FRAME_SHIFT
from asr_kd.frames.source import ArrayFrames
from asr_kd.frames.windows import windows_of
from asr_kd.lang.lexicon import Lang

log = logging.getLogger(__name__)

_BLOCK = 256  # utterances aligned at once

MapBlocks = Callable[[Callable[[range], AlignedBlock], Sequence[range]], Iterable[AlignedBlock]]


def realign(
    aligner: Aligner,
    data: TranscribedFrames,
    settings: AlignmentConfig,
    control: RunControl,
    *,
    nj: int = 1,
    map_blocks: MapBlocks = map,
) -> Aligner:
    """One round: an aligner that knows the phones in context.

    It learns from up to `settings.subset_hours` of these utterances; those that `aligner` cannot align take no part.

    Args:
      aligner: of the flat start, or of the round before.
      control: of the net's training; its seed also draws the utterances.
      nj: threads of the search.
      map_blocks: as `map`; one that keeps what a killed run has aligned resumes.

    Raises:
      CannotAlignError: no utterance can be aligned.
      DivergedError: a loss or a weight of the net is not finite.
    """
    chosen = data.selected(data.choose_subset(settings.subset_hours, control.seed))
    size = len(chosen.texts)
    blocks = [range(first, min(first + _BLOCK, size)) for first in range(0, size, _BLOCK)]
    aligned = map_blocks(partial(align_block, chosen, aligner=aligner, nj=nj), blocks)
    contexts = np.concatenate([block["contexts"] for block in aligned])
    tree = grow_tree_of_set(chosen, contexts, settings, seed=control.seed)
    senones = np.concatenate(list(tree.senone_blocks(contexts)))
    model_settings, device = settings.realign.model, pick_device()
    model = build_model(
        model_settings, num_dims=data.frames.num_dims, num_senones=tree.num_senones, seeds=[control.seed]
    ).to(device)
    windows = windows_of(chosen.frames, model_settings.context, device=device)
    training = TrainingData(windows, valid=senones >= 0)
    progress = fit(model, training, HardTargets(senones, device), settings.realign.training, control)
    log.info(
        "realignment: the net has %.1f %% of the frames right that it learnt from",
        100 * progress.rows[-1]["train_accuracy"][0],
    )
    return Aligner(NetClassifier(model), tree.log_priors(), tree, settings.beam)


def align(
    features: Sequence[np.ndarray],
    texts: Sequence[str],
    lang: Lang,
    settings: AlignmentConfig | None = None,
    *,
    seed: int = 1,
    nj: int = 1,
) -> list[UtteranceAlignment | CannotAlignError]:
    """Trains an aligner on these utterances by a flat start and realignment, and aligns them with it.

    Args:
      features: (T, D) log-mel energies of each utterance, 10 ms a frame. The mean of each utterance is subtracted,
        and the variance of all is made 1.
      texts: the transcript of each, words of `lang` with spaces between them.
      settings: None: the defaults.
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
    unaltered = np.ones(len(features), bool)
    data = TranscribedFrames(ArrayFrames(features), texts, unaltered, durations, lang, settings.optional_silence)
    aligner = flat_start(data, settings, seed=seed, nj=nj)
    for number in range(settings.realign_rounds):
        aligner = realign(aligner, data, settings, RunControl(seed=seed + number), nj=nj)
    alignments = aligner.align(data, range(len(features)), nj=nj)
    return [alignments[utterance] for utterance in range(len(features))]
