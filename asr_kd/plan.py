"""`asr-kd plan`: what a config will take, before any of it is run: frames, parameters, FLOPs, disk, memory, hours.

Training, which is nearly all of it, is timed on this machine with real steps of the config's own nets, one member of
each; features and Viterbi on made-up speech. Decoding depends on a graph that is not there yet: it is not guessed.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from asr_kd.acoustic.loop import fit
from asr_kd.acoustic.model import AcousticModel
from asr_kd.acoustic.objectives import HardTargets
from asr_kd.alignment.topology import NUM_HMM_STATES, compile_graph
from asr_kd.alignment.viterbi import viterbi
from asr_kd.artifacts import Work, read_stamp
from asr_kd.capacity import human_bytes
from asr_kd.config import Config, ModelConfig, TrainingConfig
from asr_kd.corpora.openslr_files import OPENSLR
from asr_kd.errors import UserError
from asr_kd.frames.order import CHUNK_FRAMES
from asr_kd.frames.stage import fbank
from asr_kd.frames.store import FRAME_SHIFT, store_bytes
from asr_kd.lang.lexicon import make_lang
from asr_kd.parallel import default_nj

# Panayotov et al. (2015), table 1; the mini parts from their archives' sizes, at the same bytes an hour
HOURS = {
    "train-clean-100": 100.6, "train-clean-360": 363.6, "train-other-500": 496.7, "dev-clean": 5.4, "dev-other": 5.3,
    "test-clean": 5.4, "test-other": 5.1, "train-clean-5": 5.2, "dev-clean-2": 2.0,
}  # fmt: skip
GPU_TFLOPS = 312.0  # an A100's bf16 peak, from its maker's data sheet
GPU_SHARE = 0.35  # of a GPU's peak that training steps of this kind reach; an assumption
EIGHT = 0.85  # of eight times one GPU's speed; an assumption
_UTTERANCE = 12.3  # seconds, LibriSpeech's mean
# Measured on 3.5 hours (recipes/librispeech/RESULTS.md): a process with torch and numba loaded, one that makes
# features, an hour's graphs in the flat start; and a frame's label in training, once as numpy, once as torch.
_PROCESS, _HELPER, _GRAPH, _LABEL = 0.6e9, 0.4e9, 6e6, 17.0
_BYTES_PER_WEIGHT = 18  # weight, gradient, two moments in float32, and a copy in bf16
_MEASURED_BATCHES = (32, 128)
_STEPS = 3


@dataclass(frozen=True)
class NetPlan:
    """A training job: `members` nets of one shape, side by side."""

    name: str
    model: ModelConfig
    training: TrainingConfig
    members: int
    num_inputs: int
    num_states: int

    @property
    def sizes(self) -> list[int]:
        return [self.num_inputs, *[self.model.width] * self.model.layers, self.num_states]

    @property
    def parameters(self) -> int:
        """Of one member."""
        return sum((a + 1) * b for a, b in itertools.pairwise(self.sizes))

    @property
    def flops_per_frame(self) -> float:
        """Of one member: forward, gradient of the weights, and of each layer's input but the first's."""
        products = [2.0 * a * b for a, b in itertools.pairwise(self.sizes)]
        return 3 * sum(products) - products[0]

    def memory(self, frames: int) -> float:
        """Bytes: weights with all that training keeps of them, a batch's activations, the frames and their labels."""
        held = min(frames, 2 * CHUNK_FRAMES) * 4.0 * 40 + _LABEL * frames
        activations = 2 * 4.0 * self.training.batch_size * (sum(self.sizes) + 2 * self.num_states)
        return _PROCESS + self.members * (self.parameters * _BYTES_PER_WEIGHT + activations) + held


@dataclass(frozen=True)
class Row:
    """One stage; None is not known."""

    stage: str
    what: str
    flops: float
    disk: float  # bytes that it leaves
    memory: float | None  # bytes at once
    seconds: float | None  # on this machine

    def cells(self, gpu_tflops: float) -> list[str]:
        """Its line of the table."""
        gpu = self.flops / (gpu_tflops * 1e12 * GPU_SHARE) if self.flops else None
        return [
            self.stage,
            self.what,
            f"{self.flops:.1e}" if self.flops else "",
            human_bytes(self.disk) if self.disk else "",
            human_bytes(self.memory) if self.memory else "",
            _hours(self.seconds),
            _hours(gpu),
            _hours(None if gpu is None else gpu / (8 * EIGHT)),
        ]


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds / 3600:.3g} h" if seconds >= 360 else f"{seconds / 60:.2g} min"


