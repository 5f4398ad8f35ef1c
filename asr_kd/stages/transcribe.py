"""`asr-kd transcribe`: own recordings to words, with a trained system and the scales that dev chose for it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asr_kd.corpora.audio import BadAudio, check_audio
from asr_kd.decoding.decoder import make_decoder
from asr_kd.decoding.graph import read_graph
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_LENGTH, fbank
from asr_kd.frames.store import FrameStore, write_store
from asr_kd.stages.decode import system_named, task_of
from asr_kd.stages.decode_results import read_summary
from asr_kd.stages.decode_worker import loglikes_of
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace


def transcribe(
    config: Config, work: Workspace, system: str, audio_paths: Sequence[Path], backend: str = "k2"
) -> list[tuple[Path, str]]:
    """Recognises whole recordings; of a system with several seeds the first one answers.

    Features are normalised by the mean of each recording (its speaker is not known) and the training set's scale.

    Returns:
      (path, words separated by spaces), in the order given; no words where no path was found.

    Raises:
      UserError: a recording cannot be used, the system was not decoded on dev yet, or parts do not fit together.
    """
    if not audio_paths:
        raise UserError("no recording given; name one or more WAV or FLAC files.")
    net = task_of(config, work, system_named(system)).nets[0]
    scales = read_summary(work, system, "dev")
    decoder = make_decoder(
        backend,
        read_graph(net.graph),
        config.decoding,
        acoustic_scale=scales["acoustic_scale"],
        word_penalty=scales["word_penalty"],
    )
    features = [
        (str(number), _features(path, config.corpus.sampling_rate, config.features.num_mel_bins))
        for number, path in enumerate(audio_paths)
    ]
    scale = FrameStore.open(work.frames("train")).scale
    with tempfile.TemporaryDirectory(prefix="asr_kd.") as folder:
        store = write_store(Path(folder) / "recordings", features, scale=scale)
        loglikes = [loglikes_of(net, store, u, config.decoding.prior_scale) for u in range(len(features))]
    hypotheses = decoder.decode(loglikes)
    return [(path, " ".join(found.words)) for path, found in zip(audio_paths, hypotheses, strict=True)]


def _features(path: Path, sampling_rate: int, num_mel_bins: int) -> np.ndarray:
    """(T, D) log-mel of a whole file."""
    import soundfile

    try:
        samples = check_audio(path, sampling_rate)
    except BadAudio as error:
        raise UserError(f"{error}.") from None
    if samples < FRAME_LENGTH * sampling_rate:
        raise UserError(f"{path} lasts less than 25 ms; there is nothing to recognise in it.")
    audio, _ = soundfile.read(path, dtype="float32")
    return fbank(audio[None], sampling_rate, num_mel_bins)
