"""From the host's memory to that of an accelerator, without making the host wait for what the accelerator still does.

A copy from ordinary memory waits for all work that is queued on the accelerator; one from pinned memory is queued too.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def is_accelerator(device: torch.device) -> bool:
    """Whether it works on its own while the host goes on."""
    return device.type != "cpu"


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host in memory from which copies to `device` do not wait: itself where that is the CPU."""
    return tensor.pin_memory() if is_accelerator(device) else tensor


def on_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """An array or tensor of the host as a tensor of `device`; on a CPU it shares its memory.

    >>> on_device(np.zeros(3, np.float32), torch.device("cpu")).shape
    torch.Size([3])
    """
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return pinned(tensor, device).to(device, non_blocking=True)
