"""Convolutions along time and their gradients, against torch's in float64, and the constraint on factored ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from asr_kd.acoustic.time_convolution import FactoredConvolution, TimeConvolution, nearer_semi_orthogonal


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_member(inputs: Tensor, weight: Tensor, members: int, dilation: int, *, shared: bool) -> Tensor:
    """torch's one-dimensional convolution of each member."""
    parts = [inputs] * members if shared else inputs.chunk(members, dim=2)
    results = [
        F.conv1d(part.transpose(1, 2), kernel.squeeze(2), dilation=dilation).transpose(1, 2)
        for part, kernel in zip(parts, weight.chunk(members), strict=True)
    ]
    return torch.cat(results, 2)


@pytest.fixture(scope="module", params=[False, True], ids=["avx2", "avx512"])
def processor(request):
    """Both kinds of gradients, whatever processor this is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asr_kd.acoustic.time_convolution._has_avx512", lambda: request.param)
        yield


@pytest.mark.usefixtures("processor")
@given(
    members=st.integers(1, 3),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    taps=st.integers(1, 4),
    dilation=st.integers(1, 3),
    chunks=st.integers(1, 3),
    more=st.integers(1, 5),
    shared=st.booleans(),
)
def test_values_and_gradients_are_torchs(members, sizes, taps, dilation, chunks, more, shared):
    (before, after), frames = sizes, (taps - 1) * dilation + more
    layer = TimeConvolution(before, after, members, taps=taps, dilation=dilation, shared_inputs=shared).double()
    with torch.no_grad():
        layer.weight.copy_(random(*layer.weight.shape, seed=1))
    inputs = random(chunks, frames, before if shared else members * before, seed=2).requires_grad_()
    expected = by_member(inputs, layer.weight, members, dilation, shared=shared)
    outputs = layer(inputs)
    assert outputs.shape == (chunks, more, members * after)
    assert torch.allclose(outputs, expected, atol=1e-12)
    direction = random(*outputs.shape, seed=3)
    for gradient, reference in zip(
        torch.autograd.grad((outputs * direction).sum(), (inputs, layer.weight)),
        torch.autograd.grad((expected * direction).sum(), (inputs, layer.weight)),
        strict=True,
    ):
        assert torch.allclose(gradient, reference, atol=1e-11)


@pytest.mark.usefixtures("processor")
def test_channels_of_a_frame_lie_side_by_side():
    """In the gradient too: else every layer would copy it."""
    layer, seen = TimeConvolution(6, 4, 2, taps=3, dilation=2), []
    torch.nn.init.normal_(layer.weight)
    inputs = torch.randn(3, 20, 12, requires_grad=True)
    between = inputs * 1.0
    between.register_hook(lambda gradient: seen.append(gradient.is_contiguous()))
    outputs = layer(between)
    (outputs * torch.randn(outputs.shape)).sum().backward()
    assert outputs.is_contiguous() and seen == [True]


def factored(members: int = 2) -> FactoredConvolution:
    layer = FactoredConvolution(5, 3, members, dilation=2)
    for member in range(members):
        layer.initialise(member, members, torch.Generator().manual_seed(member))
    return layer.double()


def test_a_factored_convolution_is_one_over_three_frames():
    layer = factored()
    narrow, wide = layer.narrow.weight.view(2, 3, 5, 2), layer.wide.weight.view(2, 5, 3, 2)
    whole = torch.zeros(2, 5, 5, 3, dtype=torch.float64)
    for late in range(2):
        for early in range(2):
            whole[..., late + early] += wide[..., late] @ narrow[..., early]
    inputs = random(2, 12, 10)
    expected = by_member(inputs, whole.view(10, 5, 1, 3), 2, 2, shared=False)
    assert torch.allclose(layer(inputs), expected, atol=1e-12)


@pytest.mark.usefixtures("processor")
def test_gradients_of_a_factored_convolution():
    layer = factored()
    inputs, weights = random(1, 7, 10).requires_grad_(), (layer.narrow.weight, layer.wide.weight)
    assert torch.autograd.gradcheck(lambda *_: layer(inputs), (inputs, *weights))


def off_semi_orthogonal(matrices: Tensor) -> Tensor:
    """(M,) distance of P / a^2 from I."""
    products = matrices @ matrices.transpose(1, 2)
    square = products.square().sum((1, 2)) / products.diagonal(dim1=1, dim2=2).sum(1)
    return (products / square.view(-1, 1, 1) - torch.eye(products.shape[1])).flatten(1).norm(dim=1)


@given(rows=st.integers(1, 12), more=st.integers(0, 12), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_the_constraint_converges_to_a_semi_orthogonal_matrix_of_any_scale(rows, more, scale, seed):
    matrices = random(2, rows, rows + more, seed=seed) * scale
    first = matrices
    for _ in range(60):
        matrices = nearer_semi_orthogonal(matrices)
    assert bool((off_semi_orthogonal(matrices) < 1e-6).all())
    ratio = matrices.norm(dim=(1, 2)) / first.norm(dim=(1, 2))
    assert bool((ratio > 0.3).all() and (ratio < 3).all())  # the scale stays the weights' own
    assert torch.allclose(nearer_semi_orthogonal(matrices), matrices, atol=1e-6 * scale)


def test_the_constraint_is_that_of_each_member_alone():
    together = factored(3)
    alone = [factored(3).narrow.weight.chunk(3)[member].detach().clone() for member in range(3)]
    together.constrain()
    for member, weight in enumerate(alone):
        matrix = weight.view(3, 10)
        product = matrix @ matrix.T
        square = torch.trace(product @ product.T) / torch.trace(product)
        expected = matrix - (product - square * torch.eye(3)) @ matrix / (2 * square)  # Povey et al., equation 2
        assert torch.allclose(together.narrow.weight.chunk(3)[member].view(3, 10), expected, atol=1e-12)


@pytest.mark.parametrize("rows", [4, 64])
def test_steps_come_nearer_and_quadratically_at_last(rows):
    matrices = random(3, rows, 2 * rows)
    assert bool((off_semi_orthogonal(nearer_semi_orthogonal(matrices)) < off_semi_orthogonal(matrices)).all())
    near = torch.linalg.qr(matrices.transpose(1, 2)).Q.transpose(1, 2) + 1e-3 * random(3, rows, 2 * rows, seed=1)
    off = off_semi_orthogonal(near)
    assert bool((off > 1e-3).all()) and bool((off_semi_orthogonal(nearer_semi_orthogonal(near)) < off.square()).all())
