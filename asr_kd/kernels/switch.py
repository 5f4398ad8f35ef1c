"""How kernels run: in numba or in torch, and on how many threads.

The switch between numba and torch is the environment variable ASR_KD_KERNELS:

- `numba` (or unset): every kernel in numba where its tensors are on the CPU and of a type that it handles;
- `torch`: none of them;
- names of kernels, separated by commas (`adamw,dropout_mask`): these in numba, the others in torch.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from asr_kd.errors import UserError

VARIABLE = "ASR_KD_KERNELS"
KERNELS = frozenset({"adamw", "cross_entropy", "dropout_mask", "soft_cross_entropy"})


def use_numba(kernel: str, *tensors: Tensor) -> bool:
    """Whether this kernel runs in numba on these tensors: on the CPU, of float32.

    Raises:
      UserError: the variable names a kernel that does not exist.
    """
    return kernel in _enabled(os.environ.get(VARIABLE, "numba")) and all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors
    )


@functools.cache
def _enabled(value: str) -> frozenset[str]:
    if value in ("", "numba"):
        return KERNELS
    names = frozenset() if value == "torch" else frozenset(name.strip() for name in value.split(","))
    if names - KERNELS:
        raise UserError(
            f"{VARIABLE}={value}: it must be numba, torch or names of kernels ({', '.join(sorted(KERNELS))})."
        )
    return names


def use_torchs_threads() -> None:
    """Makes the parallel functions that are called next use as many threads as torch does.

    numba and torch share OpenMP's threads, and numba sets their number to all cores when it starts. Processes that
    are to use one core each would then compete, so this restores torch's number.
    """
    import numba  # by the kernels alone: other users of this module need not wait for it

    count = torch.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limits torch to one thread within the block, so that sums do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def changing_threads(choose: Callable[[], int | None] | None) -> Iterator[Callable[[], None]]:
    """Yields what to call between two steps: it gives torch as many threads as are chosen then.

    Args:
      choose: a number of threads, or None where it is to stay as it is; None: it always stays.
    """

    def follow() -> None:
        count = None if choose is None else choose()
        if count is not None and count != torch.get_num_threads():
            torch.set_num_threads(count)

    threads = torch.get_num_threads()
    try:
        yield follow
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
