"""Compiled max-norm, against torch in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.kernels.max_norm import clip_column_norms_


@settings(max_examples=30, deadline=None)
@given(
    members=st.integers(1, 3),
    rows=st.integers(1, 40),
    units=st.integers(1, 150),  # less than, and not a multiple of, those that are done at once
    limit=st.floats(0.1, 20.0),
    inputs_first=st.booleans(),
    seed=st.integers(0, 99),
)
def test_norms_are_limited(members: int, rows: int, units: int, limit: float, inputs_first: bool, seed: int) -> None:
    before = torch.randn(members, rows, units, generator=torch.Generator().manual_seed(seed))
    if inputs_first:
        before = before.transpose(0, 1).contiguous().transpose(0, 1)
    weight, copy = before.clone(), before.bfloat16()
    clip_column_norms_(weight, copy, limit)
    exact = before.double()
    expected = exact * (limit / exact.norm(dim=1, keepdim=True)).clamp_max(1.0)
    torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(copy, weight.bfloat16())
    within = exact.norm(dim=1, keepdim=True).expand_as(exact) < limit * (1 - 1e-5)
    assert torch.equal(weight[within], before[within])  # bit for bit


def test_the_copy_may_be_missing() -> None:
    weight = torch.full((1, 4, 2), 3.0)
    clip_column_norms_(weight, None, 1.0)
    assert weight.norm(dim=1).tolist() == [[pytest.approx(1.0), pytest.approx(1.0)]]
