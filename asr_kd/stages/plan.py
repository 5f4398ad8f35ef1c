"""`asr-kd plan`: what a config will take, before any of it is run: frames, parameters, FLOPs, disk, memory, hours.

Nothing is guessed: sizes follow from the formulas of the code that writes the files, and hours from real training steps
of the config's own models on this machine. What follows from neither (reading the corpus, alignment, search) has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from asr_kd.io.cores import taken_cores, usable_cores
from asr_kd.io.files import read_lines
from asr_kd.io.formatting import human_bytes, plural, text_table
from asr_kd.io.stamp import read_stamp
from asr_kd.lang.ngram import read_counts
from asr_kd.stages.language import bytes_on_disk, bytes_to_compile
from asr_kd.stages.phone_graph import bytes_to_compile as bytes_to_compile_phones
from asr_kd.stages.phone_graph import graph_bytes as phone_graph_bytes
from asr_kd.stages.plan_models import (
    LABEL,
    PROCESS,
    UTTERANCE,
    SystemPlan,
    aligner_plan,
    flops_per_second,
    plans_of,
    windows_bytes,
)
from asr_kd.workspace.config import TRAIN, Config, SystemConfig
from asr_kd.workspace.sets import speech_sets
from asr_kd.workspace.work import Workspace

GPU_TFLOPS = 312.0  # an A100's bf16 peak, from its maker's data sheet
_BUSY = "other programs kept {} cores busy as steps began to be timed: the hours here may be several times too many"
GPU_SHARE = 0.35  # of a GPU's peak that training steps of this kind reach; an assumption
SECONDS_OF_UTTERANCE = 12.3  # LibriSpeech's mean; only small parts of the sizes depend on it

Speeds = Mapping[str, float | None]  # FLOPs a second of each system's models on this machine; None: not measured


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

    def cells(self, gpu_tflops: float) -> list[str]:
        """The row's line of the table."""
        return [
            f"{self.stage}: {self.what}",
            f"{self.flops:.1e}" if self.flops else "",
            human_bytes(self.disk) if self.disk else "",
            human_bytes(self.memory) if self.memory else "",
            _hours(self.seconds),
            _hours(self.flops / (gpu_tflops * 1e12 * GPU_SHARE) if self.gpu else None),
        ]


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 0.6:
        return "< 0.01 min"
    return f"{seconds / 3600:.3g} h" if seconds >= 360 else f"{seconds / 60:.2g} min"


@dataclass(frozen=True)
class Plan:
    """All of it; `str` is the table."""

    frames: int
    rows: list[Row]
    gpu_tflops: float = GPU_TFLOPS
    taken: int = 0  # cores that other programs kept busy as steps began to be timed

    def __str__(self) -> str:
        cells = [row.cells(self.gpu_tflops) for row in self.rows]
        hours = self.frames * FRAME_SHIFT / 3600
        seconds = sum(row.seconds or 0.0 for row in self.rows)
        return "\n".join(
            [
                f"{self.frames:,} training frames ({hours:.1f} hours, altered copies included)",
                text_table([["stage", "FLOPs", "disk", "memory", "here", "1 GPU"], *cells]),
                f"together {human_bytes(sum(row.disk for row in self.rows))} of disk and {_hours(seconds)} in nets on "
                f"this machine, of {usable_cores()} cores; reading the corpus, alignment and search come on top",
                "on CPUs systems that do not depend on each other train side by side unless asr-kd train has --nj 1: "
                "their memory adds up, and they take less time",
                f"the GPU is one of {self.gpu_tflops:g} TFLOP/s, of which training is assumed to reach {GPU_SHARE:.0%}",
                *([_BUSY.format(self.taken)] if self.taken else []),
            ]
        )


@dataclass(frozen=True)
class Speech:
    """Hours of each set, without altered copies; frames that systems learn from with them."""

    hours: Mapping[str, float]
    frames: int  # of training
    untranscribed: Mapping[str, int]  # set -> its frames

    @property
    def utterances(self) -> int:
        """The number of utterances of all sets, estimated from their hours."""
        return round(sum(self.hours.values()) * 3600 / SECONDS_OF_UTTERANCE)

    @property
    def scored_frames(self) -> int:
        """The number of frames of all sets that nothing is learnt from."""
        scored = [hours for name, hours in self.hours.items() if name not in (TRAIN, *self.untranscribed)]
        return round(sum(scored) * 3600 / FRAME_SHIFT)

    def extra_frames(self, system: SystemConfig) -> int:
        """Returns the number of frames of the untranscribed sets that a system learns from beside training."""
        return sum(self.untranscribed[name] for name in (system.targets.extra if system.targets else ()))


