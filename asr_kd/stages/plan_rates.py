"""How fast this machine is at what a recipe spends its time on: real steps of real code on made-up speech."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.lda import made_up_transform
from asr_kd.acoustic.model import AcousticModel
from asr_kd.acoustic.training import fit
from asr_kd.alignment.topology import NUM_HMM_STATES, compile_transcript
from asr_kd.alignment.viterbi import viterbi
from asr_kd.corpora.audio import check_audio
from asr_kd.frames.features import FRAME_SHIFT, fbank
from asr_kd.kernels.threads import one_thread
from asr_kd.lang.lexicon import make_lang
from asr_kd.stages.plan_models import NetPlan
from asr_kd.workspace.config import Config

_MEASURED_BATCHES = (32, 128)
_STEPS, _TIMES = 3, 3


class Noise:
    """Made-up windows: what is timed is the step, not the data."""

    def __init__(self, frames: int, num_inputs: int) -> None:
        self.num_frames, self.num_inputs = frames, num_inputs
        self._frames = torch.randn(frames, num_inputs, generator=torch.Generator().manual_seed(1))

    def inputs(self, frames: torch.Tensor) -> torch.Tensor:
        return self._frames[frames]


def step_seconds(net: NetPlan, batch: int, steps: int = _STEPS) -> float:
    """Of one real training step of one member, on this machine's CPU: the best of some runs of a few."""
    examples = Noise(batch * steps, net.num_inputs)
    states = np.arange(examples.num_frames) % net.num_states
    transform = made_up_transform(net.num_inputs, net.model.lda_dims)
    model = AcousticModel(net.model, net.num_inputs, net.num_states, [1], transform)
    settings = replace(net.training, batch_size=batch, epochs=1 + _TIMES, patience=0)  # the first epoch warms up
    progress = fit(model, examples, HardTargets(states, torch.device("cpu")), settings, seed=1)
    return min(float(row["seconds"]) for row in progress.rows[1:]) / steps


def training_seconds(net: NetPlan, frames: float) -> float:
    """A step takes so long for its weights and so long for each frame; both from two sizes of batch."""
    small, large = _MEASURED_BATCHES
    first, second = step_seconds(net, small), step_seconds(net, large)
    each = max(0.0, second - first) / (large - small) or second / large
    fixed = max(0.0, first - each * small)
    steps = net.training.epochs * frames / net.training.batch_size
    return net.members * steps * (fixed + each * net.training.batch_size)


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
