"""`asr-kd plan`: what a config will take, before any of it is run: frames, parameters, FLOPs, disk, memory, hours.

Training, which takes nearly all of the time, is timed on this machine by real steps of the config's own models, one
member of each; reading, features and Viterbi on made-up speech. Decoding depends on a graph that may not be there yet:
its cost is scaled from the recipe's measured runs, by the number of n-grams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from asr_kd.alignment.set_alignment import alignment_bytes
from asr_kd.corpora.openslr import OPENSLR, disk_from_nothing
from asr_kd.corpora.registry import CORPORA
from asr_kd.distillation.soft_target_worker import FRAMES_AT_ONCE
from asr_kd.distillation.store import stored_bytes
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_SHIFT
from asr_kd.frames.sampler import BLOCK_FRAMES
from asr_kd.frames.store import store_bytes
from asr_kd.io.formatting import human_bytes
from asr_kd.io.stamp import read_stamp
from asr_kd.lang.ngram import read_counts
from asr_kd.stages.language import ARCS_PER_NGRAM, bytes_on_disk, bytes_to_compile, bytes_to_read
from asr_kd.stages.plan_models import LABEL, PROCESS, UTTERANCE, SystemPlan, plans_of, windows_bytes
from asr_kd.stages.plan_rates import audio_rate, feature_rate, training_seconds, viterbi_rate
from asr_kd.workspace.config import TRAIN, Config
from asr_kd.workspace.executor import default_jobs
from asr_kd.workspace.sets import all_sets
from asr_kd.workspace.work import Workspace

GPU_TFLOPS = 312.0  # an A100's bf16 peak, from its maker's data sheet
GPU_SHARE = 0.35  # of a GPU's peak that training steps of this kind reach; an assumption
EIGHT = 0.85  # of eight times one GPU's speed; an assumption
SECONDS_OF_UTTERANCE = 12.3  # LibriSpeech's mean
# Measured on 3.5 hours and their graph (recipes/librispeech/RESULTS.md, benchmarks/bench_graph.py). Bytes: a process
# that computes features; the flat start's graphs of an hour; stage 1 without the language model. Seconds: learning to
# pronounce words from their letters. Decoding: bytes of a process for each arc of the graph, and for its search; the
# real-time factor of a small net; seconds of a core to compile an n-gram.
_HELPER, _GRAPH, _PREPARE, _SECONDS_OF_LETTERS = 0.4e9, 6e6, 0.7e9, 75.0
_BYTES_PER_ARC, _SEARCH, _REAL_TIME_FACTOR, _SECONDS_PER_NGRAM = 105.0, 1.5e9, 0.045, 3.2e-4
# The posteriors of a batch of the report, over all members, with temporary arrays: three reports of one run took 1.2,
# 1.5 and 2.4 GB in all; the plan allows for the largest.
_POSTERIORS = 1.6e9
# Seconds of a core and a frame: a round of the flat start, the last alignment; and that machine's Viterbi rate.
_ROUND, _LAST_ALIGNMENT, _VITERBI_RATE = 6.0 / 360_000, 2.0 / 360_000, 2.6e6
_OPENSLR_NGRAMS = 1_420_000  # of 3-gram.pruned.3e-7, from its size at 9.6 bytes an n-gram, as those of our own gzipped


@dataclass(frozen=True)
class Row:
    """One stage; None is not known."""

    stage: str
    what: str
    flops: float = 0.0
    disk: float = 0.0  # bytes that it leaves
    memory: float | None = None  # bytes at once, of all its processes
    seconds: float | None = None  # on this machine
    gpu: bool = False  # whether it runs on one

    @property
    def trains(self) -> bool:
        """Whether a system is trained."""
        return self.flops > 0 and self.stage.startswith("train")

    def cells(self, gpu_tflops: float) -> list[str]:
        """Its line of the table."""
        gpu = self.flops / (gpu_tflops * 1e12 * GPU_SHARE) if self.gpu else None
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


_AT_ONCE = (
    "on CPUs systems that do not depend on each other train side by side unless --nj is 1: their memory adds up, and "
    "they take less time"
)


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
        seconds = sum(row.seconds or 0.0 for row in self.rows)
        disk = sum(row.disk for row in self.rows)
        hours = self.frames * FRAME_SHIFT / 3600
        return "\n".join(
            [
                f"{self.frames:,} training frames ({hours:.1f} hours, altered copies included)",
                *(line.rstrip() for line in table),
                f"together {human_bytes(disk)} of disk and {_hours(seconds)} on this machine, of {default_jobs()} "
                "cores; downloading comes on top",
                f"decoding is scaled from a measured graph and its beams: a real-time factor of {_REAL_TIME_FACTOR:g} "
                "on one core for each model",
                *([_AT_ONCE] if sum(row.trains for row in self.rows) > 2 else []),
                f"a GPU is one of {self.gpu_tflops:g} TFLOP/s, of which training is assumed to reach {GPU_SHARE:.0%}; "
                f"eight are assumed to be {8 * EIGHT:.1f} times as fast",
            ]
        )


@dataclass(frozen=True)
class Speech:
    """Hours of each set, without altered copies; training frames with them."""

    hours: Mapping[str, float]
    frames: int

    @property
    def train(self) -> float:
        """Hours."""
        return self.hours[TRAIN]

    @property
    def utterances(self) -> float:
        """Of all sets."""
        return sum(self.hours.values()) * 3600 / SECONDS_OF_UTTERANCE

    @property
    def scored(self) -> float:
        """Seconds of all sets but train."""
        return (sum(self.hours.values()) - self.train) * 3600

    @property
    def largest_scored(self) -> int:
        """Frames of the largest set but train."""
        return round(max((h for name, h in self.hours.items() if name != TRAIN), default=0.0) * 3600 / FRAME_SHIFT)


Timed = tuple[SystemPlan, float | None]  # with the seconds of a frame through one of its models, where measured


def plan(
    config: Config, work: Workspace, *, gpu_tflops: float = GPU_TFLOPS, measure: bool = True, prepared: bool = True
) -> Plan:
    """Counts, and with `measure` times, every stage.

    Args:
      prepared: plan for what is in data/, where there is something, and not for the config's parts.
      gpu_tflops: peak speed of the GPU whose hours are given, 10^12 operations a second.

    Raises:
      UserError: how much speech there is follows neither from data/ nor from the corpus's known parts.
    """
    speech = _speech(config, work, prepared=prepared)
    rows = [*_before_training(config, speech, measure=measure)]
    timed: dict[str, Timed] = {}
    targets: set[str] = set()
    for system in plans_of(config):
        needed = system.system.stored_targets
        if needed is not None and needed.name not in targets:
            rows.append(_soft_targets(system, [timed[name] for name in system.system.teachers], speech))
            targets.add(needed.name)
        row, seconds = _training(system, timed, speech, measure=measure)
        rows.append(row)
        timed[system.name] = system, seconds
    systems = list(timed.values())
    rows += [_decode(work, systems, speech, measure=measure), _report(config, systems, speech)]
    return Plan(speech.frames, rows, gpu_tflops)


def _training(
    plan: SystemPlan, timed: Mapping[str, Timed], speech: Speech, *, measure: bool
) -> tuple[Row, float | None]:
    """Its row, and the seconds of a frame through one of its models."""
    system, costs, stage = plan.system, plan.costs, f"train {plan.name}"
    if system.reuse:
        row = Row(stage, f"the first {system.num_models} of {system.reuse}", disk=plan.weights,
                  memory=PROCESS + plan.weights, seconds=0.0 if measure else None)  # fmt: skip
        return row, timed[system.reuse][1]
    frames = system.train_fraction * speech.frames
    passes = frames * system.training.epochs
    seconds = training_seconds(plan, frames) if measure else None
    flops, of_frame = costs.training_flops * passes * system.num_models, None
    if seconds is not None:  # the forward pass's share
        of_frame = seconds / (passes * system.num_models) * costs.forward_flops / costs.training_flops
    if system.targets is not None and system.targets.online:
        teachers = [timed[name] for name in system.teachers]
        flops += passes * sum(teacher.forward_flops for teacher, _ in teachers)
        seconds = None if seconds is None else seconds + passes * (_forward_seconds(teachers) or 0.0)
    fraction = f" of {system.train_fraction:g} of the frames" if system.train_fraction < 1 else ""
    what = f"{system.num_models} x {costs.parameters:,} parameters, {system.training.epochs} epochs{fraction}"
    return Row(stage, what, flops, plan.weights, plan.memory(speech.frames), seconds, gpu=True), of_frame


def _speech(config: Config, work: Workspace, *, prepared: bool) -> Speech:
    copies = sum(1 / speed for speed in config.features.speeds)
    hours: dict[str, float] = {}
    if prepared:
        for name in all_sets(config, work):
            stamp = read_stamp(work.cuts_stamp(name))
            hours |= {} if stamp is None else {name: float(stamp["metadata"]["minutes"]) / 60}
    if TRAIN not in hours:
        known = CORPORA[config.corpus.name].part_hours
        if not {part for parts in config.sets.values() for part in parts} <= known.keys():
            raise UserError(
                f"how much speech there is to train on is not known yet; make the cuts first: {work.command('prepare')}"
            )
        hours = {name: sum(known[part] for part in parts) for name, parts in config.sets.items()}
    return Speech(hours, round(hours[TRAIN] * 3600 / FRAME_SHIFT * copies))


def _before_training(config: Config, speech: Speech, *, measure: bool) -> Iterator[Row]:
    cores, bins = default_jobs(), config.features.num_mel_bins
    parts = dict.fromkeys(part for of_set in config.sets.values() for part in of_set if part in OPENSLR.parts)
    if parts:
        fetched, most, left = disk_from_nothing(list(parts))
        what = f"{len(parts)} parts of OpenSLR, {human_bytes(fetched)}; {human_bytes(most)} of disk on the way"
        yield Row("download", what, disk=left)
    guessing = config.lang.units == "phones" and config.lang.guess_pronunciations
    seconds = None
    if measure:
        hours = sum(speech.hours.values())
        seconds = hours * 3600 / (audio_rate(config) * cores) + _SECONDS_OF_LETTERS * guessing
    memory = _PREPARE + bytes_to_read(_OPENSLR_NGRAMS) + UTTERANCE * speech.utterances
    yield Row(
        "prepare", "cuts, lexicon, language model", disk=400.0 * speech.utterances, memory=memory, seconds=seconds
    )

    utterances = round(speech.train * 3600 / SECONDS_OF_UTTERANCE * len(config.features.speeds))
    frames = speech.frames + round(speech.scored / FRAME_SHIFT)
    stored = store_bytes(frames, utterances + round(speech.scored / SECONDS_OF_UTTERANCE), bins)
    seconds = frames / (feature_rate(config) * cores) if measure else None
    yield Row("features", f"{bins} log-mel filterbanks", disk=stored, memory=(1 + cores) * _HELPER, seconds=seconds)

    subset = min(config.alignment.subset_hours, speech.train)
    of_subset = subset * 3600 / FRAME_SHIFT
    rounds = config.alignment.linear_rounds + config.alignment.rounds
    work = config.alignment.phases * frames * _LAST_ALIGNMENT + rounds * of_subset * _ROUND
    seconds = work * _VITERBI_RATE / viterbi_rate() / cores if measure else None
    held = speech.frames if speech.frames <= BLOCK_FRAMES else round(of_subset)
    memory = 2 * PROCESS + _GRAPH * subset + windows_bytes(held, bins) + LABEL * held + UTTERANCE * utterances
    disk = alignment_bytes(frames, num_trees=len(config.trees))
    yield Row("align", f"{config.alignment.leaves} senones", disk=disk, memory=memory, seconds=seconds)


def _soft_targets(plan: SystemPlan, teachers: Sequence[Timed], speech: Speech) -> Row:
    """The targets of a system; those of another toolkit (no teachers) are only copied."""
    targets, cores = plan.system.targets, default_jobs()
    assert targets is not None
    entries = min(targets.max_entries, plan.num_senones)
    forward = sum(teacher.forward_flops for teacher, _ in teachers) * speech.frames
    of_frame = _forward_seconds(teachers)
    seconds = None if of_frame is None else of_frame * speech.frames
    members = sum(teacher.system.num_models for teacher, _ in teachers)
    weights = sum(teacher.weights for teacher, _ in teachers)
    # members are read one by one and stacked; a batch's posteriors are there before and after the softmax and the mean
    batch = 4.0 * FRAMES_AT_ONCE * (3 * members + 4) * plan.num_senones
    each = PROCESS + 2 * weights + batch + UTTERANCE * speech.utterances
    what = f"{targets.name}: at most {entries} entries a frame; memory with --nj {cores}"
    disk = stored_bytes(speech.frames, entries, exact=targets.keep_mass >= 1 and entries == plan.num_senones)
    return Row("soft-targets", what, forward, disk, PROCESS + cores * each, seconds, gpu=True)


def _decode(work: Workspace, systems: Sequence[Timed], speech: Speech, *, measure: bool) -> Row:
    """Of as many models as are decoded; an ensemble's members answer together."""
    model, cores = work.lm / "G.arpa", default_jobs()
    known = model.is_file()
    ngrams = sum(read_counts(model)) if known else _OPENSLR_NGRAMS
    decoded = sum(1 if plan.system.is_ensemble else plan.system.num_models for plan, _ in systems)
    seconds = None
    if measure:
        forward = (_forward_seconds(systems) or 0.0) * speech.scored / FRAME_SHIFT
        seconds = decoded * _REAL_TIME_FACTOR * speech.scored / cores + _SECONDS_PER_NGRAM * ngrams + forward
    each = PROCESS + _SEARCH + _BYTES_PER_ARC * ARCS_PER_NGRAM * ngrams
    each += max((plan.weights for plan, _ in systems), default=0.0)
    memory = max(bytes_to_compile(ngrams), cores * each + PROCESS)
    source = "" if known else ", as OpenSLR's 3-gram.pruned.3e-7"
    what = f"{decoded} models, graph of {ngrams / 1e6:.2f} M n-grams{source}"
    flops = sum(plan.forward_flops for plan, _ in systems) * speech.scored / FRAME_SHIFT
    return Row("decode", what, flops, bytes_on_disk(ngrams), memory, seconds)


def _forward_seconds(systems: Sequence[Timed]) -> float | None:
    """Of a frame through all models of the systems, on all cores."""
    measured = [seconds * plan.system.num_models for plan, seconds in systems if seconds is not None]
    return sum(measured) if measured else None


def _report(config: Config, systems: Sequence[Timed], speech: Speech) -> Row:
    """Every model on every scored set."""
    frames = speech.scored / FRAME_SHIFT
    flops = sum(plan.forward_flops for plan, _ in systems) * frames
    weights = sum(plan.weights for plan, _ in systems)
    memory = PROCESS + _POSTERIORS + weights + windows_bytes(speech.largest_scored, config.features.num_mel_bins)
    of_frame = _forward_seconds(systems)
    seconds = None if of_frame is None else of_frame * frames
    return Row("report", "frames of the scored sets", flops, 0.0, memory, seconds)
