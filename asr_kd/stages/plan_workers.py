"""`asr-kd plan --workers`: how long the stages that are done in shards take with N workers of one core each.

What a shard takes is measured: a few utterances of a recipe that has run, by the code of the stages, on one core of
this machine. The rest is arithmetic: hours of speech, copies, systems and their seeds, FLOPs of their nets.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from asr_kd.alignment.set_alignment import align_block
from asr_kd.decoding.settings import chosen_backend
from asr_kd.distillation.soft_target_worker import Shard, compute_soft_targets
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_SHIFT
from asr_kd.io.formatting import text_table
from asr_kd.kernels.switch import one_thread
from asr_kd.stages.align import opened_aligner
from asr_kd.stages.decode import shards_of
from asr_kd.stages.decode_context import DecodeContext, DecodeTask, decode_context, phone_context, phone_task, task_of
from asr_kd.stages.decode_worker import DecodeShard, Loaded, decode_shard, score_grid, timed_loglikes
from asr_kd.stages.features import shard_seconds
from asr_kd.stages.plan import Speech, decoded_models, planned_speech
from asr_kd.stages.plan_models import aligner_plan, plans_of
from asr_kd.stages.soft_targets import SystemTargets
from asr_kd.stages.training_set import training_set_of
from asr_kd.workspace.config import DEV, TRAIN, Config, SystemConfig
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)

T = TypeVar("T")
_AT_ONCE, _RANGES = 6, 4  # utterances of a shard that is timed, and how many shards are
_HOUR = 3600.0


@dataclass(frozen=True)
class Search:
    """Seconds of one core for each second of speech and each model, without its net.

    Attributes:
      grid: all scales on dev.
      once: the chosen ones.
    """

    grid: float
    once: float


@dataclass(frozen=True)
class ShardRates:
    """What one core does; None, or not there, where the recipe has not got so far.

    Attributes:
      features: seconds for each second of recordings, with all altered copies.
      align, soft_targets: FLOP a second of the nets, the rest of these stages included.
      nets: kind of net -> FLOP a second, where words are decoded.
      search: "words", "phones" -> mean of the systems.
    """

    features: float | None
    align: float | None
    soft_targets: float | None
    nets: Mapping[str, float]
    search: Mapping[str, Search]


@dataclass(frozen=True)
class WorkersPlan:
    """Core-hours of each stage, and its hours with each number of workers; `str` is the table."""

    workers: Sequence[int]
    hours: Mapping[str, float | None]  # stage -> of one core
    like: str  # the recipe that was measured

    def __str__(self) -> str:
        head = ["in shards", "core hours", *(f"{count} worker{'s' if count > 1 else ''}" for count in self.workers)]
        known = [hours for hours in self.hours.values() if hours is not None]
        rows = [*self.hours.items(), ("together", sum(known))]
        cells = [
            [stage, *([""] * (1 + len(self.workers)) if hours is None else map(_hours, self._times(hours)))]
            for stage, hours in rows
        ]
        unknown = [stage for stage, hours in self.hours.items() if hours is None]
        notes = [
            f"timed on a few utterances of {self.like}, on one core of this machine, with its graphs; nets are counted "
            "by their FLOPs",
            "without what is not in shards: the flat start, its nets, training, graphs, the report; nor the start of "
            "workers (seconds each)",
        ]
        notes += [f"not known, since {self.like} has not got so far: {', '.join(unknown)}"] if unknown else []
        return "\n".join([text_table([head, *cells]), *notes])

    def _times(self, hours: float) -> list[float]:
        return [hours, *(hours / count for count in self.workers)]


def _hours(hours: float) -> str:
    return f"{hours:.3g} h" if hours >= 0.1 else f"{hours * 60:.2g} min"


def plan_workers(
    config: Config,
    work: Workspace,
    workers: Sequence[int],
    like: tuple[Config, Workspace] | None = None,
    *,
    prepared: bool = True,
) -> WorkersPlan:
    """Times shards of a recipe, and multiplies.

    Args:
      workers: how many there are, for each column.
      like: the recipe whose shards are timed; None: this one.
      prepared: plan for what is in data/, where there is something, and not for the config's parts.

    Raises:
      UserError: no stage of that recipe has run, or how much speech there is is not known.
    """
    measured, folder = like or (config, work)
    rates = measure(measured, folder)
    hours = dict(_stage_hours(config, planned_speech(config, work, prepared=prepared), rates))
    if all(of_stage is None for of_stage in hours.values()):
        raise UserError(
            f"no stage of {folder.config_path} has run, so that none can be timed; name a recipe that has, such as a "
            "smaller one, as --like."
        )
    return WorkersPlan(workers, hours, str(folder.config_path))


def _stage_hours(config: Config, speech: Speech, rates: ShardRates) -> Iterator[tuple[str, float | None]]:
    copies = sum(1 / speed for speed, _ in config.features.copies)
    learnt = (speech.frames + sum(speech.untranscribed.values())) * FRAME_SHIFT / _HOUR
    scored = speech.scored_frames * FRAME_SHIFT / _HOUR
    # a set that is only scored has no copies: features of it cost what one of the copies does
    yield "features", _times(rates.features, learnt / copies + scored / len(config.features.copies))
    aligned = speech.frames * FRAME_SHIFT / _HOUR + scored
    yield "align", _net_hours(aligner_plan(config).forward_flops, rates.align, aligned)
    flops = _flops_by_system(config)
    for targets, teachers, of_set in stores_of(config):
        hours = (speech.frames if of_set == TRAIN else speech.untranscribed[of_set]) * FRAME_SHIFT / _HOUR
        stage = f"soft-targets {targets}" + ("" if of_set == TRAIN else f" of {of_set}")
        yield stage, _net_hours(sum(flops[teacher] for teacher in teachers), rates.soft_targets, hours)
    dev = speech.hours.get(DEV, 0.0)
    for unit in ("words", *(["phones"] if config.decodes_phones else [])):
        search, total = rates.search.get(unit), 0.0
        for name, system in config.systems.items():
            if search is not None:
                total += decoded_models(system) * (dev * search.grid + scored * search.once)
                total += _net_hours(flops[name], _speed(rates.nets, system), dev + scored) or 0.0
        yield f"decode {unit}", None if search is None else total


def _net_hours(flops: float, speed: float | None, hours: float) -> float | None:
    """Returns the core hours of nets that take so many FLOP a frame, over hours of speech; None: not known."""
    return None if speed is None else flops * hours / FRAME_SHIFT / speed


def _speed(nets: Mapping[str, float], system: SystemConfig) -> float:
    """Returns the FLOP a second of the system's kind of net; the mean of all kinds where that kind was not timed."""
    return nets.get(system.model.kind, float(np.mean(list(nets.values()))))


