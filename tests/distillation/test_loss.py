"""The distillation loss against the paper's equations, in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.distillation.loss import LossTerms, SoftTargets, distillation_loss, ensemble_distribution, logit_matching

temperatures = st.just(1.0) | st.floats(0.5, 50)  # T = 1 takes a shorter way


@st.composite
def problems(draw, fewest=1, scale=3.0):
    """Student logits z and teacher logits v, (B, C) float64, and states (B,)."""
    shape = (draw(st.integers(fewest, fewest + 4)), draw(st.integers(2, 7)))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    z, v = (torch.from_numpy(rng.normal(0, scale, shape)) for _ in range(2))
    return z, v, torch.from_numpy(rng.integers(0, shape[1], shape[0]))


def compute_soft_targets(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """q_i = exp(z_i / T) / sum_j exp(z_j / T), written out."""
    powers = torch.exp(logits / temperature - (logits / temperature).max(-1, keepdim=True).values)
    return powers / powers.sum(-1, keepdim=True)


def targets(logits: torch.Tensor, temperature: float) -> SoftTargets:
    return SoftTargets(compute_soft_targets(logits, temperature).log(), temperature)


def gradient(z: torch.Tensor, loss) -> tuple[LossTerms, torch.Tensor]:
    z = z.clone().requires_grad_(True)
    terms = loss(z)
    terms.total.backward()
    return terms, z.grad


@given(problem=problems(), temperature=temperatures)
def test_ensemble_of_one_is_the_softmax_at_the_temperature(problem, temperature):
    z, _, _ = problem
    log_q = ensemble_distribution(z.unsqueeze(0), temperature=temperature)
    assert torch.allclose(log_q.exp(), compute_soft_targets(z, temperature), atol=1e-12)


@given(problem=problems(), temperature=temperatures)
def test_soft_gradient_is_q_minus_p_over_t(problem, temperature):
    """Hinton eq. 2 for the soft cross-entropy; the loss carries T^2 and a mean over B frames on top."""
    z, v, states = problem
    _, grad = gradient(
        z, lambda x: distillation_loss(x, targets(v, temperature), states, temperature=temperature, soft_weight=1.0)
    )
    expected = (compute_soft_targets(z, temperature) - compute_soft_targets(v, temperature)) / temperature
    assert torch.allclose(grad * len(z) / temperature**2, expected, atol=1e-10)


@given(problem=problems(scale=1.0))
def test_high_temperature_gradient_matches_logits(problem):
    """N T^2 dC/dz -> z - v for zero-mean logits (eq. 4); `soft` already holds T^2 C."""
    z, v, states = problem
    z, v = z - z.mean(-1, keepdim=True), v - v.mean(-1, keepdim=True)
    temperature, classes = 1e4, z.shape[1]
    _, grad = gradient(
        z, lambda x: distillation_loss(x, targets(v, temperature), states, temperature=temperature, soft_weight=1.0)
    )
    assert torch.allclose(classes * grad * len(z), z - v, atol=1e-3)


@given(problem=problems(scale=1.0))
def test_logit_matching_is_the_limit_of_high_temperatures(problem):
    z, v, states = problem
    temperature = 1e4
    arguments = {"temperature": temperature, "soft_weight": 1.0}
    soft, soft_grad = gradient(z, lambda x: distillation_loss(x, targets(v, temperature), states, **arguments))
    match, match_grad = gradient(z, lambda x: logit_matching(x, targets(v, temperature), states, **arguments))
    assert torch.allclose(soft_grad, match_grad, atol=1e-3)
    assert soft.soft.item() == pytest.approx(match.soft.item(), rel=1e-2, abs=1e-3)


def test_minimiser_at_high_temperature_is_that_of_half_the_squared_logit_error():
    rng = np.random.default_rng(0)
    v = torch.from_numpy(rng.normal(0, 1, (1, 6)))
    z = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=200, tolerance_grad=1e-14, tolerance_change=1e-16)

    def closure():
        optimizer.zero_grad()
        state = torch.zeros(1, dtype=torch.int64)
        loss = distillation_loss(z, targets(v, 200.0), state, temperature=200.0, soft_weight=1.0).total
        loss.backward()
        return loss

    optimizer.step(closure)
    result = z.detach() - z.detach().mean()
    assert torch.allclose(result, v - v.mean(), atol=0.02)


@given(problem=problems(), temperature=temperatures)
def test_weight_zero_is_the_hard_loss_and_one_the_soft(problem, temperature):
    z, v, states = problem
    hard = distillation_loss(z, targets(v, temperature), states, temperature=temperature, soft_weight=0.0)
    cross_entropy = -torch.stack([compute_soft_targets(z, 1.0)[b, s].log() for b, s in enumerate(states)]).mean()
    assert hard.total.item() == pytest.approx(cross_entropy.item(), rel=1e-9)
    soft = distillation_loss(z, targets(v, temperature), states, temperature=temperature, soft_weight=1.0)
    p, q = compute_soft_targets(v, temperature), compute_soft_targets(z, temperature)
    kl = (p * (p / q).log()).sum(-1).mean() * temperature**2
    assert soft.total.item() == pytest.approx(kl.item(), rel=1e-7, abs=1e-9)


@given(problem=problems(), temperature=temperatures)
def test_kl_is_zero_at_the_teacher_and_positive_elsewhere(problem, temperature):
    z, v, states = problem
    arguments = {"temperature": temperature, "soft_weight": 1.0}
    assert distillation_loss(v, targets(v, temperature), states, **arguments).soft.item() == pytest.approx(0, abs=1e-8)
    assert distillation_loss(z, targets(v, temperature), states, **arguments).soft.item() >= -1e-9


def test_t_squared_keeps_the_ratio_of_soft_and_hard_gradients():
    rng = np.random.default_rng(1)
    z, v = (torch.from_numpy(rng.normal(0, 0.3, (64, 20))) for _ in range(2))
    states = torch.from_numpy(rng.integers(0, 20, 64))
    sizes = []
    for temperature in (2.0, 4.0, 8.0, 16.0):
        _, grad = gradient(
            z,
            lambda x, t=temperature: distillation_loss(x, targets(v, t), states, temperature=t, soft_weight=1.0),
        )
        sizes.append(grad.norm().item())
    assert max(sizes) / min(sizes) < 1.2  # without T^2 it would be (16 / 2)^2 = 64


@given(problem=problems(fewest=3), temperature=temperatures, bad=st.sampled_from([0.0, math.inf, math.nan]))
def test_masked_frames_have_no_value_and_no_gradient(problem, temperature, bad):
    z, v, states = problem
    valid = torch.arange(len(z)) % 2 == 0
    broken = z.clone()
    broken[~valid] += bad if math.isfinite(bad) else 100.0
    teacher = targets(v, temperature).log_probabilities.clone()
    teacher[~valid] = -1.0  # not even a distribution
    wrong = torch.where(valid, states, torch.full_like(states, -1))
    arguments = {"temperature": temperature, "soft_weight": 0.5}
    terms, grad = gradient(
        broken, lambda x: distillation_loss(x, SoftTargets(teacher, temperature), wrong, valid=valid, **arguments)
    )
    alone = distillation_loss(z[valid], targets(v[valid], temperature), states[valid], **arguments)
    assert terms.total.item() == pytest.approx(alone.total.item(), rel=1e-9)
    assert terms.accuracy.item() == pytest.approx(alone.accuracy.item())
    assert (grad[~valid] == 0).all()
    assert (grad[valid] != 0).any()


@st.composite
def partly_labelled(draw):
    """A problem of which the first frame has a label and the last is valid and has none."""
    z, v, states = draw(problems(fewest=3))
    coins = st.lists(st.booleans(), min_size=len(z), max_size=len(z))
    labelled, valid = (torch.tensor(draw(coins)) for _ in range(2))
    labelled[0], labelled[-1], valid[0], valid[-1] = True, False, True, True
    return z, v, torch.where(labelled, states, torch.full_like(states, -1)), valid


@given(
    problem=partly_labelled(),
    temperature=temperatures,
    soft_weight=st.floats(0.01, 0.99),
    share=st.none() | st.floats(0.1, 1.0),
    loss=st.sampled_from([distillation_loss, logit_matching]),
)
def test_the_soft_term_is_over_valid_frames_and_the_hard_one_over_labelled(
    problem, temperature, soft_weight, share, loss
):
    """Each frame's terms from the loss of that frame alone, weighed as the docstring says."""
    z, v, states, valid = problem
    teacher, arguments = targets(v, temperature), {"temperature": temperature}
    labelled = (states >= 0) & valid
    n, r = int(valid.sum()), int(labelled.sum()) / int(valid.sum()) if share is None else share

    def alone(x, k, weight, label):
        one = SoftTargets(teacher.log_probabilities[k : k + 1], temperature)
        return loss(x[k : k + 1], one, label, soft_weight=weight, **arguments).total

    def expected(x):
        soft = [alone(x, k, 1.0, torch.tensor([0])) for k in range(len(x)) if valid[k]]
        hard = [alone(x, k, 0.0, states[k : k + 1]) for k in range(len(x)) if labelled[k]]
        total = soft_weight * sum(soft) / n + (1 - soft_weight) * sum(hard) / (r * n)
        return LossTerms(total, sum(soft) / n, sum(hard) / (r * n), total)

    reference, slope = gradient(z, expected)
    terms, grad = gradient(
        z,
        lambda x: loss(x, teacher, states, soft_weight=soft_weight, valid=valid, labelled_share=share, **arguments),
    )
    for name in ("total", "soft", "hard"):
        assert getattr(terms, name).item() == pytest.approx(getattr(reference, name).item(), rel=1e-9, abs=1e-12)
    assert torch.allclose(grad, slope, rtol=1e-9, atol=1e-12)
    soft_alone, only_soft = gradient(z, lambda x: loss(x, teacher, states, soft_weight=1.0, valid=valid, **arguments))
    assert torch.allclose(grad[~labelled], soft_weight * only_soft[~labelled], rtol=1e-9, atol=1e-12)
    assert soft_alone.soft.item() == pytest.approx(terms.soft.item(), rel=1e-9, abs=1e-12)


