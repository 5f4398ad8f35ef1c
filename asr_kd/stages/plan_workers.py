"""`asr-kd plan --workers`: how long the stages that are done in shards take with N workers of one core each.

What a shard takes is measured: a few utterances of a recipe that has run, by the code of the stages, on one core of
this machine. The rest is arithmetic: hours of speech, copies, systems and their seeds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from asr_kd.stages.decode_context import DecodeContext, decode_context, phone_context, phone_task, task_of
from asr_kd.stages.decode_worker import Loaded, decode_shard, score_grid
from asr_kd.stages.features import shard_seconds
from asr_kd.stages.plan import Speech, decoded_models, planned_speech
from asr_kd.stages.soft_targets import SystemTargets
from asr_kd.stages.training_set import training_set_of
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)

T = TypeVar("T")
_UTTERANCES = 24  # that each stage is timed on
_HOUR = 3600.0


@dataclass(frozen=True)
class ShardRates:
    """Seconds of one core for each second of speech; None where the recipe has not got so far.

    Attributes:
      features: of recordings, with all altered copies.
      align: of speech or copies.
      soft_targets: name of the targets -> of training speech and its copies.
      words, phones: system -> (all scales on dev, the chosen ones), of one of its models.
    """

    features: float | None
    align: float | None
    soft_targets: Mapping[str, float]
    words: Mapping[str, tuple[float, float]]
    phones: Mapping[str, tuple[float, float]]


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
            f"measured on a few utterances of {self.like}, on one core of this machine; with its graphs, and where a "
            "system is not among its own with the mean of those",
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
    yield "align", _times(rates.align, speech.frames * FRAME_SHIFT / _HOUR + scored)
    for targets, of_set in stores_of(config):
        frames = speech.frames if of_set == TRAIN else speech.untranscribed[of_set]
        stage = f"soft-targets {targets}" + ("" if of_set == TRAIN else f" of {of_set}")
        yield stage, _times(rates.soft_targets.get(targets), frames * FRAME_SHIFT / _HOUR)
    dev = speech.hours.get(DEV, 0.0)
    for unit, of_systems in (("words", rates.words), ("phones", rates.phones)):
        if unit == "phones" and not config.decodes_phones:
            continue
        mean = tuple(np.mean(list(of_systems.values()), 0)) if of_systems else None
        total: float | None = 0.0
        for name, system in config.systems.items():
            rate_of = of_systems.get(name, mean)
            if rate_of is None:
                total = None
                break
            total += decoded_models(system) * (dev * rate_of[0] + scored * rate_of[1])
        yield f"decode {unit}", total


def stores_of(config: Config) -> list[tuple[str, str]]:
    """The soft targets that teachers of this config compute: their names, and of which set; each once."""
    stores = []
    for system in config.systems.values():
        targets = system.stored_targets
        if targets is not None and not targets.imported:
            stores += [(targets.name, of_set) for of_set in (TRAIN, *targets.extra)]
    return list(dict.fromkeys(stores))


def _times(rate: float | None, hours: float) -> float | None:
    return None if rate is None else rate * hours


def measure(config: Config, work: Workspace) -> ShardRates:
    """Times shards of a recipe on one core; nothing is written."""
    with one_thread():
        features = _if_there(lambda: shard_seconds(config, work, _UTTERANCES))
        align = _if_there(lambda: _align_rate(config, work))
        targets: dict[str, float] = {}
        for name, system in config.systems.items():
            stored = system.stored_targets
            if stored is not None and not stored.imported and stored.name not in targets:
                rate = _if_there(lambda name=name: _targets_rate(config, work, name))  # type: ignore[misc]
                targets |= {} if rate is None else {stored.name: rate}
        words, phones = _if_there(lambda: _decode_rates(config, work)) or ({}, {})
    return ShardRates(features, align, targets, words, phones)


def _if_there(measured: Callable[[], T]) -> T | None:
    """None where an input is missing or out of date."""
    try:
        return measured()
    except UserError as error:
        log.info("not timed: %s", error)
        return None


def _best_of_two(call: Callable[[], Any]) -> float:
    """Seconds; the first call loads and compiles."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def _align_rate(config: Config, work: Workspace) -> float:
    aligner, data = opened_aligner(config, work, DEV)
    utterances = range(min(_UTTERANCES, len(data.texts)))
    frames = data.span(utterances[-1]).stop - data.span(0).start
    return _best_of_two(lambda: align_block(data, utterances, aligner)) / (frames * FRAME_SHIFT)


def _targets_rate(config: Config, work: Workspace, name: str) -> float:
    system = SystemTargets(config, work, training_set_of(config, work, name), name)
    task, store = system.task(TRAIN, "cpu"), system.data.stores[TRAIN]
    end = min(_UTTERANCES, len(store.ids))
    shard = Shard(task, 0, end, np.full(task.num_senones, 1.0 / task.num_senones, np.float32))
    return _best_of_two(lambda: compute_soft_targets(shard)) / (int(store.offsets[end]) * FRAME_SHIFT)


Rates = dict[str, tuple[float, float]]


def _decode_rates(config: Config, work: Workspace) -> tuple[Rates, Rates]:
    context = decode_context(config, work, [DEV], chosen_backend(None), 1)
    of_phones = phone_context(context) if config.decodes_phones else None
    words, phones, loaded = Rates(), Rates(), Loaded()
    for name in config.systems:
        task = _if_there(lambda name=name: task_of(config, work, name, may_compile=False))  # type: ignore[misc]
        if task is None:
            continue
        words[name] = _rates_of(context, task.models[:1], loaded)
        if of_phones is not None:
            phones[name] = _rates_of(of_phones, phone_task(of_phones, task, may_compile=False).models[:1], loaded)
    return words, phones


def _rates_of(context: DecodeContext, models: Sequence[Any], loaded: Loaded) -> tuple[float, float]:
    store, settings = context.stores[DEV], context.decoding
    end = min(_UTTERANCES, len(store.ids))
    search = context.search(sorted(settings.acoustic_scales)[len(settings.acoustic_scales) // 2])
    whole = shards_of(store, models, search, context.references(DEV))[0]
    shard = replace(whole, first=0, end=end, references=context.references(DEV)[:end])
    seconds = int(store.offsets[end]) * FRAME_SHIFT
    once = _best_of_two(lambda: decode_shard(loaded, shard))
    started = time.perf_counter()
    score_grid(loaded, context.scoring, shard)
    return (time.perf_counter() - started) / seconds, once / seconds
