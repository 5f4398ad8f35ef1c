"""Stages 4 and 6: trains the config's systems, in order of dependence, with the soft targets that they need.

On CPUs two systems are trained side by side, each with half of the cores: the small parts of a step leave cores idle.
On two cores with AVX2 only (torch 1.13.1, three models of 3 x 384 units, direct and distilled) an epoch of both took a
tenth less time than one after the other. The longest start first, and the next as soon as one ends. Large members of
one system are trained side by side too.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from asr_kd.acoustic.model import pick_device
from asr_kd.acoustic.ranks import process_group
from asr_kd.errors import UserError
from asr_kd.io.cores import usable_cores
from asr_kd.stages.members import begun_apart
from asr_kd.stages.side_by_side import WITH_ALL_CORES, trained_now
from asr_kd.stages.soft_targets import SoftTargetsResult
from asr_kd.stages.system_run import SystemRun
from asr_kd.stages.training_run import TrainResult
from asr_kd.stages.training_set import TrainingSet, training_set_of
from asr_kd.workspace.config import Config
from asr_kd.workspace.executor import RunOptions, number_of_helper, on_cluster, parallel_map
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)

_SIDE_BY_SIDE = 2


def train(
    config: Config, work: Workspace, options: RunOptions, names: Sequence[str] = (), nj: int | None = None
) -> list[TrainResult | SoftTargetsResult]:
    """Trains systems, each after those of them that it learns from, and makes their soft targets where needed.

    Args:
      names: of the systems; none: all of the config.
      nj: with 2 or more, on CPUs, two systems that are ready are trained at once; None: one for each core. The result
        does not depend on it.

    Raises:
      UserError: an earlier stage has not run, its artefacts do not fit together, or a system that is not among `names`
        and that one of them learns from is not trained.
    """
    pending = _in_order(config, names)
    if not pending:
        raise UserError(f"{work.config_path} has no systems to train; name them under systems:.")
    opened = _Opened(config, work)
    for name in pending:  # settings that do not fit together are refused before anything is trained
        opened.run(name)
    places = places_for(options, nj)
    at_once = places if on_cluster() else min(places, _SIDE_BY_SIDE)
    results: list[TrainResult | SoftTargetsResult] = []
    while pending:
        ready = [name for name in pending if not set(config.systems[name].teachers) & set(pending)]
        runs = [opened.run(name) for name in ready]
        quick = [run for run in runs if not run.must_train]
        if quick:  # others may be ready then
            results += [run.train(options) for run in quick]
            pending = [name for name in pending if name not in {run.name for run in quick}]
            continue
        # a system whose members were begun apart is ended so, by itself
        begun = [run for run in runs if run.begun_apart]
        together = begun[:1] or _next(runs, at_once)
        results += [targets for run in together for targets in run.make_targets(options, nj)]
        if len(together) == 1:
            _train_apart(together[0], options, places)
            results.append(together[0].train(options))
        else:
            trained = _side_by_side(together[0], [(run.name, None) for run in together], options, at_once)
            results += sorted(trained, key=lambda result: pending.index(result.folder.name))
        pending = [name for name in pending if name not in {run.name for run in together}]
    return results


def _in_order(config: Config, names: Sequence[str]) -> list[str]:
    """The systems named, or all, in order of dependence; raises UserError where there is no such system."""
    for name in names:
        config.system(name)
    return [name for name in config.in_training_order() if not names or name in names]


def train_together(
    config: Config, work: Workspace, options: RunOptions, names: Sequence[str] = (), nj: int | None = None
) -> list[TrainResult | SoftTargetsResult]:
    """Trains one system after the other, each by all the processes that torchrun has started; see `train`.

    It runs in each of these processes. The first one alone makes soft targets, copies and joins models, and writes.
    """
    results: list[TrainResult | SoftTargetsResult] = []
    with process_group(options.device) as (ranks, device):
        options = replace(options, device=device, rank=ranks.rank, world=ranks.world)
        if not ranks.first:
            options = replace(options, quiet=True, tensorboard=None)
        if ranks.first:
            merge_finished(config, work)
        ranks.wait()
        for name in _in_order(config, names):
            run = SystemRun(config, work, name, training_set_of(config, work, name))
            must_train = run.must_train
            ranks.check_alike(must_train, f"{work.exp(name)} is there for some processes and not for others")
            if must_train and run.begun_apart and len(run.missing) < run.system.num_models:
                raise UserError(
                    f"members of {name} have been trained apart; train those that are missing without torchrun: "
                    f"{work.command(f'train {name}')}"
                )
            if ranks.first:
                results += run.make_targets(options, nj)
            ranks.wait()
            if must_train or ranks.first:
                results.append(run.train(options))
            ranks.wait()
    return results


def train_member(config: Config, work: Workspace, options: RunOptions, system: str, member: int) -> TrainResult:
    """Trains one of the models of a system, counted from 0, for `merge` or the next stage to put together with others.

    Its soft targets must be there: several of these may run at once, on any machines that see the work folder.

    Raises:
      UserError: as `train`, or the system has no such member.
    """
    config.system(system)
    run = SystemRun(config, work, system, training_set_of(config, work, system))
    run.check_members([member])
    return run.train_member(member, options) if run.must_train else run.train(options)


def merge(config: Config, work: Workspace, options: RunOptions, systems: Sequence[str]) -> list[TrainResult]:
    """Puts the members of systems together that were trained apart.

    Raises:
      UserError: one is missing.
    """
    results = []
    for name in systems:
        config.system(name)
        run = SystemRun(config, work, name, training_set_of(config, work, name))
        run.check_members([])
        if run.must_train and (missing := run.missing):
            raise UserError(
                f"{name} has no member {', '.join(map(str, missing))} yet; train what is missing: "
                f"{work.command(f'train {name}')}"
            )
        results.append(run.train(options))
    return results


def merge_finished(config: Config, work: Workspace) -> None:
    """Puts the members of those systems together whose members are all there; what is missing, the stages report."""
    for name in config.in_training_order():
        system = config.systems[name]
        if system.parts or system.reuse or not begun_apart(work.exp(name), system.num_models):
            continue
        try:
            run = SystemRun(config, work, name, training_set_of(config, work, name))
            finished = run.must_train and not run.missing
        except UserError as error:  # what it learns from is not there, or not any more
            log.info("members of %s were trained apart, but are not put together: %s", name, error)
            continue
        if finished:
            run.train(RunOptions())


@dataclass
class _Opened:
    """The systems of one call of `train`, with the training sets that they share."""

    config: Config
    work: Workspace
    _sets: dict[tuple[str, tuple[str, ...]], TrainingSet] = field(default_factory=dict)
    _runs: dict[str, SystemRun] = field(default_factory=dict)

    def run(self, name: str) -> SystemRun:
        if name not in self._runs:
            system = self.config.systems[name]
            sets = system.tree, system.targets.extra if system.targets else ()
            if sets not in self._sets:
                self._sets[sets] = training_set_of(self.config, self.work, name)
            self._runs[name] = SystemRun(self.config, self.work, name, self._sets[sets])
        return self._runs[name]


def places_for(options: RunOptions, nj: int | None) -> int:
    """How many trainings can run at once: on the cores of this machine, or the workers of a cluster."""
    if on_cluster():
        return nj or 1
    cores = usable_cores()
    return min(nj or cores, cores) if pick_device(options.device).type == "cpu" else 1


def _train_apart(run: SystemRun, options: RunOptions, places: int) -> None:
    """Trains the members of a system that are better trained apart, as many at once as there are places."""
    members = run.apart(places)
    if len(members) > 1 and places > 1:
        _side_by_side(run, [(run.name, member) for member in members], options, min(len(members), places))
    else:
        for member in members:
            run.train_member(member, options)


def _next(runs: Sequence[SystemRun], at_once: int) -> list[SystemRun]:
    """Returns the systems to train next, of those that are ready, in the order in which they start."""
    if at_once < 2:
        return [runs[0]]
    alone = 1.0 if on_cluster() else WITH_ALL_CORES
    return [runs[number] for number in trained_now([run.load for run in runs], at_once, alone)]


def _side_by_side(
    run: SystemRun, what: Sequence[tuple[str, int | None]], options: RunOptions, nj: int
) -> list[TrainResult]:
    """Trains each of some systems, or one member of it, `nj` at once, each on its share of the cores.

    Args:
      run: any of them. what: names, and members, in the order in which they start.
    """
    # a process would take those beside it for other programs
    sides = [replace(options, quiet=options.quiet or on_cluster(), follow_load=False) for _ in what]
    train_side = partial(_train_side, run.config, run.work, threads_each(nj), 0 if on_cluster() else nj)
    return list(parallel_map(train_side, list(zip(what, sides, strict=True)), nj=nj))


def _train_side(
    config: Config, work: Workspace, threads: int, places: int, side: tuple[tuple[str, int | None], RunOptions]
) -> TrainResult:
    """Trains in one of so many helper processes of this machine, or with 0 on a cluster."""
    (name, member), options = side
    if places:
        options = replace(options, bar=number_of_helper() % places)
    try:
        with net_threads(threads):
            run = SystemRun(config, work, name, training_set_of(config, work, name))
            return run.train(options) if member is None else run.train_member(member, options)
    except Exception as error:
        what = name if member is None else f"{name}, member {member},"
        log.error("%s cannot be trained (%s); what is trained beside it goes on", what, error)
        raise


def threads_each(trainings: int) -> int:
    """How many threads each of so many trainings at once has; 0, as many as its worker says, on a cluster."""
    # OMP_NUM_THREADS may ask for fewer
    return 0 if on_cluster() else max(1, min(usable_cores(), torch.get_num_threads()) // trainings)


@contextlib.contextmanager
def net_threads(count: int) -> Iterator[None]:
    """Gives torch so many threads within the block; 0: as many as it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