def test_over_an_epoch_each_labelled_frame_weighs_alike_however_batches_fall():
    rng = np.random.default_rng(0)
    z, v = (torch.from_numpy(rng.normal(size=(12, 4))) for _ in range(2))
    states = torch.tensor([1, 2, 3, -1, 0, -1, -1, -1, -1, -1, -1, -1])  # of three batches the last has no label
    teacher = targets(v, 2.0)
    arguments = {"temperature": 2.0, "soft_weight": 0.6}

    def batch(k):
        rows = slice(4 * k, 4 * k + 4)
        part = SoftTargets(teacher.log_probabilities[rows], 2.0)
        return distillation_loss(z[rows], part, states[rows], labelled_share=4 / 12, **arguments)

    whole = distillation_loss(z, teacher, states, **arguments)
    for name in ("total", "soft", "hard", "accuracy"):
        mean = sum(getattr(batch(k), name) for k in range(3)) / 3
        assert mean.item() == pytest.approx(getattr(whole, name).item(), rel=1e-12)
    none = distillation_loss(z, teacher, torch.full_like(states, -1), **arguments)
    assert none.total.item() == pytest.approx(0.6 * whole.soft.item(), rel=1e-12) and none.hard.item() == 0
    with pytest.raises(ValueError, match="labelled_share"):
        distillation_loss(z, teacher, states, labelled_share=0.0, **arguments)