def plan(
    config: Config, work: Workspace, *, gpu_tflops: float = GPU_TFLOPS, measure: bool = True, prepared: bool = True
) -> Plan:
    """Counts every stage, and times training.

    Args:
      measure: time steps of each system's models.
      prepared: plan for what is in data/, where there is something, and not for the config's parts.
      gpu_tflops: peak speed of the GPU whose hours are given, 10^12 operations a second.

    Raises:
      UserError: how much speech there is follows neither from data/ nor from the corpus's known parts.
    """
    speech = planned_speech(config, work, prepared=prepared)
    taken = round(taken_cores()) if measure else 0
    rows = [*_before_training(config, speech), *_realignment(config, speech, measure=measure)]
    systems: dict[str, SystemPlan] = {}
    speeds: dict[str, float | None] = {}
    targets: set[tuple[str, str]] = set()

    def trained(names: Iterable[str]) -> list[SystemPlan]:
        return [systems[part] for name in names for part in config.systems[name].parts or (name,)]

    for system in plans_of(config):
        if reuse := system.system.reuse:
            speeds[system.name] = speeds[reuse]
        else:
            speeds[system.name] = flops_per_second(system) if measure else None
        needed = system.system.stored_targets
        teachers = trained(system.system.teachers)
        stores = [] if needed is None else [(needed.name, of_set) for of_set in (TRAIN, *needed.extra)]
        rows += [_soft_targets(system, teachers, speeds, speech, store[1]) for store in stores if store not in targets]
        targets |= {*stores}
        rows.append(_training(system, teachers, speeds, speech))
        systems[system.name] = system
    scored = trained(config.systems)
    flops = speech.scored_frames * sum(system.forward_flops for system in scored)
    seconds = _forward_seconds(scored, speeds, speech.scored_frames)
    rows += [_decode(config, work, flops)]
    if config.decodes_phones:
        rows += [_decode_phones(config, work, flops)]
    rows += [Row("report", "frames of the scored sets", flops, seconds=seconds)]
    return Plan(speech.frames, rows, gpu_tflops, taken)


def planned_speech(config: Config, work: Workspace, *, prepared: bool) -> Speech:
    """How much there is to work on; see `plan`."""
    copies = sum(1 / speed for speed, _ in config.features.copies)
    hours: dict[str, float] = {}
    if prepared:
        for name in speech_sets(config, work):
            stamp = read_stamp(work.cuts_stamp(name))
            hours |= {} if stamp is None else {name: float(stamp["metadata"]["minutes"]) / 60}
    learnt = (TRAIN, *config.untranscribed)
    if TRAIN not in hours:
        hours = _known_hours(config)
    if not hours.keys() >= {*learnt}:
        raise UserError(
            f"how much speech there is to train on is not known yet; make the cuts first: {work.command('prepare')}"
        )
    frames = {name: round(hours[name] * 3600 / FRAME_SHIFT * copies) for name in learnt}
    return Speech(hours, frames.pop(TRAIN), frames)


def _known_hours(config: Config) -> dict[str, float]:
    """Hours of each set by the sizes of the corpus's parts; none where they are not known."""
    known = CORPORA[config.corpus.name].part_hours
    drawn = {name: of_set.share for name, of_set in config.untranscribed.items() if not of_set.parts}
    if not {part for parts in config.all_parts.values() for part in parts} <= known.keys() or 0 in drawn.values():
        return {}
    hours = {name: sum(known[part] for part in parts) for name, parts in config.all_parts.items()}
    hours |= {name: share * hours[TRAIN] for name, share in drawn.items()}
    return hours | {TRAIN: hours[TRAIN] * (1 - sum(drawn.values()))}


def _before_training(config: Config, speech: Speech) -> Iterator[Row]:
    bins, frames = config.features.num_mel_bins, speech.frames + speech.scored_frames
    parts = dict.fromkeys(part for of_set in config.all_parts.values() for part in of_set if part in OPENSLR.parts)
    if parts:
        fetched, most, left = disk_from_nothing(list(parts))
        what = f"{len(parts)} parts of OpenSLR, {human_bytes(fetched)}; {human_bytes(most)} of disk on the way"
        yield Row("download", what, disk=left)
    stored = store_bytes(
        frames + sum(speech.untranscribed.values()),
        speech.utterances * len(config.features.copies),
        config.features,
    )
    yield Row("features", f"{bins} log-mel filterbanks", disk=stored)
    of_subset = min(config.alignment.subset_hours, speech.hours[TRAIN]) * 3600 / FRAME_SHIFT
    held = speech.frames if speech.frames <= BLOCK_FRAMES else round(of_subset)
    memory = 2 * PROCESS + windows_bytes(held, bins) + LABEL * held + UTTERANCE * speech.utterances
    disk = alignment_bytes(frames, num_trees=len(config.trees))
    yield Row("align", f"{config.alignment.leaves} senones", disk=disk, memory=memory)


