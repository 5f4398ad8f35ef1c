"""SpecAugment: what is masked and by how much, as a function of the seed and the step alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from asr_kd.acoustic.augment import SpecAugment, in_turn
from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.rng import StepRng
from asr_kd.acoustic.settings import AugmentConfig, DnnConfig, TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.settings import to_mapping

from .points import CPU, Points, dnn_of


def masked(config: AugmentConfig, inputs: Tensor, seed: int = 1, step: int = 0) -> Tensor:
    return SpecAugment(config)(inputs, StepRng(seed, step, CPU))


def runs(hidden: np.ndarray) -> list[int]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.pad(hidden.astype(int), 1)))
    return (edges[1::2] - edges[::2]).tolist()


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 12)),
    freq=st.tuples(st.integers(0, 3), st.integers(1, 20)),
    time=st.tuples(st.integers(0, 3), st.integers(1, 50)),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 2**20),
)
def test_masks_are_whole_bands_and_runs_within_their_bounds(shape, freq, time, share, seed):
    _, frames, dims = shape
    config = AugmentConfig(*freq, *time, share)
    inputs = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 1  # nowhere 0
    outputs = masked(config, inputs, seed)
    hidden = outputs.eq(0).numpy()
    assert torch.equal(outputs[outputs != 0], inputs[outputs != 0])
    longest_run, longest_band = min(time[1], int(share * frames)), min(freq[1], dims)
    for chunk in hidden:
        bands, times = chunk.all(0), chunk.all(1)
        if not bands.all() and not times.all():
            assert np.array_equal(chunk, bands[None] | times[:, None])
            assert len(runs(bands)) <= freq[0] and bands.sum() <= freq[0] * longest_band
            assert len(runs(times)) <= time[0] and times.sum() <= time[0] * longest_run
    again = masked(config, inputs, seed)
    assert torch.equal(outputs, again)


@pytest.mark.parametrize(("axis", "size"), [(1, 30), (2, 40)])
def test_widths_and_places_are_uniform_and_independent_between_chunks(axis, size):
    count, width = 20_000, 5
    settings = {"time_masks": 1, "time_width": width} if axis == 1 else {"freq_masks": 1, "freq_width": width}
    shape = (count, size, 1) if axis == 1 else (count, 1, size)
    hidden = masked(AugmentConfig(**settings), torch.ones(shape)).eq(0).reshape(count, size)
    lengths = hidden.sum(1)
    shares = torch.bincount(lengths, minlength=width + 1).div(count)
    assert len(shares) == width + 1 and (shares - 1 / (width + 1)).abs().max() < 0.012  # 4 standard deviations
    starts = hidden.int().argmax(1)[lengths == width]
    # torchaudio cuts the fractions off width and place alike, so that the last places are rarer
    shares = torch.bincount(starts, minlength=size - width)[: size - width - 1].div(len(starts))
    assert int(starts.max()) <= size - width and (shares - shares.mean()).abs().max() < 0.014
    follows = torch.corrcoef(torch.stack([lengths[1:], lengths[:-1]]).double())[0, 1]
    assert abs(follows) < 0.03


def test_masks_depend_on_seed_and_step_and_not_on_what_else_was_drawn():
    config, inputs = AugmentConfig(freq_masks=2, time_masks=2), torch.ones(8, 50, 40)
    state = torch.get_rng_state()
    first = masked(config, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(masked(config, inputs), first)
    for other in (masked(config, inputs, seed=2), masked(config, inputs, step=1)):
        assert not torch.equal(other, first)
    assert not torch.equal(first[0], first[1])


def test_inputs_are_not_written_to():
    inputs = torch.ones(4, 20, 10)
    masked(AugmentConfig(freq_masks=1, freq_width=10, time_masks=1), inputs)
    assert bool((inputs == 1).all())


def test_nothing_is_masked_by_default_and_stamps_stay():
    assert not AugmentConfig().active
    assert "augment" not in to_mapping(TrainingConfig(epochs=3), changed_only=True)
    changed = to_mapping(TrainingConfig(augment=AugmentConfig(time_masks=1)), changed_only=True)
    assert changed == {"augment": {"time_masks": 1}}


def test_several_alterations_follow_each_other():
    assert in_turn(None, None) is None
    both = in_turn(lambda x, _: x + 1, None, lambda x, _: x * 3)
    assert both is not None and float(both(torch.ones(1, 1, 1), StepRng(0, 0, CPU))) == 6.0


def test_every_member_learns_from_the_same_altered_inputs():
    points, seen = Points(), []
    model = dnn_of(points, DnnConfig(layers=1, width=8, left_context=0, right_context=0), seeds=(1, 2))
    forward = model.forward
    model.forward = lambda frames, rng=None: seen.append(frames) or forward(frames, rng)
    training = TrainingConfig(epochs=1, batch_size=50, augment=AugmentConfig(freq_masks=1, freq_width=6))
    fit(model, TrainingData(points), HardTargets(points.labels, CPU), training, RunControl(seed=1))
    shown = torch.cat(seen)
    assert shown.shape == (200, 1, 6)  # once for both members
    # a band of up to 6 of 6 dimensions: on the average half of them
    assert 0.3 < float(shown.eq(0).float().mean()) < 0.7
