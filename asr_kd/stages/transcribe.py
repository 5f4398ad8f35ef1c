"""`asr-kd transcribe`: own recordings to words, by a trained system at the scales that dev chose for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_kd.corpora.audio import AudioFormat, BadAudio, read_audio
from asr_kd.decoding.settings import chosen_backend
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_LENGTH, fbank
from asr_kd.stages.decode_context import task_of
from asr_kd.stages.decode_results import read_summary
from asr_kd.stages.decode_worker import Loaded, SearchSettings, loglikes_of
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.sets import open_frames
from asr_kd.workspace.work import Workspace


def transcribe(
    config: Config, work: Workspace, audio_paths: Sequence[Path], system: str | None = None, backend: str | None = None
) -> list[tuple[Path, str | BadAudio]]:
    """Recognises whole recordings, "-" from standard input; a system with several seeds uses its first model.

    Features are normalised as those of a set whose speakers are not known.

    Args:
      system: None: the distilled one of the config's first comparison.
      backend: of BACKENDS; None: the first installed one.

    Returns:
      (path, words separated by spaces, or what is wrong with the recording), in the order given; no words where no path
      was found.

    Raises:
      UserError: the system was not decoded on dev yet, or parts do not fit together.
    """
    if not audio_paths:
        raise UserError("no recording given; name one or more audio files, or - for standard input.")
    if system is None:
        if not config.compare:
            raise UserError(f"{work.config_path} compares no systems; name one with --system.")
        system = config.compare[0].distilled
    config.system(system)
    scales = read_summary(work, system, DEV)
    # nothing is written: this command does not lock the work folder
    model, loaded = task_of(config, work, system, may_compile=False).models[0], Loaded()
    search = SearchSettings(config.decoding, chosen_backend(backend), scales["acoustic_scale"], scales["word_penalty"])
    normalisation = open_frames(work, TRAIN).normalisation
    decoder = loaded.decoder(model.graph, search)
    answers: list[tuple[Path, str | BadAudio]] = []
    for path in audio_paths:
        try:
            features = _features(path, config.corpus.audio_format, config.features.num_mel_bins)
        except BadAudio as error:
            answers.append((path, error))
            continue
        normalised = normalisation.of_unknown_speaker(features)
        (hypothesis,) = decoder.decode([loglikes_of(loaded, model, normalised, config.decoding.prior_scale)])
        answers.append((path, " ".join(hypothesis.words)))
    return answers


def _features(path: Path, audio_format: AudioFormat, num_mel_bins: int) -> NDArray[np.float16]:
    """(T, D) log-mel of a whole file, as in a FrameStore.

    Raises:
      BadAudio: the recording cannot be used.
    """
    samples = read_audio(Path("/dev/stdin") if path == Path("-") else path, audio_format)
    if len(samples) < FRAME_LENGTH * audio_format.sampling_rate:
        raise BadAudio(f"{path} lasts less than 25 ms; there is nothing to recognise in it")
    return fbank(samples[None], audio_format.sampling_rate, num_mel_bins).astype(np.float16)
