"""Correction of output biases, on toys whose right answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.decoding.decoder import scaled_likelihoods
from asr_kd.distillation.prior_correction import add_offsets, matching_offsets, offsets_from_targets, shared_offset


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def toy(seed: int, examples: int = 400, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Correct posteriors, and the mean of each class."""
    good = log_softmax(2 * np.random.default_rng(seed).normal(size=(examples, classes)))
    return good, np.exp(good).mean(0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), lost=st.floats(-6, 6))
def test_a_removed_offset_is_recovered(seed: int, lost: float) -> None:
    good, priors = toy(seed)
    bad = add_offsets(good, np.array([0, 0, 0, -lost, 0]))
    assert shared_offset(bad, [3], priors[3]) == pytest.approx(lost, abs=1e-6)
    offsets = matching_offsets(bad, priors)
    np.testing.assert_allclose(offsets - offsets[0], [0, 0, 0, lost, 0], atol=1e-4)
    np.testing.assert_allclose(add_offsets(bad, offsets), good, atol=1e-4)


def test_one_offset_for_two_classes_and_one_for_each() -> None:
    good, priors = toy(1)
    bad = add_offsets(good, np.array([0, 1.5, 1.5, 0, 0]))
    assert shared_offset(bad, [1, 2], priors[1] + priors[2]) == pytest.approx(-1.5, abs=1e-6)
    uneven = add_offsets(good, np.array([0, 1.0, 2.0, 0, 0]))
    offsets = matching_offsets(uneven, priors)
    np.testing.assert_allclose(np.exp(add_offsets(uneven, offsets)).mean(0), priors, atol=1e-6)
    np.testing.assert_allclose(offsets - offsets[0], [0, -1.0, -2.0, 0, 0], atol=1e-4)


def test_a_student_that_matches_targets_at_t_is_corrected_without_examples() -> None:
    """Its logits over T carry the log of a proportion; the offset removes exactly that."""
    rng = np.random.default_rng(3)
    temperature, proportions, priors = 4.0, np.array([0.7, 0.2, 0.1]), np.full(3, 1 / 3)
    evidence = rng.normal(size=(50, 3))
    student = evidence + temperature * np.log(proportions)
    offsets = offsets_from_targets(priors, proportions, temperature)
    right = log_softmax(evidence + temperature * np.log(priors))
    np.testing.assert_allclose(add_offsets(log_softmax(student), offsets), right, atol=1e-9)


def test_impossible_priors_are_refused() -> None:
    good, _ = toy(2)
    for prior in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="must be above 0 and below 1"):
            shared_offset(good, [0], prior)


def test_likelihoods_are_posteriors_over_priors() -> None:
    posteriors = np.array([[0.5, 0.25, 0.25]], np.float32)
    priors = np.array([0.5, 0.3, 0.2], np.float32)
    result = scaled_likelihoods(np.log(posteriors), np.log(priors), 1.0)
    np.testing.assert_allclose(np.exp(result), posteriors / priors, rtol=1e-6)
    np.testing.assert_array_equal(scaled_likelihoods(np.log(posteriors), np.log(priors), 0.0), np.log(posteriors))
