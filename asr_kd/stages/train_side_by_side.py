"""Stage 6 as one: each pair's direct and distilled nets are trained side by side, each with half of the cores.

A step's small parts leave cores waiting. On two cores with AVX2 only (torch 1.13.1, three nets of 3 x 384 units of each
kind) two trainings at once got through an epoch in a tenth less time than one after the other; at that time float32
products of an odd number of members did not share the threads (`asr_kd.acoustic.model`). Direct nets that are taken
from the ensemble leave all cores to the distilled ones.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch

from asr_kd.acoustic.precision import pick_device
from asr_kd.stages.soft_targets import distill_job
from asr_kd.stages.train import direct_job, pairs_of, train_monophone
from asr_kd.stages.training_run import TrainResult
from asr_kd.workspace.config import Config
from asr_kd.workspace.executor import default_jobs, parallel_map
from asr_kd.workspace.run_options import RunOptions
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)

_JOBS = {"direct": direct_job, "distilled": distill_job}


@dataclass(frozen=True)
class _Half:
    """One net of a pair, to be trained in a process of its own."""

    kind: str  # of _JOBS
    pair: str
    config: Config
    work: Workspace
    options: RunOptions
    threads: int


def train_students(config: Config, work: Workspace, options: RunOptions, nj: int | None = None) -> list[TrainResult]:
    """All students, directly trained and distilled, and the control on untied states where the config asks for it.

    Args:
      nj: with 2 or more, on CPUs, a pair's two trainings run at once; None: one for each core.

    Raises:
      UserError: a stage before has not run, or its artefacts do not fit together.
    """
    cores = default_jobs()
    at_once = min(nj or cores, cores, len(_JOBS)) if pick_device(options.device).type == "cpu" else 1
    results: list[TrainResult] = []
    for pair in pairs_of(config):
        jobs = {kind: make(config, work, pair) for kind, make in _JOBS.items()}
        if at_once == 1 or any(job.reason is None or job.taken_from for job in jobs.values()):
            results += [job.train(options) for job in jobs.values()]
            continue
        threads = max(1, min(cores, torch.get_num_threads()) // at_once)  # OMP_NUM_THREADS may ask for fewer
        halves = [
            _Half(kind, pair, config, work, replace(options, bar=line), threads) for line, kind in enumerate(jobs)
        ]
        results += parallel_map(_train, halves, nj=at_once)
    if config.monophone:
        results.append(train_monophone(config, work, options))
    return results


def _train(half: _Half) -> TrainResult:
    torch.set_num_threads(half.threads)  # of this helper process, which does nothing else
    try:
        return _JOBS[half.kind](half.config, half.work, half.pair).train(half.options)
    except Exception as error:
        log.error("the %s nets cannot be trained on (%s); those beside them go on", half.kind, error)
        raise
