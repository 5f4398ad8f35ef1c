"""Independent pieces of a stage over an executor: in this process, over processes, or on a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from tqdm import tqdm

from asr_kd.errors import UserError

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def map_pieces(
    function: Callable[[Piece], Result],
    pieces: Sequence[Piece],
    *,
    nj: int = 1,
    executor: str = "processes",
    progress: str | None = None,
) -> Iterator[Result]:
    """Yields function(piece) for each piece, in order.

    Args:
      function: picklable; it gets one piece and must set up all else itself.
      nj: how many pieces run at once; 1 runs them in this process.
      executor: "processes", or the address of a Dask scheduler ("tcp://host:8786").
      progress: what a bar on standard error calls the pieces; None: no bar.

    Raises:
      UserError: a Dask address is given and dask.distributed is not installed.
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
        # spawn: forking a process that runs torch's and numba's threads can hang the child
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(nj, len(pieces)), mp_context=context, initializer=_start_helper) as pool:
            yield from pool.map(function, pieces)


def _start_helper() -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


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


def default_nj() -> int:
    """As many pieces as this process may use cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
