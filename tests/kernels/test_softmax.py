"""Cross-entropies in numba: against torch in float64, at their edges, and on any threads."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.kernels.softmax import (
    SoftTerms,
    cross_entropy,
    soft_cross_entropy,
)


@settings(max_examples=60, deadline=None)
@given(
    members=st.integers(1, 3),
    frames=st.integers(1, 9),
    classes=st.integers(1, 67),  # fewer, and not a multiple of, those that are summed side by side
    scale=st.sampled_from([0.1, 3.0, 40.0]),
    partly=st.booleans(),
    seed=st.integers(0, 999),
)
def test_terms_and_gradient(members: int, frames: int, classes: int, scale: float, partly: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, scale, (members, frames, classes)))
    senones = torch.from_numpy(rng.integers(0, classes, frames))
    weights = torch.from_numpy(rng.random((members, frames)) * ((rng.random((members, frames)) < 0.6) | (not partly)))
    factors = torch.from_numpy(rng.uniform(0.5, 2, members))

    def run(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = logits.clone().requires_grad_()
        loss, correct = cross_entropy(logits, senones, weights.to(logits.dtype))
        (gradient,) = torch.autograd.grad((loss * factors.to(logits.dtype)).sum(), logits)
        return loss, correct, gradient

    (loss, correct, gradient), expected = run(logits.float()), run(logits.float().double())
    assert loss.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(correct.double(), expected[1])
    torch.testing.assert_close(gradient.double(), expected[2], rtol=1e-4, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    members=st.integers(1, 3),
    frames=st.integers(1, 9),
    classes=st.integers(1, 67),
    temperature=st.sampled_from([1.0, 2.0, 20.0]),
    seed=st.integers(0, 999),
)
def test_soft_terms_and_gradient(members: int, frames: int, classes: int, temperature: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (members, frames, classes)))
    targets = torch.from_numpy(rng.normal(0, 3, (frames, classes))).log_softmax(-1)
    senones = torch.from_numpy(rng.integers(0, classes, frames))
    soft_weights, hard_weights = torch.from_numpy(rng.random((2, frames)) * (rng.random((2, frames)) < 0.7))

    def run(dtype: torch.dtype) -> tuple[SoftTerms, torch.Tensor]:
        ours = logits.float().to(dtype).requires_grad_()
        terms = soft_cross_entropy(
            ours,
            targets.to(dtype),
            senones,
            soft_weights=soft_weights.to(dtype),
            hard_weights=hard_weights.to(dtype),
            temperature=temperature,
        )
        return terms, torch.autograd.grad(terms.loss.sum(), ours)[0]

    (terms, gradient), (expected, expected_gradient) = run(torch.float32), run(torch.float64)
    assert terms.loss.dtype == torch.float32
    for ours, exact in zip(terms, expected, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-5 * temperature**2)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=1e-5 * temperature)


@pytest.mark.parametrize("mode", ["numba", "torch"])
def test_soft_terms_of_a_frame_without_weight_are_zero_whatever_it_holds(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASR_KD_KERNELS", mode)
    logits = torch.tensor([[[float("nan"), 0.0], [0.0, 0.0]]], requires_grad=True)
    targets = torch.tensor([[float("nan"), float("inf")], [0.5, 0.5]]).log()
    weights = torch.tensor([0.0, 1.0])
    arguments = {"soft_weights": weights, "hard_weights": weights, "temperature": 1.0}
    terms = soft_cross_entropy(logits, targets, torch.tensor([0, 0]), **arguments)
    terms.loss.sum().backward()
    assert terms.hard.tolist() == [[0.0, pytest.approx(np.log(2))]] and terms.correct.tolist() == [[0.0, 1.0]]
    assert terms.soft[0, 0] == 0 and logits.grad is not None
    assert logits.grad.tolist() == [[[0.0, 0.0], [-0.5, 0.5]]]


def test_of_equally_likely_senones_only_the_first_is_correct() -> None:
    logits = torch.tensor([[[0.0, 2.0, 2.0], [1.0, 1.0, 1.0], [0.0, 2.0, 2.0]]])
    _, right = cross_entropy(logits, torch.tensor([1, 0, 2]), torch.tensor([[1.0, 10.0, 100.0]]))
    assert right.tolist() == [2.0]


def test_nan_propagates() -> None:
    logits = torch.tensor([[[0.0, float("nan")]], [[0.0, 1.0]]])
    entropy, right = cross_entropy(logits, torch.tensor([1]), torch.ones(2, 1))
    assert entropy.isnan().tolist() == [True, False] and right.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("state", [-1, 3])
def test_a_senone_outside_the_classes_is_refused(state: int) -> None:
    with pytest.raises(ValueError, match="of 3 classes"):
        cross_entropy(torch.zeros(1, 1, 3), torch.tensor([state]), torch.ones(1, 1))


def test_senones_or_weights_of_another_shape_are_refused() -> None:
    logits, states = torch.zeros(3, 4, 5), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="weights are"):
        cross_entropy(logits, states, torch.ones(1, 4))
    with pytest.raises(ValueError, match="senones are"):
        cross_entropy(logits, states[:3], torch.ones(3, 4))


def test_denormal_gradients_are_zero() -> None:
    logits = torch.tensor([[[0.0, -87.5]]], requires_grad=True)
    entropy, _ = cross_entropy(logits, torch.tensor([0]), torch.full((1, 1), 0.5))
    entropy.sum().backward()
    assert logits.grad is not None and logits.grad.tolist() == [[[0.0, 0.0]]]


def test_frames_of_no_weight_are_not_looked_at() -> None:
    logits = torch.tensor([[[float("nan"), 0.0], [0.0, 0.0]]], requires_grad=True)
    entropy, right = cross_entropy(logits, torch.tensor([0, 0]), torch.tensor([[0.0, 1.0]]))
    entropy.sum().backward()
    assert entropy.item() == pytest.approx(np.log(2)) and right.item() == 1.0
    assert logits.grad is not None and logits.grad.tolist() == [[[0.0, 0.0], [-0.5, 0.5]]]


def test_sums_do_not_depend_on_threads_or_layout() -> None:
    before, result = torch.get_num_threads(), []
    logits = torch.randn(50, 2, 99, generator=torch.Generator().manual_seed(0)).transpose(0, 1)
    try:
        for threads, rows in ((1, logits), (2, logits.contiguous())):
            torch.set_num_threads(threads)
            rows = rows.detach().requires_grad_()
            entropy, _ = cross_entropy(rows, torch.arange(50), torch.ones(2, 50))
            entropy.sum().backward()
            result.append((entropy.detach(), rows.grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*result, strict=True))
