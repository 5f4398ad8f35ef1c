"""The one-pass AdamW goes where torch's goes, and its state can be saved and loaded."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.kernels.optimizer import FusedAdamW


def parameters(seed: int) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((3, 40, 17), (3, 1, 17), (5,), (3, 9, 17))
    result = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    result[-1].data = inputs_first(result[-1].data)
    return result


def inputs_first(numbers: torch.Tensor) -> torch.Tensor:
    """The same, laid out as the weights of a layer whose inputs all members share."""
    return numbers.transpose(0, 1).contiguous().transpose(0, 1)


def gradients(params: list[torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for parameter in params:
        scale = 10.0 ** torch.randint(-6, 3, (1,), generator=generator).item()
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 3 and step % 2:  # in either layout
            parameter.grad = inputs_first(parameter.grad)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99),
    lr=st.floats(1e-5, 1e-1),
    decay=st.sampled_from([0.0, 0.01, 0.5]),
    betas=st.sampled_from([(0.9, 0.999), (0.0, 0.9), (0.95, 0.98)]),
)
def test_it_is_adamw(seed: int, lr: float, decay: float, betas: tuple[float, float]) -> None:
    ours, theirs, exact = parameters(seed), parameters(seed), [p.detach().double() for p in parameters(seed)]
    exact = [torch.nn.Parameter(p) for p in exact]
    settings_ = {"lr": lr, "betas": betas, "weight_decay": decay}
    optimizers = [FusedAdamW(ours, **settings_)]  # type: ignore[arg-type]
    optimizers += [torch.optim.AdamW(p, **settings_) for p in (theirs, exact)]  # type: ignore[arg-type]
    for step in range(12):
        for params in (ours, theirs):
            gradients(params, step)
        for parameter, like in zip(exact, theirs, strict=True):
            parameter.grad = like.grad.double()  # type: ignore[union-attr]
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours, exact, strict=True):
        # each of the 12 steps moves by about lr, known to a few float32 roundings of it and of the weight itself
        torch.testing.assert_close(a.detach().double(), b.detach(), rtol=3e-6, atol=12 * lr * 3e-5 + 1e-7)


def test_a_loaded_state_goes_on_as_if_it_had_not_stopped() -> None:
    whole, halves = parameters(1), parameters(1)
    optimizer = FusedAdamW(whole, lr=0.1)
    for step in range(6):
        gradients(whole, step)
        optimizer.step()
    first = FusedAdamW(halves, lr=0.1)
    for step in range(3):
        gradients(halves, step)
        first.step()
    second = FusedAdamW(halves, lr=0.1)
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        gradients(halves, step)
        second.step()
    for a, b in zip(whole, halves, strict=True):
        assert torch.equal(a, b)


def test_the_result_does_not_depend_on_the_threads() -> None:
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            params = parameters(2)
            optimizer = FusedAdamW(params, lr=0.01)
            for step in range(3):
                gradients(params, step)
                optimizer.step()
            results.append(params)
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_may_lie_in_any_order(transposed: bool) -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(4, 6)) for _ in range(2))
    gradient = torch.arange(24.0).view(6, 4).t() if transposed else torch.arange(24.0).view(4, 6)
    ours.grad = theirs.grad = gradient
    FusedAdamW([ours], lr=0.1).step()
    torch.optim.AdamW([theirs], lr=0.1).step()
    torch.testing.assert_close(ours, theirs)


def test_a_loaded_state_may_be_laid_out_otherwise() -> None:
    """As those are that were written before weights lay as their product takes them."""
    lying, plain = parameters(1), [torch.nn.Parameter(p.detach().clone().contiguous()) for p in parameters(1)]
    before, after = FusedAdamW(plain, lr=0.1), FusedAdamW(lying, lr=0.1)
    for params, optimizer in ((plain, before), (lying, after)):
        gradients(params, 0)
        optimizer.step()
    after.load_state_dict(copy.deepcopy(before.state_dict()))  # newer torch copies no state that it loads
    for params, optimizer in ((plain, before), (lying, after)):
        gradients(params, 1)
        optimizer.step()
    assert lying[-1].stride() != plain[-1].stride()
    assert all(torch.equal(one, other) for one, other in zip(lying, plain, strict=True))
