"""bfloat16 in compiled code rounds as torch does."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.kernels import optimizer


@settings(deadline=None)
@given(number=st.floats(width=32, allow_nan=False))
def test_rounding_is_torchs(number: float) -> None:
    rounded = torch.tensor([number], dtype=torch.float32).bfloat16()
    bits = optimizer._narrowed(np.float32(number))
    assert bits == optimizer._bits_of(rounded)[0]
    assert optimizer._widened(np.uint16(bits)) == rounded.float().item()


def test_nan_stays_nan() -> None:
    payloads = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    for value in (np.float32("nan"), -np.float32("nan"), *payloads):
        assert np.isnan(optimizer._widened(np.uint16(optimizer._narrowed(value))))


def test_bits_are_the_tensors_own_memory() -> None:
    tensor = torch.zeros(2, 3, dtype=torch.bfloat16)
    optimizer._bits_of(tensor)[1, 2] = optimizer._narrowed(np.float32(-1.5))
    assert tensor[1, 2].item() == -1.5
