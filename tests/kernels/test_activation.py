"""Bias, ReLU and dropout in one pass, against float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr_kd.kernels.activation import relu_dropout
from asr_kd.kernels.dropout import dropout_mask, dropout_scale

RATE = 0.3
ROUNDING = {torch.bfloat16: 2**-8, torch.float32: 2**-22}


def reference(products: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    hidden = torch.relu(products.double() + bias.double())
    return hidden if mask is None else hidden * mask.double()


@settings(max_examples=40, deadline=None)
@given(
    members=st.integers(1, 3),
    frames=st.integers(1, 70),  # less than, and not a multiple of, those that are summed at once
    units=st.integers(1, 40),
    dropout=st.booleans(),
    shared=st.booleans(),
    dtype=st.sampled_from(list(ROUNDING)),
    seed=st.integers(0, 99),
)
def test_values_and_gradients(
    members: int, frames: int, units: int, dropout: bool, shared: bool, dtype: torch.dtype, seed: int
) -> None:
    rounding, kept = ROUNDING[dtype], dropout_scale(RATE, dtype) if dropout else 1.0
    generator = torch.Generator().manual_seed(seed)
    products = torch.randn(members, frames, units, generator=generator).to(dtype)
    if shared:  # laid out as a product of inputs that members share
        products = products.transpose(0, 1).contiguous().transpose(0, 1)
    bias = torch.randn(members, 1, units, generator=generator)
    mask = dropout_mask(tuple(products.shape), RATE, dtype, key=seed)
    mask = mask if dropout else None
    gradient = torch.randn(products.shape, generator=generator).to(dtype)
    products.requires_grad_()
    bias.requires_grad_()
    hidden = relu_dropout(products, bias, mask, kept)
    assert hidden.dtype == dtype and hidden.is_contiguous()
    expected = reference(products, bias, mask)
    torch.testing.assert_close(hidden.double(), expected, rtol=rounding, atol=0)
    found = torch.autograd.grad(hidden, (products, bias), gradient)
    wanted = torch.autograd.grad(expected, (products, bias), gradient.double())
    torch.testing.assert_close(found[0], wanted[0], rtol=rounding, atol=0)
    of_summands = max(rounding, frames * 2**-23) * kept * gradient.double().abs().sum(1, keepdim=True)
    assert ((found[1] - wanted[1]).abs() <= of_summands).all()


def test_rounding_is_to_the_nearest() -> None:
    products = torch.tensor([[[1.0, 2.0]]]).bfloat16()
    bias = torch.tensor([[[2.0**-8 + 2.0**-20, 2.0**-8]]])  # just above and far below half a step of bfloat16
    assert relu_dropout(products, bias, None, 1.0).tolist() == [[[1.0 + 2.0**-7, 2.0]]]


@pytest.mark.parametrize("nothing", [0.0, -0.0, -1.0])
def test_what_is_not_above_zero_has_no_gradient(nothing: float) -> None:
    products = torch.full((1, 1, 1), nothing, dtype=torch.bfloat16, requires_grad=True)
    relu_dropout(products, torch.full((1, 1, 1), -0.0), None, 1.0).sum().backward()
    assert products.grad.item() == 0.0


def test_what_is_no_number_shows() -> None:
    products = torch.tensor([[[float("nan"), 1.0]]], dtype=torch.bfloat16)
    assert relu_dropout(products, torch.zeros(1, 1, 2), None, 1.0).isnan().tolist() == [[[True, False]]]


def test_sums_do_not_depend_on_threads() -> None:
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            products = torch.randn(2, 500, 37, generator=torch.Generator().manual_seed(0)).bfloat16()
            bias = torch.zeros(2, 1, 37, requires_grad=True)
            relu_dropout(products, bias, None, 1.0).backward(products)
            found.append(bias.grad)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
