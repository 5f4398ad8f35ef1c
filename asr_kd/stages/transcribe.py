"""`asr-kd transcribe`: own recordings to words, by a trained system at the scales that dev chose for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from asr_kd.corpora.audio import BadAudio, check_audio
from asr_kd.decoding.registry import chosen_backend
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_LENGTH, check_features, fbank
from asr_kd.stages.decode import task_of
from asr_kd.stages.decode_results import read_summary
from asr_kd.stages.decode_worker import Loaded, SearchSettings, loglikes_of
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.sets import open_frames
from asr_kd.workspace.work import Workspace


def transcribe(
    config: Config, work: Workspace, audio_paths: Sequence[Path], system: str | None = None, backend: str | None = None
) -> list[tuple[Path, str]]:
    """Recognises whole recordings; a system with several seeds uses its first model.

    Features are normalised by the mean of each recording (its speaker is not known) and the training set's scale.

    Args:
      system: None: the distilled one of the config's first comparison.
      backend: of BACKENDS; None: the first installed one.

    Returns:
      (path, words separated by spaces), in the order given; no words where no path was found.

    Raises:
      UserError: a recording cannot be used, the system was not decoded on dev yet, or parts do not fit together.
    """
    if not audio_paths:
        raise UserError("no recording given; name one or more WAV or FLAC files.")
    if system is None:
        if not config.compare:
            raise UserError(f"{work.config_path} compares no systems; name one with --system.")
        system = config.compare[0].distilled
    model, loaded = task_of(config, work, system).models[0], Loaded()
    scales = read_summary(work, system, DEV)
    search = SearchSettings(config.decoding, chosen_backend(backend), scales["acoustic_scale"], scales["word_penalty"])
    scale = open_frames(work, TRAIN).scale
    loglikes = []
    for path in audio_paths:
        features = _features(path, config.corpus.sampling_rate, config.features.num_mel_bins)
        normalised = (features - features.mean(0, dtype=np.float64).astype(np.float32)) * scale
        loglikes.append(loglikes_of(loaded, model, normalised, config.decoding.prior_scale))
    hypotheses = loaded.decoder(model.graph, search).decode(loglikes)
    return [(path, " ".join(hypothesis.words)) for path, hypothesis in zip(audio_paths, hypotheses, strict=True)]


def _features(path: Path, sampling_rate: int, num_mel_bins: int) -> NDArray[np.float32]:
    """(T, D) log-mel of a whole file, rounded to float16 as in a FrameStore."""
    try:
        samples = check_audio(path, sampling_rate)
    except BadAudio as error:
        raise UserError(f"{error}.") from None
    if samples < FRAME_LENGTH * sampling_rate:
        raise UserError(f"{path} lasts less than 25 ms; there is nothing to recognise in it.")
    audio, _ = soundfile.read(path, dtype="float32")
    features = fbank(audio[None], sampling_rate, num_mel_bins).astype(np.float16)
    check_features(str(path), features)
    return features.astype(np.float32)