def _flops_by_system(config: Config) -> dict[str, float]:
    """Returns for each system the FLOPs of a frame's forward pass through all its models."""
    alone = {plan.name: plan.forward_flops for plan in plans_of(config)}
    return {name: sum(alone[part] for part in system.parts or (name,)) for name, system in config.systems.items()}


def stores_of(config: Config) -> list[tuple[str, tuple[str, ...], str]]:
    """The soft targets that teachers of this config compute: name, teachers, and of which set; each once."""
    stores = []
    for system in config.systems.values():
        targets = system.stored_targets
        if targets is not None and not targets.imported:
            stores += [(targets.name, tuple(system.teachers), of_set) for of_set in (TRAIN, *targets.extra)]
    return list(dict.fromkeys(stores))


def _times(rate: float | None, hours: float) -> float | None:
    return None if rate is None else rate * hours


def measure(config: Config, work: Workspace) -> ShardRates:
    """Times shards of a recipe on one core; nothing is written."""
    with one_thread():
        features = _if_there(lambda: shard_seconds(config, work, _AT_ONCE * _RANGES))
        align = _if_there(lambda: _align_speed(config, work))
        learners = [name for name, system in config.systems.items() if _computes_targets(system)]
        targets = _if_there(lambda: _targets_speed(config, work, learners[0])) if learners else None
        nets, search = _if_there(lambda: _decode_rates(config, work)) or ({}, {})
    return ShardRates(features, align, targets, nets, search)


