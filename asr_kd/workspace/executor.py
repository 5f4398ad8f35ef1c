"""Where work runs: a map over shards in this process, over helper processes or on a cluster; the device of a training.

Where a helper process is killed, most often because memory ran out, half as many helpers do the shards that have no
result yet. The process that started the helpers logs what they log.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import logging.handlers
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from asr_kd.errors import FullDiskError, KilledHelpersError, UserError
from asr_kd.io.cores import usable_cores
from asr_kd.io.formatting import human_bytes
from asr_kd.io.progress import progress_bar
from asr_kd.io.resources import available_memory
from asr_kd.kernels.process import end_with_parent

if TYPE_CHECKING:
    from asr_kd.workspace.cluster import Cluster

Shard = TypeVar("Shard")
Result = TypeVar("Result")

log = logging.getLogger(__name__)

_function: Callable[[Any], Any] | None = None  # that this helper process was started for
_cluster: ContextVar[Cluster | None] = ContextVar("cluster", default=None)
_PROCESS = 1e9  # bytes: torch and numba, a net, a shard and its results
_LEAST = 0.3e9  # bytes that a process cannot do without: half are torch and numba before they have any data
_AHEAD = 4  # shards for each helper that are submitted before the first result is taken


@dataclass(frozen=True)
class RunOptions:
    """What does not change the result: where and how visibly training runs."""

    device: str = "auto"
    tensorboard: Path | None = None
    quiet: bool = False
    checkpoint_seconds: float = 60.0
    bar: int | None = None  # the progress bar's line on the terminal, where several processes have one
    rank: int = 0  # of this process among those that torchrun has started
    world: int = 1  # how many these are
    follow_load: bool = False  # threads come and go with the load of other programs


def parallel_map(
    function: Callable[[Shard], Result],
    shards: Sequence[Shard],
    *,
    nj: int = 1,
    progress: str | None = None,
) -> Iterator[Result]:
    """Yields function(shard) for each shard, in order.

    Args:
      function: picklable; it gets one shard and must set up all else itself. Each helper process has one copy, so that
        an object may keep what it loads for the shards that follow.
      nj: how many shards run at once; 1 runs them in this process. Within `running_on` a cluster more run there.
      progress: what a bar on standard error calls the shards; None: no bar.

    Raises:
      UserError: helper processes, or workers of a cluster, are killed again and again.
    """
    results = _results(function, shards, nj)
    yield from progress_bar(progress, len(shards), "shard", items=results)


def _results(function: Callable[[Shard], Result], shards: Sequence[Shard], nj: int) -> Iterator[Result]:
    cluster = _cluster.get()
    if nj <= 1 or len(shards) <= 1:
        yield from map(function, shards)
    elif cluster is not None:
        yield from cluster.map(function, shards)
    else:
        yield from _over_processes(function, shards, nj)


def _over_processes(function: Callable[[Any], Any], shards: Sequence[Any], nj: int) -> Iterator[Any]:
    done = 0
    for helpers in (nj, max(1, nj // 2)):
        left = shards[done:]
        try:
            with _pool(min(helpers, len(left)), function) as pool:
                for result in _in_order(pool, left, _AHEAD * helpers):
                    done += 1
                    yield result
            return
        except BrokenProcessPool:
            log.warning("a helper process was killed; %d of %d shards have no result", len(shards) - done, len(shards))
    raise KilledHelpersError(
        f"helper processes were killed twice, at shard {done + 1} of {len(shards)}, most often because memory ran out; "
        "run the same command again with a lower --nj."
    )


@contextlib.contextmanager
def _pool(helpers: int, function: Callable[[Any], Any]) -> Iterator[ProcessPoolExecutor]:
    # spawn: forking a process that runs torch's and numba's threads can hang the child
    context = multiprocessing.get_context("spawn")
    try:  # queues have semaphores, which Linux keeps in /dev/shm
        records = context.Queue()  # a new one each time: a helper that was killed may have left its lock taken
        pool = ProcessPoolExecutor(helpers, mp_context=context, initializer=_start_helper, initargs=(records, function))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise FullDiskError(
            "/dev/shm, the memory that processes share, is full; delete what other programs left in it, or run the "
            "same command again with --nj 1, which starts no others."
        ) from None
    with _logging_of_helpers(records), pool:
        try:
            yield pool
        except KeyboardInterrupt:
            for helper in multiprocessing.active_children():
                helper.kill()
            raise
        except BaseException:
            # what waits does not begin; what has begun must end before the command does, which holds its locks
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _in_order(pool: ProcessPoolExecutor, shards: Sequence[Any], ahead: int) -> Iterator[Any]:
    """Yields the results of the shards in their order, as pool.map does.

    At most `ahead` shards are in progress or wait to be taken: results may be large.
    """
    in_progress: deque[Future[Any]] = deque()
    for shard in shards:
        in_progress.append(pool.submit(_call, shard))
        if len(in_progress) == ahead:
            yield in_progress.popleft().result()
    while in_progress:
        yield in_progress.popleft().result()


class _Relay(logging.Handler):
    """Logs a helper's record in this process."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


