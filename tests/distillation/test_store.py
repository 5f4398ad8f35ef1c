"""The ragged store: what is stored, what is cut, and that nothing is lost when nothing is cut."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.distillation.store import SoftTargetsError, SoftTargetStore, SoftTargetWriter, TopK, restore, truncate


def distributions(seed: int, frames: int, classes: int, sharpness: float = 3.0) -> torch.Tensor:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, sharpness, (frames, classes)))
    return logits.log_softmax(-1).float()


def write(folder, full, *, keep_mass, max_entries, parts=3):
    folder.mkdir(exist_ok=True)
    exact = keep_mass >= 1 and max_entries >= full.shape[1]
    writer = SoftTargetWriter(folder, full.shape[1], full.exp().mean(0).numpy(), exact=exact)
    for part in full.chunk(parts):
        writer.append(truncate(part, keep_mass=keep_mass, max_entries=max_entries))
    writer.close()
    return SoftTargetStore(folder, temperature=2.0, num_frames=len(full))


@pytest.mark.parametrize("classes", [3, 40])
def test_a_store_that_keeps_everything_equals_the_full_distribution(tmp_path, classes):
    full = distributions(0, 50, classes)
    store = write(tmp_path / "s", full, keep_mass=1.0, max_entries=classes)
    frames = np.random.default_rng(1).permutation(50)
    assert torch.allclose(store.read(frames).log_probabilities, full[frames], atol=2e-6)
    assert store.read(frames).temperature == 2.0


@given(seed=st.integers(0, 10**6), keep_mass=st.floats(0.3, 0.999), max_entries=st.integers(1, 12))
def test_stored_entries_are_the_smallest_set_with_the_mass_and_rows_sum_to_one(seed, keep_mass, max_entries):
    full = distributions(seed, 9, 12)
    stored = truncate(full, keep_mass=keep_mass, max_entries=max_entries)
    ends = np.cumsum(stored.counts)
    for frame, (first, last) in enumerate(zip(ends - stored.counts, ends, strict=True)):
        ordered = np.sort(full[frame].exp().double().numpy())[::-1]
        assert np.allclose(np.exp(stored.log_probabilities[first:last]), ordered[: last - first], rtol=1e-5)
        mass, count = np.cumsum(ordered), last - first
        assert count == max_entries or mass[count - 1] >= keep_mass - 1e-5
        assert count == 1 or mass[count - 2] < keep_mass + 1e-5
    restored = restore(stored, full.exp().mean(0))
    assert torch.allclose(restored.exp().sum(-1), torch.ones(9), atol=1e-5)
    ids = torch.from_numpy(stored.ids)
    rows = torch.from_numpy(np.repeat(np.arange(9), stored.counts))
    assert torch.allclose(restored[rows, ids], full[rows, ids], atol=1e-4)


@pytest.mark.parametrize("max_entries", [70, 200])
def test_frames_that_need_few_entries_and_those_that_need_many_keep_the_same_as_by_sorting(max_entries):
    full = torch.cat([distributions(seed, 20, 200, sharpness) for seed, sharpness in enumerate((0.1, 1.0, 3.0, 9.0))])
    for keep_mass in (0.9, 0.99, 1.0 if max_entries < 200 else 0.999):
        stored = truncate(full, keep_mass=keep_mass, max_entries=max_entries)
        ends = np.cumsum(stored.counts)
        for frame, (first, last) in enumerate(zip(ends - stored.counts, ends, strict=True)):
            values = full[frame].sort(descending=True).values
            before = values.exp().cumsum(-1)[:-1]  # the mass that the entries before the second, third, ... hold
            assert last - first == min(max_entries, 1 + int((before < keep_mass).sum()))
            ids = stored.ids[first:last]
            assert len(set(ids)) == len(ids) and np.array_equal(full[frame][ids].numpy(), values[: len(ids)].numpy())
            assert np.array_equal(stored.log_probabilities[first:last], values[: last - first].numpy())
            left = 1 - values[: last - first].double().exp().sum()
            assert np.exp(stored.log_residual_mass[frame]) == pytest.approx(max(0.0, float(left)), abs=1e-6)
    assert stored.counts.min() < 64 < stored.counts.max() <= max_entries


def test_residual_mass_is_spread_as_the_mean_distribution():
    full = torch.tensor([[0.9, 0.06, 0.03, 0.01]]).log()
    mean = torch.tensor([0.1, 0.2, 0.4, 0.3])
    restored = restore(truncate(full, keep_mass=0.8, max_entries=4), mean).exp()[0]
    assert restored[0].item() == pytest.approx(0.9, rel=1e-5)
    assert (restored[1:] / restored[1:].sum()).tolist() == pytest.approx([2 / 9, 4 / 9, 3 / 9], rel=1e-4)


def test_order_of_reading_and_ragged_rows(tmp_path):
    full = distributions(3, 200, 30, sharpness=2.0)
    store = write(tmp_path / "s", full, keep_mass=0.95, max_entries=20, parts=7)
    everything = store.read(np.arange(200)).log_probabilities
    frames = np.array([199, 0, 7, 7, 100])
    assert torch.equal(store.read(frames).log_probabilities, everything[frames])
    kl = (full.exp() * (full - everything)).sum(-1)
    assert kl.min() > -1e-3
    assert kl.mean() < 0.05
    assert store.bytes_per_frame < 20 * 4 + 10


def test_store_of_another_length_is_refused(tmp_path):
    write(tmp_path / "s", distributions(0, 10, 5), keep_mass=0.9, max_entries=5)
    with pytest.raises(SoftTargetsError, match=r"10 frames.*11"):
        SoftTargetStore(tmp_path / "s", temperature=2.0, num_frames=11)


def test_damaged_store_is_refused(tmp_path):
    write(tmp_path / "s", distributions(0, 10, 5), keep_mass=0.9, max_entries=5)
    (tmp_path / "s" / "ids.npy").write_bytes(b"not an array")
    with pytest.raises(SoftTargetsError, match="damaged"):
        SoftTargetStore(tmp_path / "s", temperature=2.0, num_frames=10)


def test_frames_without_targets_say_so(tmp_path):
    full = distributions(4, 6, 5)
    parts = [truncate(full[:2], keep_mass=0.9, max_entries=5), TopK.absent(1), TopK.absent(2)]
    parts.append(truncate(full[2:], keep_mass=0.9, max_entries=5))
    writer = SoftTargetWriter(tmp_path, 5, full.exp().mean(0).numpy(), exact=False)
    writer.append(TopK.concatenate(parts))
    writer.close()
    store = SoftTargetStore(tmp_path, temperature=2.0, num_frames=9)
    targets = store.read(np.array([8, 3, 0]))
    assert targets.present is not None and targets.present.tolist() == [True, False, True]
    assert torch.allclose(targets.log_probabilities[1].exp(), full.exp().mean(0), atol=1e-3)
    assert store.read(np.array([0, 1, 5])).present is None
