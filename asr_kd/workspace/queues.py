"""Batch systems whose jobs are workers of Dask: their classes come from dask-jobqueue and dask-kubernetes."""

from __future__ import annotations

import contextlib
import logging
import pkgutil
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from asr_kd.errors import UserError, first_line

log = logging.getLogger(__name__)

# name after "dask:" -> its class, and the package that has it
QUEUES = {
    "slurm": ("dask_jobqueue:SLURMCluster", "dask-jobqueue"),
    "sge": ("dask_jobqueue:SGECluster", "dask-jobqueue"),
    "pbs": ("dask_jobqueue:PBSCluster", "dask-jobqueue"),
    "lsf": ("dask_jobqueue:LSFCluster", "dask-jobqueue"),
    "htcondor": ("dask_jobqueue:HTCondorCluster", "dask-jobqueue"),
    "kubernetes": ("dask_kubernetes.operator:KubeCluster", "dask-kubernetes"),
}
_JOBS = "jobs"  # in the YAML file: how many workers are asked for; all else is the class's


@dataclass(frozen=True)
class Queue:
    """Workers that a batch system was asked for.

    Attributes:
      cluster: of Dask.
      jobs: how many were asked for.
      refused: what the batch system said of each job that it did not take.
    """

    cluster: Any
    jobs: int
    refused: list[str] = field(default_factory=list)

    def refusal(self) -> str:
        """Why no job was taken; nothing where one was, or is still being submitted."""
        return self.refused[0] if len(self.refused) >= self.jobs else ""


@contextlib.contextmanager
def open_queue(name: str, options: Path | None, jobs: int | None) -> Iterator[Queue]:
    """Asks a batch system for workers, whose jobs end with the block.

    Args:
      name: of QUEUES.
      options: YAML file of the class's options, and `jobs`.
      jobs: how many, if the file does not say.

    Raises:
      UserError: there is no such queue or file, or an option is wrong.
    """
    if name not in QUEUES:
        known = ", ".join(QUEUES)
        raise UserError(f"--executor dask:{name}: it must be the address of a scheduler (tcp://host:8786), or {known}.")
    where, package = QUEUES[name]
    try:
        kind = pkgutil.resolve_name(where)
    except ImportError:
        raise UserError(f"--executor dask:{name} needs {package}: install it with pip install {package}.") from None
    settings = {} if options is None else _read_options(options)
    count = settings.pop(_JOBS, jobs or 1)
    if not isinstance(count, int) or count < 1:
        raise UserError(f"{options}: {_JOBS} must be a whole number of at least 1, not {count!r}.")
    job = getattr(kind, "job_cls", None)
    program = (getattr(job, "submit_command", None) or "").partition(" ")[0]
    if program and shutil.which(program) is None:
        raise UserError(
            f"--executor dask:{name}: there is no program {program} here; run the command where jobs are submitted."
        )
    refused: list[str] = []
    if job is not None:
        settings["job_cls"] = _noting(job, refused)
    try:
        cluster = kind(**settings)
    except (TypeError, ValueError) as error:
        place = options or f"--executor dask:{name} without --executor-config"
        raise UserError(f"{place}: {kind.__name__} does not take this ({first_line(error)}).") from None
    with cluster:
        cluster.scale(jobs=count) if package == "dask-jobqueue" else cluster.scale(count)
        yield Queue(cluster, count, refused)


def _noting(job: Any, refused: list[str]) -> Any:
    """The class of a job that notes why it could not be submitted: Dask itself would wait for its worker."""

    from distributed.deploy.spec import ProcessInterface

    class Job(job):
        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, ValueError, OSError) as error:  # ValueError: its answer has no number of a job
                refused.append(_said(error))
                log.warning("a job was not taken by the queue: %s", refused[-1])
                await ProcessInterface.start(self)  # or Dask would submit it again

    return Job


def _said(error: Exception) -> str:
    """What the submitting program wrote to standard error, as dask-jobqueue quotes it."""
    _, found, said = str(error).partition("stderr:\n")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if found and lines else first_line(error)


def _read_options(path: Path) -> dict[str, Any]:
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}.") from None
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise UserError(f"{path} must hold options by their names, such as `memory: 8GB`.")
    return options