@given(problem=problems(fewest=2), temperature=temperatures)
def test_splitting_a_batch_changes_nothing(problem, temperature):
    z, v, states = problem
    arguments = {"temperature": temperature, "soft_weight": 0.3}
    whole = distillation_loss(z, targets(v, temperature), states, **arguments).total
    cut = len(z) // 2
    parts = [
        distillation_loss(z[part], targets(v[part], temperature), states[part], **arguments).total * len(z[part])
        for part in (slice(0, cut), slice(cut, None))
    ]
    assert whole.item() == pytest.approx(sum(parts).item() / len(z), rel=1e-9)


@given(problem=problems(), temperature=temperatures)
def test_students_side_by_side_have_the_losses_they_have_alone(problem, temperature):
    z, v, states = problem
    arguments = {"temperature": temperature, "soft_weight": 0.6}
    both = distillation_loss(torch.stack([z, v]), targets(v, temperature), states, **arguments)
    for member, logits in enumerate((z, v)):
        alone = distillation_loss(logits, targets(v, temperature), states, **arguments)
        assert both.total[member].item() == pytest.approx(alone.total.item(), rel=1e-9, abs=1e-12)


def test_other_temperature_or_length_is_refused():
    z, states = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    teacher = targets(torch.zeros(2, 3), 2.0)
    with pytest.raises(ValueError, match=r"temperature 2\.0"):
        distillation_loss(z, teacher, states, temperature=1.0, soft_weight=0.5)
    with pytest.raises(ValueError, match="frames and classes"):
        distillation_loss(z, teacher, states[:1], temperature=2.0, soft_weight=0.5)
    with pytest.raises(ValueError, match="frames and classes"):
        distillation_loss(torch.zeros(2, 4), teacher, states, temperature=2.0, soft_weight=0.5)
    with pytest.raises(ValueError, match="soft_weight"):
        distillation_loss(z, teacher, states, temperature=2.0, soft_weight=1.5)