def _computes_targets(system: SystemConfig) -> bool:
    return system.stored_targets is not None and not system.stored_targets.imported


def _if_there(measured: Callable[[], T]) -> T | None:
    """None where an input is missing or out of date."""
    try:
        return measured()
    except UserError as error:
        log.info("not timed: %s", error)
        return None


def _rate(call: Callable[[range], Any], offsets: np.ndarray) -> float:
    """Seconds for each second of speech, of utterances from all over a set.

    What a net costs depends on whether utterances of these lengths have been seen before: each is timed once. Others
    before them load and compile what is needed.
    """
    count = len(offsets) - 1
    size = min(_AT_ONCE, count)
    firsts = sorted({int(first) for first in np.linspace(0, count - size, 1 + _RANGES)})
    warm, *timed = [range(first, first + size) for first in firsts]
    call(warm)
    frames, started = 0, time.perf_counter()
    for utterances in timed or [warm]:
        call(utterances)
        frames += int(offsets[utterances.stop] - offsets[utterances.start])
    return (time.perf_counter() - started) / (frames * FRAME_SHIFT)


def _align_speed(config: Config, work: Workspace) -> float:
    aligner, data = opened_aligner(config, work, DEV)
    rate = _rate(lambda utterances: align_block(data, utterances, aligner), data.frames.offsets)
    return aligner_plan(config).forward_flops / FRAME_SHIFT / rate


def _targets_speed(config: Config, work: Workspace, name: str) -> float:
    system = SystemTargets(config, work, training_set_of(config, work, name), name)
    task, flops = system.task(TRAIN, "cpu"), _flops_by_system(config)
    even = np.full(task.num_senones, 1.0 / task.num_senones, np.float32)
    rate = _rate(
        lambda utterances: compute_soft_targets(Shard(task, utterances.start, utterances.stop, even)),
        system.data.stores[TRAIN].offsets,
    )
    return sum(flops[teacher] for teacher in config.systems[name].teachers) / FRAME_SHIFT / rate


def _decode_rates(config: Config, work: Workspace) -> tuple[dict[str, float], dict[str, Search]]:
    context = decode_context(config, work, [DEV], chosen_backend(None), 1)
    of_phones = phone_context(context) if config.decodes_phones else None
    flops, loaded = _flops_by_system(config), Loaded()
    nets: dict[str, list[float]] = {}
    searches: dict[str, list[Search]] = {}
    for name, system in config.systems.items():
        task = _if_there(lambda name=name: task_of(config, work, name, may_compile=False))  # type: ignore[misc]
        if task is None:
            continue
        search, net = _rates_of(context, task, loaded)
        searches.setdefault("words", []).append(search)
        if not system.parts:
            speed = flops[name] / decoded_models(system) / FRAME_SHIFT / net
            nets.setdefault(system.model.kind, []).append(speed)
        if of_phones is not None:
            task = phone_task(of_phones, task, may_compile=False)
            searches.setdefault("phones", []).append(_rates_of(of_phones, task, loaded)[0])
    return (
        {kind: float(np.mean(speeds)) for kind, speeds in nets.items()},
        {unit: Search(*np.mean([astuple(each) for each in of_unit], 0)) for unit, of_unit in searches.items()},
    )


def _rates_of(context: DecodeContext, task: DecodeTask, loaded: Loaded) -> tuple[Search, float]:
    """Times one model of a system: its search, and its net in seconds for each second of speech."""
    store, settings = context.stores[DEV], context.decoding
    middle = context.search(sorted(settings.acoustic_scales)[len(settings.acoustic_scales) // 2])
    whole, references = shards_of(store, task.models[:1], middle)[0], context.references(DEV)

    def part(utterances: range) -> DecodeShard:
        first, end = utterances.start, utterances.stop
        return replace(whole, first=first, end=end, references=references[first:end])

    net, once, grid = (
        _rate(call, store.offsets)
        for call in (
            lambda utterances: timed_loglikes(loaded, part(utterances)),
            lambda utterances: decode_shard(loaded, part(utterances)),
            lambda utterances: score_grid(loaded, context.scoring, part(utterances)),
        )
    )
    return Search(max(0.0, grid - net), max(0.0, once - net)), net
