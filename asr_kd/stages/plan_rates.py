"""How fast this machine is at what a recipe spends its time on: steps of the real code on made-up speech."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.lda import random_transform
from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.settings import DnnConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.alignment.topology import NUM_HMM_STATES, compile_transcript
from asr_kd.alignment.viterbi import viterbi
from asr_kd.corpora.audio import check_audio
from asr_kd.frames.features import FRAME_SHIFT, fbank
from asr_kd.frames.source import Context
from asr_kd.kernels.switch import one_thread
from asr_kd.lang.lexicon import make_lang
from asr_kd.stages.plan_models import SystemPlan
from asr_kd.workspace.config import Config

_MEASURED_BATCHES = (32, 128)
_STEPS, _TIMES = 3, 3


class RandomWindows:
    """Made-up chunks of one long utterance: the step is timed, not the data (`asr_kd.frames.windows.Windows`)."""

    def __init__(self, num_frames: int, context: Context, num_dims: int) -> None:
        self.offsets = np.array([0, num_frames])
        self._context = context
        generator = torch.Generator().manual_seed(1)
        self._frames = torch.randn(num_frames + context.frames, num_dims, generator=generator)

    def inputs(self, frames: torch.Tensor, length: int = 1) -> torch.Tensor:
        """See `Windows.inputs`."""
        rows = frames[:, None] + torch.arange(length + self._context.frames)
        return self._frames[rows.clamp_max(len(self._frames) - 1)]


def step_seconds(plan: SystemPlan, batch: int, steps: int = _STEPS) -> float:
    """Of one real training step of one member, on this machine's CPU: the best of some runs of a few."""
    settings = plan.system.model
    windows = RandomWindows(batch * steps, settings.context, plan.num_dims)
    transform = None
    if isinstance(settings, DnnConfig):
        transform = random_transform(plan.num_inputs, settings.lda_dims)
    model = build_model(settings, num_dims=plan.num_dims, num_senones=plan.num_senones, seeds=[1], transform=transform)
    labels = np.arange(batch * steps) % plan.num_senones
    training = replace(plan.system.training, batch_size=batch, epochs=1 + _TIMES, patience=0)  # the first warms up
    criterion = HardTargets(labels, torch.device("cpu"))
    progress = fit(model, TrainingData(windows), criterion, training, RunControl(seed=1))
    return min(float(row["seconds"]) for row in progress.rows[1:]) / steps


def training_seconds(plan: SystemPlan, frames: float) -> float:
    """A step takes a time for its weights and a time for each frame; both from two sizes of batch."""
    training, chunk = plan.system.training, plan.system.model.chunk_frames
    small, large = (batch * max(1, chunk // 8) for batch in _MEASURED_BATCHES)
    first, second = step_seconds(plan, small), step_seconds(plan, large)
    each = max(0.0, second - first) / (large - small) or second / large
    fixed = max(0.0, first - each * small)
    steps = training.epochs * frames / training.batch_size
    return plan.system.num_models * steps * (fixed + each * training.batch_size)


def audio_rate(config: Config) -> float:
    """Seconds of FLAC that one core reads and checks a second."""
    import soundfile

    seconds, rate = 20, config.corpus.sampling_rate
    noise = np.random.default_rng(1).normal(0, 0.05, seconds * rate)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.flac"
        soundfile.write(path, noise, rate)
        return seconds / min(_seconds(lambda: check_audio(path, rate)) for _ in range(1 + _TIMES))


def feature_rate(config: Config) -> float:
    """Frames a second, one core."""
    rate = config.corpus.sampling_rate
    samples = np.random.default_rng(1).normal(0, 0.1, (1, 20 * rate)).astype(np.float32)
    with one_thread():
        seconds = [_seconds(lambda: fbank(samples, rate, config.features.num_mel_bins)) for _ in range(1 + _TIMES)]
    return samples.shape[1] / rate / FRAME_SHIFT / min(seconds)


def viterbi_rate() -> float:
    """Frames a second, one core, through the graph of an utterance of usual length."""
    lang = make_lang(["WORD"], {"WORD": [("W", "ER", "D", "AH")]})
    graph = compile_transcript(["WORD"] * 33, lang)
    scores = np.random.default_rng(1).normal(0, 3, (1230, NUM_HMM_STATES * len(lang.phones))).astype(np.float32)
    return len(scores) / min(_seconds(lambda: viterbi(scores, graph)) for _ in range(1 + _TIMES))


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