@dataclass(frozen=True)
class Plan:
    """All of it; `str` is the table."""

    frames: int
    rows: list[Row]
    gpu_tflops: float = GPU_TFLOPS

    def __str__(self) -> str:
        head = ["stage", "what", "FLOPs", "disk", "memory", "here", "1 GPU", "8 GPUs"]
        lines = [head, *(row.cells(self.gpu_tflops) for row in self.rows)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
        table = [
            "  ".join(cell.ljust(w) if k < 2 else cell.rjust(w) for k, (cell, w) in enumerate(zip(line, widths)))
            for line in lines
        ]
        known = sum(row.seconds or 0.0 for row in self.rows)
        disk = sum(row.disk for row in self.rows)
        hours = self.frames * FRAME_SHIFT / 3600
        return "\n".join(
            [
                f"{self.frames:,} training frames ({hours:.1f} hours, altered copies included)",
                *(line.rstrip() for line in table),
                f"together {human_bytes(disk)} of disk and {_hours(known)} on this machine; decoding comes on top: its "
                "time depends on the graph and the beams",
                f"a GPU is one of {self.gpu_tflops:g} TFLOP/s, of which {GPU_SHARE:.0%} is assumed to be reached; "
                f"eight are assumed to be {8 * EIGHT:.1f} times one",
            ]
        )


def plan(config: Config, work: Work, *, gpu_tflops: float = GPU_TFLOPS, measure: bool = True) -> Plan:
    """Counts, and with `measure` times, everything up to the distilled students.

    Args:
      gpu_tflops: peak speed of the GPU whose hours are given, 10^12 operations a second.

    Raises:
      UserError: how much speech there is can be known neither from data/ nor from the names of LibriSpeech's parts.
    """
    hours = _hours_of_training(config, work)
    copies = sum(1 / speed for speed in config.features.speeds)
    frames = round(hours * 3600 / FRAME_SHIFT * copies)
    nets = list(_nets(config))
    rows = [*_before_training(config, frames, hours, measure=measure)]
    for net in nets:
        seconds = _training_seconds(net, frames) if measure else None
        flops = net.flops_per_frame * frames * net.members * net.training.epochs
        what = f"{net.members} x {net.parameters:,} parameters, {net.training.epochs} epochs"
        rows.append(Row(net.name, what, flops, 4.0 * net.members * net.parameters, net.memory(frames), seconds))
        if net.name == "train --ensemble":
            rows.append(_soft_targets(config, net, frames, seconds))
    return Plan(frames, rows, gpu_tflops)


def _hours_of_training(config: Config, work: Work) -> float:
    prepared = read_stamp(work.data) if work.data.exists() else None
    if prepared is not None:
        return float(prepared["facts"]["sets"]["train"]["minutes"]) / 60
    unknown = [part for part in config.corpus.train_parts if part not in HOURS]
    if config.corpus.name != "librispeech" or unknown:
        raise UserError(
            f"how much speech there is to train on is not known yet; make the cuts first: {work.command('prepare')}"
        )
    return sum(HOURS[part] for part in config.corpus.train_parts)


def _nets(config: Config) -> Iterator[NetPlan]:
    """Every training job, in the order of the stages."""

    def net(name: str, model: ModelConfig, training: TrainingConfig, members: int, states: int = 0) -> NetPlan:
        inputs = (model.left_context + 1 + model.right_context) * config.features.num_mel_bins
        return NetPlan(name, model, training, members, inputs, states or config.alignment.leaves)

    teacher = config.teacher
    yield net("train --ensemble", teacher.model, teacher.training, teacher.members)
    for suffix, student in (("", config.student), (" --pair small", config.small)):
        if student is not None:
            yield net(f"train{suffix}", student.model, student.direct, student.seeds)
            yield net(f"distill{suffix}", student.model, student.distilled.training, student.seeds)
    if config.monophone:
        student, states = config.student, NUM_HMM_STATES * len(make_lang([], {}).phones)
        yield net("train --pair monophone", student.model, student.direct, 1, states)


def _before_training(config: Config, frames: int, hours: float, *, measure: bool) -> Iterator[Row]:
    if config.corpus.name == "librispeech":
        wanted = {*config.corpus.train_parts, *config.corpus.dev_parts, *config.corpus.test_parts} & set(OPENSLR.parts)
        archives = sum(OPENSLR.parts[part].size for part in wanted)
        yield Row("download", f"{len(wanted)} parts of OpenSLR", 0.0, 1.05 * archives, None, None)
    utterances = round(hours * 3600 / _UTTERANCE * len(config.features.speeds))
    disk = store_bytes(frames, utterances, config.features.num_mel_bins)
    seconds = frames / (_feature_rate(config) * default_nj()) if measure else None
    yield Row(
        "features",
        f"{config.features.num_mel_bins} log-mel filterbanks",
        0.0,
        disk,
        (1 + default_nj()) * _HELPER,
        seconds,
    )
    subset = min(config.alignment.subset_hours, hours) * 3600 / FRAME_SHIFT
    searched = config.alignment.phases * frames + (config.alignment.linear_rounds + config.alignment.rounds) * subset
    seconds = searched / (_viterbi_rate() * default_nj()) if measure else None
    arrays = 4 + 4 * (1 + config.monophone) + 2.1  # contexts, the states of each tree, segments
    memory = 2 * _PROCESS + _GRAPH * min(config.alignment.subset_hours, hours) + _LABEL * frames
    yield Row("align", f"{config.alignment.leaves} tied states", 0.0, frames * arrays, memory, seconds)


def _soft_targets(config: Config, teacher: NetPlan, frames: int, training_seconds: float | None) -> Row:
    entries = min(config.soft_targets.max_entries, teacher.num_states)
    forward = 2.0 * sum(a * b for a, b in itertools.pairwise(teacher.sizes)) * teacher.members * frames
    # the forward pass is its share of a training epoch
    share = forward / (teacher.flops_per_frame * teacher.members * frames * teacher.training.epochs)
    seconds = None if training_seconds is None else training_seconds * share
    memory = _PROCESS + teacher.members * (4.0 * teacher.parameters + 4096 * 4.0 * 4 * teacher.num_states)
    disk = frames * (4.0 * entries + 10)
    return Row("soft-targets", f"at most {entries} entries a frame", forward, disk, memory, seconds)


class _Noise:
    """Made-up windows: what is timed is the step, not the data."""

    def __init__(self, frames: int, num_inputs: int) -> None:
        self.num_frames, self.num_inputs = frames, num_inputs
        self._frames = torch.randn(frames, num_inputs, generator=torch.Generator().manual_seed(1))

    def inputs(self, frames: torch.Tensor) -> torch.Tensor:
        return self._frames[frames]


def step_seconds(net: NetPlan, batch: int, steps: int = _STEPS) -> float:
    """Of one real training step of one member, on this machine's CPU."""
    examples = _Noise(batch * steps, net.num_inputs)
    states = np.arange(examples.num_frames) % net.num_states
    model = AcousticModel(net.model, net.num_inputs, net.num_states, [1])
    settings = replace(net.training, batch_size=batch, epochs=2, patience=0)  # the first epoch warms up
    progress = fit(model, examples, HardTargets(states, torch.device("cpu")), settings, seed=1)
    return float(progress.rows[-1]["seconds"]) / steps


def _training_seconds(net: NetPlan, frames: int) -> float:
    """A step takes so long for its weights and so long for each frame; both from two sizes of batch."""
    small, large = _MEASURED_BATCHES
    first, second = step_seconds(net, small), step_seconds(net, large)
    each = max(0.0, second - first) / (large - small) or second / large
    fixed = max(0.0, first - each * small)
    steps = net.training.epochs * frames / net.training.batch_size
    return net.members * steps * (fixed + each * net.training.batch_size)


def _feature_rate(config: Config) -> float:
    """Frames a second, one core."""
    rate = config.corpus.sampling_rate
    samples = np.random.default_rng(1).normal(0, 0.1, (1, 20 * rate)).astype(np.float32)
    fbank(samples[:, :rate], rate, config.features.num_mel_bins)
    started = time.perf_counter()
    found = fbank(samples, rate, config.features.num_mel_bins)
    return len(found) / (time.perf_counter() - started)


def _viterbi_rate() -> float:
    """Frames a second, one core, through the graph of an utterance of usual length."""
    lang = make_lang(["WORD"], {"WORD": [("W", "ER", "D", "AH")]})
    graph = compile_graph(["WORD"] * 33, lang)
    scores = np.random.default_rng(1).normal(0, 3, (1230, NUM_HMM_STATES * len(lang.phones))).astype(np.float32)
    viterbi(scores[:600], graph)
    started = time.perf_counter()
    viterbi(scores, graph)
    return len(scores) / (time.perf_counter() - started)
