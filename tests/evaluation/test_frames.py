"""Frame metrics against plain float64 arithmetic on the same weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.settings import DnnConfig, ModelConfig, TdnnConfig
from asr_kd.evaluation import frames as frames_module
from asr_kd.evaluation.frames import alternating, between_parts, diversity, example_frame, frame_metrics
from asr_kd.frames.features import FRAME_SHIFT, frame_seconds
from asr_kd.frames.store import FrameStore

from ..stores import write_store

LEFT, RIGHT, NUM_SENONES, MEMBERS = 2, 1, 5, 3
SETTINGS = DnnConfig(layers=1, width=8, left_context=LEFT, right_context=RIGHT)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    random = np.random.default_rng(0)
    folder: Path = tmp_path_factory.mktemp("store")
    return write_store(folder, [(f"u{u}", random.normal(0, 1, (n, 4))) for u, n in enumerate((40, 3, 77))])


@pytest.fixture
def model() -> FrameModel:
    made = build_model(SETTINGS, num_dims=4, num_senones=NUM_SENONES, seeds=[1, 2, 3])
    with torch.no_grad():
        made.layers[-1].weight.mul_(20)  # far from uniform
    made.precision = "float32"
    return made


@pytest.fixture
def senones(store: FrameStore) -> np.ndarray:
    labels = np.random.default_rng(1).integers(0, NUM_SENONES, store.num_frames).astype(np.int32)
    labels[5:30] = -1
    return labels


def posteriors(model: FrameModel, store: FrameStore) -> np.ndarray:
    """(M, N, C) float64, frame by frame."""
    rows = []
    for u in range(len(store.ids)):
        x = store.normalised(u).astype(np.float64)
        for t in range(len(x)):
            rows.append(np.concatenate([x[min(max(t + d, 0), len(x) - 1)] for d in range(-LEFT, RIGHT + 1)]))
    hidden = np.stack(rows)
    result = []
    for m in range(MEMBERS):
        h = hidden
        for k, layer in enumerate(model.layers):
            h = h @ layer.weight[m].detach().double().numpy() + layer.bias[m].detach().double().numpy()
            h = np.maximum(h, 0) if k == 0 else h
        p = np.exp(h - h.max(1, keepdims=True))
        result.append(p / p.sum(1, keepdims=True))
    return np.stack(result)


def test_metrics_equal_the_float64_reference(
    model: FrameModel, store: FrameStore, senones: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # parts of 64 frames, the smallest: their edges must not show
    monkeypatch.setattr(frames_module, "_NUMBERS_AT_ONCE", 1)
    actual = frame_metrics(model, store, senones)
    p, keep = posteriors(model, store), senones >= 0
    at_label = p[:, np.flatnonzero(keep), senones[keep]]
    assert actual.frames == keep.sum()
    np.testing.assert_allclose(actual.cross_entropy[:-1], -np.log(at_label).mean(1), rtol=1e-5)
    np.testing.assert_allclose(actual.accuracy[:-1], (p.argmax(2) == senones)[:, keep].mean(1), atol=1e-12)
    np.testing.assert_allclose(actual.cross_entropy[-1], -np.log(at_label.mean(0)).mean(), rtol=1e-5)
    assert actual.accuracy[-1] == pytest.approx((p.mean(0).argmax(1) == senones)[keep].mean())
    both = np.concatenate([p, p.mean(0, keepdims=True)]).argmax(2) != senones
    for u in range(len(store.ids)):
        of_utterance = np.zeros(store.num_frames, bool)
        of_utterance[store.span(u)] = True
        assert actual.labelled[u] == (of_utterance & keep).sum()
        assert actual.wrong[:, u].tolist() == both[:, of_utterance & keep].sum(1).tolist()


def test_diversity_equals_the_float64_reference(model: FrameModel, store: FrameStore, senones: np.ndarray) -> None:
    metrics, actual = diversity(model, store, senones)
    np.testing.assert_array_equal(metrics.accuracy, frame_metrics(model, store, senones).accuracy)
    first, alone = metrics.rows(slice(2)), frame_metrics(model.select_members([0, 1]), store, senones).rows(slice(-1))
    np.testing.assert_array_equal(first.accuracy, alone.accuracy)
    np.testing.assert_allclose(first.cross_entropy, alone.cross_entropy, rtol=1e-6)
    np.testing.assert_array_equal(first.wrong, alone.wrong)
    assert first.frames == alone.frames
    p, keep = posteriors(model, store), np.flatnonzero(senones >= 0)
    best = p.argmax(2)[:, keep]
    for a in range(MEMBERS):
        for b in range(MEMBERS):
            assert actual.disagreement[a, b] == pytest.approx((best[a] != best[b]).mean())
            mean = p[[(a + k) % MEMBERS for k in range(b + 1)]].mean(0)[keep]
            assert actual.accuracy[a, b] == pytest.approx((mean.argmax(1) == senones[keep]).mean())
            nats = -np.log(mean[np.arange(len(keep)), senones[keep]]).mean()
            assert actual.cross_entropy[a, b] == pytest.approx(nats, rel=1e-5)
    assert np.allclose(actual.accuracy[:, -1], actual.accuracy[0, -1])


def test_members_join_in_any_order(model: FrameModel, store: FrameStore, senones: np.ndarray) -> None:
    _, plain = diversity(model, store, senones)
    order = [2, 0, 1]
    metrics, actual = diversity(model, store, senones, order)
    _, of_reordered = diversity(model.select_members(order), store, senones)
    np.testing.assert_array_equal(actual.disagreement, plain.disagreement)
    np.testing.assert_allclose(actual.accuracy, of_reordered.accuracy, atol=1e-12)
    np.testing.assert_allclose(actual.cross_entropy, of_reordered.cross_entropy, rtol=1e-6)
    np.testing.assert_allclose(actual.accuracy[:, 0], metrics.accuracy[order])


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_parts_take_turns(sizes: list[int]) -> None:
    order, part = alternating(sizes), np.repeat(np.arange(len(sizes)), sizes)
    assert sorted(order) == list(range(sum(sizes)))
    for k in range(1, len(order) + 1):  # each has its share among the first k, to within one member
        joined = np.bincount(part[order[:k]], minlength=len(sizes))
        assert (np.abs(joined - k * np.array(sizes) / sum(sizes)) <= len(sizes) / 2 + 0.5).all()


def test_disagreement_within_and_between_parts_is_the_mean_over_pairs() -> None:
    share = np.random.default_rng(1).random((6, 6))
    share = share + share.T
    np.fill_diagonal(share, 0)
    means, parts = between_parts(share, [3, 1, 2]), ([0, 1, 2], [3], [4, 5])
    for a, first in enumerate(parts):
        for b, second in enumerate(parts):
            pairs = [share[i, j] for i in first for j in second if i != j]
            assert means[a, b] == pytest.approx(sum(pairs) / len(pairs)) if pairs else np.isnan(means[a, b])


@pytest.mark.parametrize("settings", [SETTINGS, TdnnConfig(width=8, dilations=(1, 2))])
def test_utterances_that_share_a_forward_pass_are_scored_as_each_alone(
    settings: ModelConfig, store: FrameStore, senones: np.ndarray
) -> None:
    model = build_model(settings, num_dims=4, num_senones=NUM_SENONES, seeds=[1, 2]).eval()
    model.precision = "float32"
    log_posteriors = torch.cat([model.member_log_posteriors(store.normalised(u)) for u in range(len(store.ids))], 1)
    keep = torch.from_numpy(np.flatnonzero(senones >= 0))
    alone = -log_posteriors[:, keep, torch.from_numpy(senones).long()[keep]].double().mean(1)
    np.testing.assert_allclose(frame_metrics(model, store, senones).cross_entropy[:-1], alone.numpy(), rtol=1e-5)


def test_unaligned_frames_weigh_nothing(model: FrameModel, store: FrameStore, senones: np.ndarray) -> None:
    nothing = frame_metrics(model, store, np.full_like(senones, -1))
    assert (nothing.frames, nothing.accuracy[-1], nothing.cross_entropy.tolist()) == (0, 0.0, [0.0] * (MEMBERS + 1))
    one = np.full_like(senones, -1)
    one[50] = senones[50]
    assert frame_metrics(model, store, one).frames == 1


def test_a_single_net_is_its_own_ensemble(store: FrameStore, senones: np.ndarray) -> None:
    single = build_model(SETTINGS, num_dims=4, num_senones=NUM_SENONES, seeds=[1])
    actual = frame_metrics(single, store, senones)
    alone, mean = actual.accuracy
    assert alone == mean
    alone, mean = actual.cross_entropy
    assert alone == pytest.approx(mean)


def test_labels_of_another_length_are_refused(model: FrameModel, store: FrameStore, senones: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels for"):
        frame_metrics(model, store, senones[:-1])


@pytest.mark.parametrize("rate", [16000, 22050])
def test_example_frame_is_a_real_frame_and_its_rows_are_the_tempered_mean(
    model: FrameModel, store: FrameStore, senones: np.ndarray, rate: int
) -> None:
    shift, silence = frame_seconds(rate), frozenset({0})
    actual = example_frame(model, store, senones, frame_seconds=shift, temperatures=[1.0, 3.0], silence=silence)
    assert actual is not None
    position = actual.seconds * rate / round(rate / 100)
    assert position == pytest.approx(round(position), abs=1e-9) and position > 0
    frame = int(store.offsets[store.index(actual.utterance)]) + round(position)
    assert senones[frame] == actual.label != 0
    logits = np.log(posteriors(model, store)[:, frame])
    for temperature, row in zip(actual.temperatures, actual.probabilities, strict=True):
        p = np.exp(logits / temperature)
        np.testing.assert_allclose(row, (p / p.sum(1, keepdims=True)).mean(0)[actual.senones], rtol=1e-4)
    assert list(actual.probabilities[0]) == sorted(actual.probabilities[0], reverse=True)
    nothing = np.full_like(senones, -1)
    assert example_frame(model, store, nothing, frame_seconds=FRAME_SHIFT, temperatures=[1.0]) is None