def _realignment(config: Config, speech: Speech, *, measure: bool) -> Iterator[Row]:
    """The nets of all rounds, trained on unaltered speech; the last of them labels every frame."""
    rounds = config.alignment.realign_rounds
    if not rounds:
        return
    net = aligner_plan(config)
    system = net.system
    of_subset = min(config.alignment.subset_hours, speech.hours[TRAIN]) * 3600 / FRAME_SHIFT
    training = net.costs.training_flops * rounds * of_subset * system.training.epochs
    flops = training + net.forward_flops * ((rounds - 1) * of_subset + speech.frames + speech.scored_frames)
    seconds = flops / flops_per_second(net) if measure else None
    what = f"{rounds} x {net.costs.parameters:,} parameters, {system.training.epochs} epochs"
    yield Row("realign", what, flops, net.weights, net.memory(round(of_subset)), seconds, gpu=True)


def _training(plan: SystemPlan, teachers: Sequence[SystemPlan], speeds: Speeds, speech: Speech) -> Row:
    system, costs, speed, stage = plan.system, plan.costs, speeds[plan.name], f"train {plan.name}"
    if system.reuse:
        memory, what = PROCESS + plan.weights, f"the first {system.num_models} of {system.reuse}"
        return Row(stage, what, disk=plan.weights, memory=memory, seconds=None if speed is None else 0.0)
    extra = speech.extra_frames(system)
    passes = (system.train_fraction * speech.frames + extra) * system.training.epochs
    flops = costs.training_flops * passes * system.num_models
    seconds = None if speed is None else flops / speed
    if system.targets is not None and system.targets.online:
        flops += passes * sum(teacher.forward_flops for teacher in teachers)
        beside = _forward_seconds(teachers, speeds, passes)
        seconds = None if seconds is None or beside is None else seconds + beside
    fraction = f" of {system.train_fraction:g} of the frames" if system.train_fraction < 1 else ""
    beside_train = f", {extra:,} untranscribed frames beside train's" if extra else ""
    epochs = f"{system.training.epochs} epochs{fraction}{beside_train}"
    what = f"{system.num_models} x {costs.parameters:,} parameters, {epochs}"
    return Row(stage, what, flops, plan.weights, plan.memory(speech.frames + extra), seconds, gpu=True)


def _soft_targets(plan: SystemPlan, teachers: Sequence[SystemPlan], speeds: Speeds, speech: Speech, of_set: str) -> Row:
    """A system's targets of a set; those of another toolkit (no teachers) are only copied."""
    frames = speech.frames if of_set == TRAIN else speech.untranscribed[of_set]
    targets, cores = plan.system.stored_targets, usable_cores()
    assert targets is not None
    entries = min(targets.max_entries, plan.num_senones)
    members = sum(teacher.system.num_models for teacher in teachers)
    # members are read one by one and stacked; a batch's posteriors are there before and after the softmax and the mean
    batch = 4.0 * FRAMES_AT_ONCE * (3 * members + 4) * plan.num_senones
    each = PROCESS + 2 * sum(teacher.weights for teacher in teachers) + batch + UTTERANCE * speech.utterances
    return Row(
        "soft-targets",
        f"{targets.name}{'' if of_set == TRAIN else f' of {of_set}'}: at most {entries} entries a frame; memory of "
        f"{cores} processes",
        frames * sum(teacher.forward_flops for teacher in teachers),
        stored_bytes(frames, entries, exact=targets.keep_mass >= 1 and entries == plan.num_senones),
        PROCESS + cores * each,
        _forward_seconds(teachers, speeds, frames),
        gpu=True,
    )


def _decode(config: Config, work: Workspace, flops: float) -> Row:
    decoded = _all_decoded(config)
    model = work.lm / "G.arpa"
    if not model.is_file():
        return Row("decode", f"{decoded} models; the graph depends on a language model that is not there yet", flops)
    ngrams = sum(read_counts(model))
    what = f"{plural(decoded, 'model')}, graph of {ngrams / 1e6:.2f} M n-grams; memory to compile it"
    return Row("decode", what, flops, bytes_on_disk(ngrams), bytes_to_compile(ngrams))


def _decode_phones(config: Config, work: Workspace, flops: float) -> Row:
    """The same models once more, on the graph of phones: of all that the lexicon has."""
    decoded, file = _all_decoded(config), work.lang / "phones.txt"
    if not file.is_file():
        return Row("decode phones", f"{decoded} models; the graph depends on a lexicon that is not there yet", flops)
    phones = sum(1 for _ in read_lines(file, "run asr-kd prepare again"))
    what = f"{plural(decoded, 'model')}, graph of {phones} phones; memory to compile it"
    return Row("decode phones", what, flops, phone_graph_bytes(phones), bytes_to_compile_phones(phones))


def decoded_models(system: SystemConfig) -> int:
    """An ensemble's members answer together."""
    return 1 if system.is_ensemble else system.num_models


def _all_decoded(config: Config) -> int:
    return sum(map(decoded_models, config.systems.values()))


def _forward_seconds(systems: Sequence[SystemPlan], speeds: Speeds, frames: float) -> float | None:
    """Returns the seconds that frames take through all models of the systems, on all cores; None: not known."""
    total = 0.0
    for plan in systems:
        speed = speeds[plan.name]
        if speed is None:
            return None
        total += frames * plan.forward_flops / speed
    return total