@contextlib.contextmanager
def _logging_of_helpers(records: Any) -> Iterator[None]:
    listener = logging.handlers.QueueListener(records, _Relay())
    listener.start()
    try:
        yield
    finally:
        listener.stop()


def _start_helper(records: Any, function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    # Ctrl-C in a terminal reaches helpers too, and one whose shard it ends would take the next: the parent kills it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "torch" in sys.modules:  # the function's module has loaded it
        sys.modules["torch"].set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # should it be loaded later
    package = logging.getLogger("asr_kd")
    package.setLevel(logging.INFO)
    package.addHandler(logging.handlers.QueueHandler(records))
    package.propagate = False
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None
    if not end_with_parent(parent.pid):
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def number_of_helper() -> int:
    """Returns the number of this process among those that its parent has started one after the other.

    It is 0 in a process of another kind.
    """
    number = multiprocessing.current_process().name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _call(shard: Any) -> Any:
    assert _function is not None
    return _function(shard)


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    """Ends this process after its parent; it would otherwise finish its queue, wait for ever and keep its memory."""
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def running_on(spec: str, options: Path | None, root: Path, nj: int | None = None) -> Iterator[int]:
    """Makes `parallel_map` run where `spec` says, within the block; yields how many shards then run at once.

    Args:
      spec: "processes", "processes:4", "dask:tcp://host:8786", or "dask:" and a batch system.
      options: YAML file for the batch system; see `asr_kd.workspace.cluster.connected`.
      root: the work folder.
      nj: processes, of which this machine may get fewer, or workers that the batch system is asked for.

    Raises:
      UserError: there is no such executor, or it cannot be reached.
    """
    kind, _, where = spec.partition(":")
    if kind == "processes" and (not where or (where.isdecimal() and int(where) > 0)):
        if options is not None:
            raise UserError("--executor-config is for --executor dask:slurm and other batch systems.")
        asked = int(where) if where else nj
        yield _default_jobs_with_reason() if asked is None else capped_jobs(asked)
    elif kind == "dask" and where:
        from asr_kd.workspace.cluster import connected

        with connected(where, options, root, nj) as cluster:
            token = _cluster.set(cluster)
            try:
                yield max(2, cluster.expected)  # one would be this process
            finally:
                _cluster.reset(token)
    else:
        raise UserError(
            f"--executor {spec}: it must be processes, processes:N, dask:tcp://HOST:PORT or dask:QUEUE, such as "
            "dask:slurm."
        )


def on_cluster() -> bool:
    """Whether shards run on other machines, perhaps."""
    return _cluster.get() is not None


def _default_jobs_with_reason() -> int:
    jobs, cores = default_jobs(), usable_cores()
    if jobs < cores:
        log.warning("%d of %d cores are used, since memory is short; --nj says otherwise", jobs, cores)
    return jobs


def capped_jobs(asked: int) -> int:
    """Returns the number asked for, or, with a sentence in the log, as many processes as cores and memory allow."""
    cores, free = usable_cores(), available_memory()
    fitting = cores if free is None else max(1, int(free // _LEAST))
    jobs = min(asked, cores, fitting)
    if jobs < asked:
        what = f"cores that may be used ({cores})" if jobs == cores else f"free memory ({human_bytes(free or 0)})"
        log.warning("%d processes are too many for the %s: --nj %d is taken", asked, what, jobs)
    return jobs


def default_jobs() -> int:
    """How many shards run at once where nobody says: one a core that may be used, as far as memory goes."""
    cores, free = usable_cores(), available_memory()
    return cores if free is None else max(1, min(cores, int(free // _PROCESS)))
