"""In which number format matrix products run: bfloat16 where the processor has it, else float32.

Weights, losses and optimiser stay float32 in every case.
"""

from __future__ import annotations

import functools

import torch

from asr_kd.errors import UserError
from asr_kd.kernels.cpu import cpu_flags


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """`precision` as in TrainingConfig: "auto", "float32" or "bfloat16"."""
    if precision == "auto":
        return torch.bfloat16 if has_bfloat16(device.type) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


@functools.cache
def has_bfloat16(device_type: str) -> bool:
    """Whether the hardware computes bfloat16 products (emulated, they are slower than float32)."""
    if device_type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8
    return not cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16"})


def pick_device(name: str = "auto") -> torch.device:
    """ "auto" is the first CUDA device where there is one, else the CPU.

    Raises:
      UserError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{name!r} is no device; name auto, cpu, cuda or cuda:<number>.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices.")
    return device
