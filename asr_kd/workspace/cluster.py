"""Dask as the executor: a scheduler that runs already, or workers that a batch system starts (dask-jobqueue).

Workers see the work folder under the same path. A process of theirs does one shard at a time, whatever its threads:
what computes shards keeps what it has loaded, and knows nothing of threads. A worker gets it anew for each map, so that
nothing that it has loaded for an earlier one answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import logging.handlers
import os
import platform
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from asr_kd.errors import UserError, first_line
from asr_kd.workspace.queues import open_queue

try:
    import cloudpickle
    import distributed
    from distributed.client import ClosedClientError
    from distributed.comm.core import CommClosedError
except ImportError:
    raise UserError("--executor dask:... needs Dask: install it with pip install 'asr_kd[dask]'.") from None

Shard = TypeVar("Shard")
Result = TypeVar("Result")

log = logging.getLogger(__name__)

_AHEAD = 4  # shards for each worker that are submitted before the first result is taken
_DEATHS = 2  # of workers before a shard is done without others beside it
_FOLDER = ".cluster"  # in exp/
_LOOK = 5.0  # seconds between two looks at whether there are workers
_ANSWER = 30.0  # seconds for a scheduler to answer, or to be back
_OLD = 86400.0  # seconds; files of commands that were killed so long ago are deleted
_TIMEOUTS = (TimeoutError, asyncio.TimeoutError)  # the same from Python 3.11 on
_LOUD = ("distributed.client", "distributed.core", "distributed.scheduler", "distributed.worker", "tornado.application")
_WAIT = 600.0  # seconds for the first worker of a batch system, which may have to wait for a machine
_REFUSED = 2.0  # seconds between two looks at whether it has refused the jobs

# of a worker's process
_one_at_a_time = threading.Lock()
_current: tuple[Path, Callable[[Any], Any]] | None = None  # the map that it works for, and what computes its shards


@dataclass(frozen=True)
class Cluster:
    """Workers of a scheduler.

    Attributes:
      root: the work folder, which each of them must see.
      expected: how many there are to be, or were at the start.
    """

    client: Any
    root: Path
    expected: int

    def map(self, function: Callable[[Shard], Result], shards: Sequence[Shard]) -> Iterator[Result]:
        """Yields function(shard) for each shard, in order; what workers log is logged here.

        Shards of a worker that was lost are done again.

        Raises:
          UserError: a worker does not see the work folder, all are gone, or one shard kills them.
        """
        if not shards:
            return
        workers = self._addresses()
        name = f"asr-kd-{uuid.uuid4().hex}"
        # through the work folder: as an argument it would be in every task, as a result only where it was computed, and
        # shards would go there alone
        pickled = cloudpickle.dumps(function)
        file = self.root / "exp" / _FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickled)
        call = partial(_call, _Sent(self.root, file, hashlib.sha256(pickled).hexdigest()), os.getcwd())

        def submit(number: int, attempt: int = 1) -> Any:
            key = f"{name}-{number + 1}-{attempt}"
            # the scheduler, which may see no work folder, passes bytes on
            shard = cloudpickle.dumps(shards[number])
            with _reached():
                return self.client.submit(call, shard, key=key, pure=False)

        in_progress: deque[tuple[int, Any]] = deque()
        waiting = iter(range(len(shards)))
        try:
            while True:
                ahead = _AHEAD * max(1, self.expected) - len(in_progress)
                in_progress.extend((number, submit(number)) for number in islice(waiting, ahead))
                if not in_progress:
                    return
                number, future = in_progress[0]
                try:
                    result = self._result(future)
                except distributed.KilledWorker:
                    # shards that waited on the same worker are as suspect as the one that it was doing
                    for _, other in in_progress:
                        self._wait(other)
                    result = self._alone(submit(number, 2), number, len(shards))
                in_progress.popleft()
                yield result
        finally:
            file.unlink(missing_ok=True)
            with contextlib.suppress(Exception):  # where the scheduler is gone there is nothing to cancel
                self.client.cancel([future for _, future in in_progress])
            if (present := self._addresses()) and (lost := workers - present):
                log.warning("%d workers of %d were lost; their shards were done again", len(lost), len(workers))

    def _alone(self, future: Any, number: int, count: int) -> Any:
        """The result of a shard beside which no other is done."""
        try:
            return self._result(future)
        except distributed.KilledWorker:
            raise UserError(
                f"shard {number + 1} of {count} kills worker after worker, most often because memory runs out; give "
                "workers more memory, or fewer processes each."
            ) from None

    def _result(self, future: Any) -> Any:
        failure = self._wait(future)
        if failure is None:
            try:
                with _reached():
                    result, failure, records = future.result()
            except OSError as lost:
                if future.status == "error":  # its worker was lost, and the shard failed when it was done again
                    raise
                raise _scheduler_lost(lost) from None
            for record in records:
                logging.getLogger(record.name).handle(record)
        if failure is not None:
            raise failure
        return result

    def _wait(self, future: Any) -> BaseException | None:
        """Waits until a shard is done or has failed, as long as there are workers or may be workers again.

        Returns what it failed with.
        """
        last_seen, answers = time.monotonic(), True
        while True:
            try:
                with _reached():
                    failure: BaseException | None = future.exception(timeout=_LOOK)
                return failure
            except _TIMEOUTS:
                answered, (workers, answers) = answers, self._ask()
                if answered and not answers:
                    log.warning("the cluster's scheduler does not answer; waiting for it")
                if workers:
                    last_seen = time.monotonic()
                elif time.monotonic() - last_seen > _WAIT:
                    what = "worker; start workers" if answers else "scheduler that answers; look at it"
                    raise UserError(
                        f"for {_WAIT / 60:.0f} minutes the cluster has had no {what} and run the same command again: "
                        "it goes on where it was."
                    ) from None

    def _addresses(self) -> set[str]:
        """Returns the addresses of the workers; none where the scheduler is gone."""
        return self._ask()[0]

    def _ask(self) -> tuple[set[str], bool]:
        """The addresses of the workers, and whether the scheduler has answered."""
        try:
            ask = self.client.scheduler.ncores
            return set(self.client.sync(ask, workers=None, callback_timeout=_ANSWER)), True
        # AttributeError, RuntimeError: of a client that is closed, or being closed
        except (*_TIMEOUTS, OSError, CommClosedError, AttributeError, RuntimeError):
            return set(), False


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """Makes a client ask its scheduler within the block."""
    try:
        yield
    except (CancelledError, ClosedClientError, CommClosedError) as lost:
        raise _scheduler_lost(lost) from None


def _scheduler_lost(error: Exception) -> UserError:
    return UserError(
        f"the cluster's scheduler was lost ({first_line(error)}); run the same command again when it is back: it goes "
        "on where it was."
    )


@dataclass(frozen=True)
class _Sent:
    """What computes the shards of a map, in the work folder.

    Attributes:
      root: the work folder. digest: SHA-256 of the pickled function.
    """

    root: Path
    file: Path
    digest: str

    def load(self) -> Callable[[Any], Any]:
        """Raises UserError where another file is there, or none: this machine sees other files than the command does.

        The digest comes from the command: nothing else is unpickled.
        """
        host = platform.node()
        if not self.root.is_dir():
            raise UserError(
                f"a worker on {host} does not see {self.root}: the work folder must be on a file system that all "
                "workers share, under the same path."
            )
        pickled = self.file.read_bytes() if self.file.exists() else b""
        if hashlib.sha256(pickled).hexdigest() != self.digest:
            raise UserError(
                f"a worker on {host} does not see what was written to {self.file.parent}: the work folder must be on a "
                "file system that all workers share; run the command again when they see the same files."
            )
        function: Callable[[Any], Any] = cloudpickle.loads(pickled)
        return function


def _call(sent: _Sent, folder: str, shard: bytes) -> tuple[Any, UserError | None, list[logging.LogRecord]]:
    """Computes a shard on a worker; returns the result, or a sentence for the user, and what was logged.

    Args:
      folder: the command's; paths of shards may be relative to it.
      shard: pickled.
    """
    global _current
    with _one_at_a_time, _within(folder), _noted() as records:
        if _current is None or _current[0] != sent.file:
            _current = None  # frees what was loaded
            _current = sent.file, sent.load()
        try:
            return _current[1](cloudpickle.loads(shard)), None, records
        except UserError as error:
            return None, error, records


@contextlib.contextmanager
def _within(folder: str) -> Iterator[None]:
    before = os.getcwd()
    with contextlib.suppress(OSError):
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _noted() -> Iterator[list[logging.LogRecord]]:
    """What the package logs in the block, as it can be sent to another process."""
    waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    package, records = logging.getLogger("asr_kd"), list[logging.LogRecord]()
    handler = logging.handlers.QueueHandler(waiting)
    before = package.level, package.propagate
    package.setLevel(logging.INFO)
    package.propagate = False
    package.addHandler(handler)
    try:
        yield records
    finally:
        package.removeHandler(handler)
        package.setLevel(before[0])
        package.propagate = before[1]
        while not waiting.empty():
            records.append(waiting.get())


@contextlib.contextmanager
def connected(where: str, options: Path | None, root: Path, jobs: int | None = None) -> Iterator[Cluster]:
    """A cluster for the time of a command.

    Args:
      where: the address of a scheduler, "tcp://host:8786", or a name of QUEUES.
      options: YAML file of the options of the queue's class, and `jobs`, the number of workers.
      root: the work folder.
      jobs: how many workers are asked for, if the file does not say.

    Raises:
      UserError: there is no such queue, scheduler or file, an option is wrong, or no worker comes.
    """
    # a shard that kills workers must not kill all of them; a scheduler that runs already has its own number
    settings = {"distributed.scheduler.allowed-failures": _DEATHS, "distributed.worker.daemon": False}
    import dask

    _delete_old(root / "exp" / _FOLDER)
    with dask.config.set(settings), _quiet(), contextlib.ExitStack() as stack:
        if "://" in where:
            if options is not None:
                raise UserError("--executor-config is for queues; a scheduler that runs has its own settings.")
            address: Any = where
            refusal: Callable[[], str] = str  # a scheduler that runs refuses none
        else:
            queue = stack.enter_context(open_queue(where, options, jobs))
            address, jobs, refusal = queue.cluster, queue.jobs, queue.refusal
        try:
            client = stack.enter_context(distributed.Client(address, timeout=_ANSWER, set_as_default=False))
        except (OSError, ValueError) as error:
            raise UserError(f"--executor dask:{where}: no scheduler answers there ({first_line(error)}).") from None
        workers = _first_workers(client, where, refusal)
        log.info("%d workers of Dask at %s", len(workers), client.scheduler.address)
        yield Cluster(client, root.absolute(), max(len(workers), jobs if "://" not in where and jobs else 0))


def _first_workers(client: Any, where: str, refusal: Callable[[], str]) -> Any:
    """Waits for one at least; returns what is known of those that are there.

    Args:
      refusal: why no job was accepted, or nothing.
    """
    end = time.monotonic() + _WAIT
    while time.monotonic() < end:
        try:
            client.wait_for_workers(1, timeout=min(_REFUSED, _WAIT))
            return client.nthreads()
        except _TIMEOUTS:
            if why := refusal():
                raise UserError(f"--executor dask:{where}: the queue takes no job: {why}.") from None
        except (OSError, CommClosedError) as lost:
            raise _scheduler_lost(lost) from None
    raise UserError(
        f"--executor dask:{where}: no worker has come in {_WAIT / 60:.0f} minutes; look at the queue, and at the "
        "workers' logs."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Dask from logging what the command says in a sentence of its own."""
    # some have levels of their own, which their parent's does not change
    loggers = [logging.getLogger(name) for name in ("distributed", *_LOUD)]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _delete_old(folder: Path) -> None:
    """What killed commands have left in the work folder."""
    for file in folder.glob("asr-kd-*"):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > _OLD:
                file.unlink()
