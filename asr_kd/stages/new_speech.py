"""What is subtracted from speech of somebody whom the corpus does not have, as an exported system does it.

A system that is trained with the means of speakers expects one of minutes of speech. A new recording is all that is
known of who speaks, and the mean of few words depends on these words. So some frames at the mean of training count with
those of the recording: the fewer, the more the corpus's speakers and microphones differ.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from asr_kd.acoustic.model import FrameModel
from asr_kd.frames.normalisation import Normalisation
from asr_kd.frames.store import FrameStore
from asr_kd.stages.export_posteriors import answering_model
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.sets import open_frames, open_labels
from asr_kd.workspace.work import Workspace, labels_of

log = logging.getLogger(__name__)

Piece = tuple[np.ndarray, np.ndarray]  # (T, D) normalised frames, and their (T,) senones

PRIORS = (0, 25, 50, 100, 200, 400)  # frames that are tried; more than four seconds of them hide who speaks
_UTTERANCES = 60  # of dev, spread over the set
_FRAMES = 300  # of each, its first: later on the mean of a recording is as good as any


def normalisation_of(config: Config, work: Workspace, system: str) -> Normalisation:
    """Returns the training set's normalisation, for new speech.

    How many frames of training's mean count is chosen on dev; none do for a system that was trained with the means of
    utterances, or running ones.

    Raises:
      UserError: an earlier stage has not run.
    """
    normalisation = open_frames(work, TRAIN).normalisation.for_new_speech()
    if config.features.mean != "speaker":
        return normalisation
    dev = open_frames(work, DEV)
    labels = open_labels(work, dev, config.system(system).tree)
    model = answering_model(config, work, system)
    return replace(normalisation, prior_frames=chosen_prior(model, normalisation, dev, labels))


def inputs_of(config: Config, work: Workspace, system: str) -> dict[str, str]:
    """Digests for the stamp of what `normalisation_of` gives, beside the training set's frames and the model."""
    if config.features.mean != "speaker":
        return {}
    dev = open_frames(work, DEV)
    labels = dev.array_stamp(labels_of(config.system(system).tree)) or {"digest": "none"}
    return {"frames of dev": dev.digest, "labels of dev": labels["digest"]}


def chosen_prior(model: FrameModel, normalisation: Normalisation, dev: FrameStore, labels: np.ndarray) -> int:
    """How many frames of training's mean give the least cross-entropy; arguments as of `beginnings`."""
    entropies = {
        frames: cross_entropy(model, beginnings(replace(normalisation, prior_frames=frames), dev, labels))
        for frames in PRIORS
    }
    tried = ", ".join(f"{frames}: {entropy:.3f}" for frames, entropy in entropies.items())
    best = min(entropies, key=entropies.__getitem__)
    log.info("%d frames of training count with the mean of a recording (dev's cross-entropy: %s)", best, tried)
    return best


def beginnings(normalisation: Normalisation, dev: FrameStore, labels: np.ndarray) -> Iterator[Piece]:
    """Yields normalised beginnings of utterances, each of which is all that is known of its speaker, and their senones.

    Args:
      labels: (N,) senone of each of the store's frames; those below 0 do not count.
    """
    for utterance in dev.spread(_UTTERANCES):
        span = dev.span(utterance)
        begin = slice(span.start, min(span.stop, span.start + _FRAMES))
        yield normalisation.of_unknown_speaker(dev.features[begin]), np.asarray(labels[begin])


def cross_entropy(model: FrameModel, pieces: Iterable[Piece]) -> float:
    """Returns the cross-entropy of the model on the pieces, in nats a labelled frame."""
    total, count = 0.0, 0
    for frames, senones in pieces:
        labelled = np.flatnonzero(senones >= 0)
        posteriors = model.log_posteriors(frames).numpy()
        total -= float(posteriors[labelled, senones[labelled]].astype(np.float64).sum())
        count += len(labelled)
    return total / max(1, count)
