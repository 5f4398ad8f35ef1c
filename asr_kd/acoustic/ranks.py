"""Several processes that train one model: each takes its share of every batch, and gradients are added up.

Not torch's DistributedDataParallel: that takes the mean over processes, and members of an ensemble each have a mean of
their own, over the valid frames of all processes, which need not have as many each. So each process takes the gradient
of its sums, one all-reduce adds the gradients and the counts, and what comes out is divided. Everything else of a step
is a function of that and of (seed, epoch, step), and the same everywhere.

Shapes:  M members, K chunks of a batch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from asr_kd.acoustic.criteria import Terms
from asr_kd.acoustic.model import pick_device
from asr_kd.errors import UserError
from asr_kd.io.torchrun import Torchrun, torchrun

T = TypeVar("T")

_PATIENCE = timedelta(hours=12)  # the first process may make soft targets while the others wait


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; by default it is alone.

    Attributes:
      counts: whether its part of the present batch has frames of its own; else it goes through the step for the others.
    """

    rank: int = 0
    world: int = 1
    counts: bool = True

    @property
    def alone(self) -> bool:
        return self.world == 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def wait(self) -> None:
        """Waits until all processes have come to this call."""
        if not self.alone:
            _distributed().barrier()

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, in all of them."""
        if self.alone:
            return make()
        result: list[Any] = [make() if self.first else None]
        _distributed().broadcast_object_list(result, src=0)
        value: T = result[0]
        return value

    def check_alike(self, what: Any, differs: str) -> None:
        """Raises UserError, in all processes, where this is not the same in all; waits for them."""
        if self.alone:
            return
        everywhere: list[Any] = [None] * self.world
        _distributed().all_gather_object(everywhere, what)
        if any(other != everywhere[0] for other in everywhere):
            raise UserError(
                f"{differs}; the processes of torchrun must run the same code on machines of the same kind, and see "
                "one work folder."
            )

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor], terms: Terms, members: int) -> Terms:
        """Means over the valid frames of all processes.

        Args:
          tensors: whose gradients, those of this process's sums over frames, become those of the means.
          terms: of this process.
        """
        names = list(terms.logged)
        means = torch.stack([terms.loss.detach(), *(terms.logged[name] for name in names)]).float()
        gradients = [tensor.grad for tensor in tensors if tensor.grad is not None]
        parts = [terms.count, (means * terms.count).flatten(), *(each.flatten() for each in gradients)]
        sums = torch.cat([part.float() for part in parts])
        _distributed().all_reduce(sums)
        count, logged, *added = sums.split([part.numel() for part in parts])
        divisor = count.clamp_min(1.0)
        for gradient, total in zip(gradients, added, strict=True):
            by_member = total.view(members, -1) / divisor[:, None]
            gradient.copy_(by_member.view(gradient.shape))
        loss, *others = (logged.view(means.shape) / divisor).unbind()
        return Terms(loss, count, dict(zip(names, others, strict=True)))

    def sum(self, tensor: Tensor) -> Tensor:
        """Returns the sum of a tensor over all processes, with a gradient; there must be several processes."""
        from torch.distributed.nn import functional

        total: Tensor = functional.all_reduce(tensor)
        return total


ALONE = Ranks()


@contextlib.contextmanager
def process_group(device: str, environment: Mapping[str, str] = os.environ) -> Iterator[tuple[Ranks, str]]:
    """Joins the processes that torchrun has started; yields which this one is, and its device.

    Args:
      device: as the user named it; "auto" and "cuda" give each process of a machine a GPU of its own.

    Raises:
      UserError: the processes do not find each other, or there are fewer GPUs than processes.
    """
    started = torchrun(environment)
    if started.world == 1:
        yield ALONE, device
        return
    ranks, device = Ranks(started.rank, started.world), _own_device(device, started)
    distributed = _distributed()
    backend = "nccl" if device.startswith("cuda") else "gloo"
    try:
        distributed.init_process_group(backend, rank=ranks.rank, world_size=ranks.world, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the {ranks.world} processes of torchrun do not find each other: {error}.") from None
    try:
        yield ranks, device
    finally:
        distributed.destroy_process_group()


def _own_device(device: str, started: Torchrun) -> str:
    if pick_device(device).type != "cuda":
        return device
    if device not in ("auto", "cuda"):
        raise UserError(f"--device {device}: torchrun gives each process a GPU of its own; leave --device out.")
    if started.local_world > torch.cuda.device_count():
        raise UserError(
            f"torchrun has started {started.local_world} processes here for {torch.cuda.device_count()} GPUs; start "
            "one process for each."
        )
    torch.cuda.set_device(started.local_rank)
    return f"cuda:{started.local_rank}"


def _distributed():  # type: ignore[no-untyped-def]  # loaded where several processes train: it takes a while
    import torch.distributed

    return torch.distributed
