"""Hard targets row by row, against float64; what falls outside, and what does not depend on threads."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from asr_kd.acoustic.criteria import HardTargets
from asr_kd.kernels.cross_entropy import FusedCrossEntropy

CPU = torch.device("cpu")


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
    """Through `HardTargets`, whose way for other number formats is torch's own."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, scale, (members, frames, classes)))
    trains_on = rng.random((members, frames)) < 0.6 if partly else None
    objective = HardTargets(rng.integers(0, classes, frames), CPU, trains_on)
    numbers = torch.arange(frames)
    factors = torch.from_numpy(rng.uniform(0.5, 2, members))

    def run(logits: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        logits = logits.clone().requires_grad_()
        terms = objective(logits, numbers, numbers)
        (gradient,) = torch.autograd.grad((terms["loss"] * factors.to(logits.dtype)).sum(), logits)
        return terms, gradient

    (found, slope), (expected, wanted) = run(logits.float()), run(logits.float().double())
    assert found["loss"].dtype == slope.dtype == torch.float32
    torch.testing.assert_close(found["loss"].double(), expected["loss"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slope.double(), wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["train_accuracy"].double(), expected["train_accuracy"].double())


def test_of_states_as_likely_only_the_first_is_right() -> None:
    logits = torch.tensor([[[0.0, 2.0, 2.0], [1.0, 1.0, 1.0], [0.0, 2.0, 2.0]]])
    _, right = FusedCrossEntropy.apply(logits, torch.tensor([1, 0, 2]), torch.tensor([[1.0, 10.0, 100.0]]))
    assert right.tolist() == [2.0]


def test_what_is_no_number_shows() -> None:
    logits = torch.tensor([[[0.0, float("nan")]], [[0.0, 1.0]]])
    entropy, right = FusedCrossEntropy.apply(logits, torch.tensor([1]), torch.ones(2, 1))
    assert entropy.isnan().tolist() == [True, False] and right.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("state", [-1, 3])
def test_a_state_that_is_none_of_the_classes_is_refused(state: int) -> None:
    with pytest.raises(ValueError, match="of 3 classes"):
        FusedCrossEntropy.apply(torch.zeros(1, 1, 3), torch.tensor([state]), torch.ones(1, 1))


def test_states_or_weights_of_another_shape_are_refused() -> None:
    logits, states = torch.zeros(3, 4, 5), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="weights are"):
        HardTargets(np.zeros(4, np.int64), CPU, np.ones((1, 4), bool))(logits, torch.arange(4), states)
    with pytest.raises(ValueError, match="states are"):
        FusedCrossEntropy.apply(logits, states[:3], torch.ones(3, 4))


@pytest.mark.parametrize("frames", [10, 300, 1000])
def test_all_right_is_a_train_accuracy_of_one(frames: int) -> None:
    logits = torch.zeros(2, frames, 2)
    terms = HardTargets(np.zeros(frames, np.int64), CPU)(logits, torch.arange(frames), torch.arange(frames))
    assert terms["train_accuracy"].tolist() == [1.0, 1.0]


def test_denormal_slopes_are_none() -> None:
    logits = torch.tensor([[[0.0, -87.5]]], requires_grad=True)
    entropy, _ = FusedCrossEntropy.apply(logits, torch.tensor([0]), torch.full((1, 1), 0.5))
    entropy.sum().backward()
    assert logits.grad is not None and logits.grad.tolist() == [[[0.0, 0.0]]]


def test_frames_of_no_weight_are_not_looked_at() -> None:
    logits = torch.tensor([[[float("nan"), 0.0], [0.0, 0.0]]], requires_grad=True)
    entropy, right = FusedCrossEntropy.apply(logits, torch.tensor([0, 0]), torch.tensor([[0.0, 1.0]]))
    entropy.sum().backward()
    assert entropy.item() == pytest.approx(np.log(2)) and right.item() == 1.0
    assert logits.grad is not None and logits.grad.tolist() == [[[0.0, 0.0], [-0.5, 0.5]]]


def test_sums_do_not_depend_on_threads_or_layout() -> None:
    before, found = torch.get_num_threads(), []
    logits = torch.randn(50, 2, 99, generator=torch.Generator().manual_seed(0)).transpose(0, 1)
    try:
        for threads, rows in ((1, logits), (2, logits.contiguous())):
            torch.set_num_threads(threads)
            rows = rows.detach().requires_grad_()
            entropy, _ = FusedCrossEntropy.apply(rows, torch.arange(50), torch.ones(2, 50))
            entropy.sum().backward()
            found.append((entropy.detach(), rows.grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_objective_s_float32_way_is_taken_in_training() -> None:
    """Else the tests above would compare torch with itself."""
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    loss = HardTargets(np.array([0, 1]), CPU)(logits, torch.arange(2), torch.arange(2))["loss"]
    assert "FusedCrossEntropy" in type(loss.grad_fn).__name__
    entropies = F.cross_entropy(logits[0], torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(entropies.item())
