"""Independent pieces of a stage over an executor: in this process, over processes, or on a Dask cluster.

Where a helper process is killed, most often for want of memory, the pieces that have no answer yet are done once more
by half as many helpers. What helpers log is logged by the process that started them.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tqdm import tqdm

from asr_kd.errors import KilledHelpersError, UserError

Piece = TypeVar("Piece")
Result = TypeVar("Result")

log = logging.getLogger(__name__)

_most_helpers = 1
_function: Callable[[Any], Any] | None = None  # that this helper process was started for
_AHEAD = 4  # pieces for each helper that are submitted before the first result is taken


def parallel_map(
    function: Callable[[Piece], Result],
    pieces: Sequence[Piece],
    *,
    nj: int = 1,
    executor: str = "processes",
    progress: str | None = None,
) -> Iterator[Result]:
    """Yields function(piece) for each piece, in order.

    Args:
      function: picklable; it gets one piece and must set up all else itself. Each helper process has one copy, so that
        an object may keep what it loads for the pieces that follow.
      nj: how many pieces run at once; 1 runs them in this process.
      executor: "processes", or the address of a Dask scheduler ("tcp://host:8786").
      progress: what a bar on standard error calls the pieces; None: no bar.

    Raises:
      UserError: a Dask address is given and dask.distributed is not installed, or helper processes are killed again
        and again.
    """
    results = _results(function, pieces, nj, executor)
    if progress is None:
        yield from results
    else:
        yield from tqdm(results, total=len(pieces), desc=progress, mininterval=0.5, dynamic_ncols=True)


def _results(function: Callable[[Piece], Result], pieces: Sequence[Piece], nj: int, executor: str) -> Iterator[Result]:
    if executor != "processes":
        yield from _on_dask(function, pieces, executor)
    elif nj <= 1 or len(pieces) <= 1:
        yield from map(function, pieces)
    else:
        yield from _over_processes(function, pieces, nj)


def _over_processes(function: Callable[[Any], Any], pieces: Sequence[Any], nj: int) -> Iterator[Any]:
    # spawn: forking a process that runs torch's and numba's threads can hang the child
    context = multiprocessing.get_context("spawn")
    done = 0
    _note_helpers(min(nj, len(pieces)))
    for helpers in (nj, max(1, nj // 2)):
        left = pieces[done:]
        records = context.Queue()  # a new one each time: a helper that was killed may have left its lock taken
        try:
            with (
                _logging_of_helpers(records),
                ProcessPoolExecutor(
                    min(helpers, len(left)), mp_context=context, initializer=_start_helper, initargs=(records, function)
                ) as pool,
            ):
                for result in _in_order(pool, left, _AHEAD * helpers):
                    done += 1
                    yield result
            return
        except BrokenProcessPool:
            log.warning("a helper process was killed; %d of %d pieces have no answer", len(pieces) - done, len(pieces))
    raise KilledHelpersError(
        f"helper processes were killed twice, at piece {done + 1} of {len(pieces)}, most often for want of memory; run "
        "the same command again with a lower --nj."
    )


def _in_order(pool: ProcessPoolExecutor, pieces: Sequence[Any], ahead: int) -> Iterator[Any]:
    """As pool.map, but at most `ahead` pieces are under way or wait to be taken: results may be large."""
    under_way: deque[Future[Any]] = deque()
    for piece in pieces:
        under_way.append(pool.submit(_call, piece))
        if len(under_way) == ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _note_helpers(count: int) -> None:
    global _most_helpers
    _most_helpers = max(_most_helpers, count)


def most_helpers() -> int:
    """The most helper processes that this one has had at once; 1 where it had none."""
    return _most_helpers


class _HandOver(logging.Handler):
    """Logs what a helper sent as if it had been logged here."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


@contextlib.contextmanager
def _logging_of_helpers(records: Any) -> Iterator[None]:
    listener = logging.handlers.QueueListener(records, _HandOver())
    listener.start()
    try:
        yield
    finally:
        listener.stop()


def _start_helper(records: Any, function: Callable[[Any], Any]) -> None:
    import torch

    global _function
    _function = function
    torch.set_num_threads(1)
    package = logging.getLogger("asr_kd")
    package.setLevel(logging.INFO)
    package.addHandler(logging.handlers.QueueHandler(records))
    package.propagate = False
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _call(piece: Any) -> Any:
    assert _function is not None
    return _function(piece)


def _end_with_parent() -> None:
    """A helper whose parent was killed would else finish what was queued and then wait for ever, with its memory."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _on_dask(function: Callable[[Any], Any], pieces: Sequence[Any], address: str) -> Iterator[Any]:
    try:
        from dask.distributed import Client
    except ImportError:
        raise UserError("--executor tcp://... needs Dask: install it with pip install 'asr_kd[dask]'.") from None
    with Client(address) as client:
        for future in client.map(function, pieces, pure=False):
            yield future.result()


def default_jobs() -> int:
    """As many pieces as this process may use cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
