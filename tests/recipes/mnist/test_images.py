"""Shifts move images by whole pixels, never around the edge, and every one of the 25 as often."""

import numpy as np
import pytest
import torch

from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.rng import StepRng

from digits.config import NetConfig  # isort: skip
from digits.data import SIDE, Digits  # isort: skip
from digits.images import Images, Shift, errors, log_posteriors, tempered_mean  # isort: skip

CPU = torch.device("cpu")


def small_model() -> FrameModel:
    model = build_model(NetConfig(1, 8).as_model(), num_dims=SIDE * SIDE, num_senones=10, seeds=[1, 2])
    model.precision = "float32"
    return model


def some_digits(count: int = 30, seed: int = 0) -> Digits:
    rng = np.random.default_rng(seed)
    return Digits(rng.integers(0, 256, (count, SIDE * SIDE)).astype(np.uint8), rng.integers(0, 10, count))


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Pixel by pixel."""
    result = np.zeros_like(image)
    for row in range(SIDE):
        for column in range(SIDE):
            if 0 <= row - down < SIDE and 0 <= column - right < SIDE:
                result[row, column] = image[row - down, column - right]
    return result


@pytest.mark.parametrize("pixels", [1, 2, 3])
def test_every_shift_moves_pixel_by_pixel_and_never_wraps(pixels):
    shift = Shift(pixels)
    steps = shift.every()
    assert len(steps) == len({tuple(step) for step in steps.tolist()}) == (2 * pixels + 1) ** 2
    inputs = torch.rand(len(steps), SIDE * SIDE)
    shift.by(torch.ones_like(inputs), steps)  # of which nothing may be left
    actual = shift.by(inputs, steps).view(-1, SIDE, SIDE).numpy()
    for image, result, (down, right) in zip(inputs.view(-1, SIDE, SIDE).numpy(), actual, steps.tolist(), strict=True):
        np.testing.assert_array_equal(result, moved(image, down, right))


def test_all_shifts_are_equally_likely_and_repeat_with_the_step():
    shift, inputs = Shift(2), torch.zeros(20000, SIDE * SIDE)
    inputs[:, 14 * SIDE + 14] = 1.0
    where = shift(inputs, StepRng(1, 2, CPU)).argmax(1)
    counts = torch.bincount(where, minlength=SIDE * SIDE)
    seen = counts[counts > 0]
    assert len(seen) == 25
    assert float(((seen - 800.0) ** 2 / 800).sum()) < 52  # chi-squared with 24 degrees of freedom, p = 0.001
    assert torch.equal(where, shift(inputs, StepRng(1, 2, CPU)).argmax(1))
    assert not torch.equal(where, shift(inputs, StepRng(1, 3, CPU)).argmax(1))


def test_no_shift_changes_nothing():
    inputs = torch.rand(4, 1, SIDE * SIDE)
    assert torch.equal(Shift(0)(inputs, StepRng(1, 1, CPU)), inputs)


def test_pixels_are_fractions():
    images = Images(some_digits(), CPU)
    inputs = images.inputs(torch.tensor([3, 5]))
    assert inputs.dtype == torch.float32
    assert inputs.shape == (2, 1, SIDE * SIDE)
    np.testing.assert_allclose(inputs[:, 0].numpy(), some_digits().images[[3, 5]] / 255, rtol=1e-6)


def test_means_over_members_and_shifts_are_those_of_probabilities():
    images = Images(some_digits(), CPU)
    model = small_model()
    shift = Shift(1)
    inputs = images.inputs(torch.arange(30))
    total = torch.zeros(30, 10)
    for step in shift.every():
        total += (model(shift.by(inputs, step.expand(30, 2))) / 3.0).softmax(-1).sum(0).detach()
    torch.testing.assert_close(tempered_mean(model, images, 3.0, shift).exp(), total / 18, rtol=1e-4, atol=1e-6)
    plain = (model(inputs) / 3.0).softmax(-1).mean(0).detach()
    torch.testing.assert_close(tempered_mean(model, images, 3.0).exp(), plain, rtol=1e-4, atol=1e-6)


def test_errors_are_counted_per_member():
    images = Images(some_digits(), CPU)
    model = small_model()
    posteriors = log_posteriors(model, images)
    assert posteriors.shape == (2, 30, 10)
    expected = [(posteriors[m].argmax(-1).numpy() != images.labels).sum() for m in range(2)]
    assert errors(posteriors, images.labels) == expected