@given(seed=st.integers(0, 1000), temperature=temperatures)
def test_means_of_the_ensemble(seed, temperature):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (3, 4, 5)))
    members = torch.stack([compute_soft_targets(member, temperature) for member in logits])
    arithmetic = ensemble_distribution(logits, temperature=temperature)
    assert torch.allclose(arithmetic.exp(), members.mean(0), atol=1e-12)
    product = members.log().mean(0).exp()
    geometric = ensemble_distribution(logits, temperature=temperature, mean="geometric")
    assert torch.allclose(geometric.exp(), product / product.sum(-1, keepdim=True), atol=1e-12)
    only_second = torch.zeros(3, 4)
    only_second[1] = 1
    for mean in ("arithmetic", "geometric"):
        chosen = ensemble_distribution(logits, temperature=temperature, mean=mean, weights=only_second)
        assert torch.allclose(chosen.exp(), members[1], atol=1e-12)


@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(2, 67)),
    temperature=temperatures,
    scale=st.sampled_from([0.1, 3.0, 30.0, 300.0]),
)
def test_the_mean_by_rows_is_that_of_float64(seed, shape, temperature, scale):
    """float32 on the CPU goes row by row."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, scale, shape)).float()
    weights = torch.from_numpy(rng.dirichlet([1.0] * shape[0], shape[1]).T).float()
    for chosen in (None, weights):
        result = ensemble_distribution(logits, temperature=temperature, weights=chosen)
        wide = None if chosen is None else chosen.double() / chosen.double().sum(0)
        expected = ensemble_distribution(logits.double(), temperature=temperature, weights=wide)
        assert result.dtype == torch.float32
        assert torch.allclose(result.double(), expected, atol=2e-5, rtol=2e-5)
    logits[0, 0, 0] = float("nan")
    assert ensemble_distribution(logits, temperature=temperature)[0].isnan().all()


def test_the_mean_takes_no_weights_of_another_shape_and_has_gradients():
    logits = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match="weights are"):
        ensemble_distribution(logits, temperature=1.0, weights=torch.ones(2, 1))
    assert ensemble_distribution(logits.requires_grad_(), temperature=1.0).requires_grad


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 67)),
    temperature=temperatures,
    soft_weight=st.floats(0, 1),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
    passed=st.sampled_from([1.0, 0.3]),
)
def test_float32_by_rows_is_the_float64_reference(seed, shape, temperature, soft_weight, scale, passed):
    """float32 on the CPU goes another way than float64: value, terms and gradient must be the same to rounding."""
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.normal(0, scale, shape)).float()
    teacher = targets(torch.from_numpy(rng.normal(0, scale, shape[1:])), temperature).log_probabilities.float()
    states = torch.from_numpy(rng.integers(0, shape[2], shape[1]))

    def both(dtype: torch.dtype) -> tuple[LossTerms, torch.Tensor]:
        logits = z.to(dtype, copy=True).requires_grad_(True)
        soft_targets = SoftTargets(teacher.to(dtype), temperature)
        terms = distillation_loss(logits, soft_targets, states, temperature=temperature, soft_weight=soft_weight)
        (passed * terms.total.sum()).backward()
        return terms, logits.grad

    (result, slope), (expected, expected_slope) = both(torch.float32), both(torch.float64)
    size = temperature**2 * max(1.0, scale / temperature)  # of the numbers whose small difference KL is
    for name in ("total", "soft", "hard"):
        value, reference = getattr(result, name).double(), getattr(expected, name)
        assert value.shape == reference.shape
        assert torch.allclose(value, reference, rtol=1e-5, atol=2e-6 * size)
    assert torch.allclose(slope.double(), expected_slope, rtol=1e-4, atol=2e-6 * max(1.0, temperature))
    right = (z.argmax(-1) == states).double().mean(-1)
    assert torch.allclose(result.accuracy.double(), right, atol=1e-6) and torch.allclose(expected.accuracy, right)


def test_by_rows_a_class_that_the_teacher_rules_out_and_far_logits_are_finite():
    teacher = SoftTargets(torch.tensor([[0.5, 0.5, 0.0]]).log(), 1.0)
    logits = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    terms = distillation_loss(logits, teacher, torch.tensor([1]), temperature=1.0, soft_weight=0.5)
    terms.total.backward()
    assert terms.soft.item() == pytest.approx(200.0 + math.log(0.5), rel=1e-6)
    assert terms.hard.item() == pytest.approx(400.0, rel=1e-6)
    assert torch.allclose(logits.grad, torch.tensor([[0.75, -0.75, 0.0]]), atol=1e-6)


def test_by_rows_a_state_that_there_is_not_is_an_error():
    teacher = SoftTargets(torch.full((1, 3), 1 / 3).log(), 1.0)
    with pytest.raises(ValueError, match="of 3 classes"):
        distillation_loss(torch.zeros(1, 3), teacher, torch.tensor([3]), temperature=1.0, soft_weight=0.5)
