"""bfloat16 in compiled code rounds as torch does, in each module that has the conversion."""

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.kernels import activation, max_norm, optimizer
from asr_kd.kernels.bfloat16 import bits_of


@pytest.mark.parametrize("module", [activation, max_norm, optimizer])
@settings(deadline=None)
@given(number=st.floats(width=32, allow_nan=False))
def test_rounding_is_torchs(module: ModuleType, number: float) -> None:
    rounded = torch.tensor([number], dtype=torch.float32).bfloat16()
    bits = module._narrowed(np.float32(number))
    assert bits == bits_of(rounded)[0]
    if hasattr(module, "_widened"):
        assert module._widened(np.uint16(bits)) == rounded.float().item()


@pytest.mark.parametrize("module", [activation, max_norm, optimizer])
def test_nan_stays_nan(module: ModuleType) -> None:
    payloads = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    for value in (np.float32("nan"), -np.float32("nan"), *payloads):
        assert np.isnan(activation._widened(np.uint16(module._narrowed(value))))


def test_bits_are_the_tensors_own_memory() -> None:
    tensor = torch.zeros(2, 3, dtype=torch.bfloat16)
    bits_of(tensor)[1, 2] = activation._narrowed(np.float32(-1.5))
    assert tensor[1, 2].item() == -1.5
