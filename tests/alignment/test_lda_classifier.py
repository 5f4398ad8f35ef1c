"""Linear discriminants as the flat start's first classifier: right against Gaussians written out, and better sooner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asr_kd.alignment import lda_classifier as linear
from asr_kd.alignment.lda_classifier import PULL, RIDGE, LdaClassifier
from asr_kd.frames.store import FrameStore, write_store

SIZES = (30, 1, 45, 20)
NUM_CLASSES = 5


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 4))
    return write_store(tmp_path / "store", [(f"u{k}", rng.normal(size=(n, 4)) @ mixing) for k, n in enumerate(SIZES)])


def labelled(store: FrameStore) -> tuple[np.ndarray, np.ndarray]:
    """All frames but those of the second utterance, and their classes; the last class has none."""
    frames = np.array([n for n in range(store.num_frames) if n != SIZES[0]])
    return frames, np.random.default_rng(1).integers(0, NUM_CLASSES - 1, len(frames)).astype(np.int32)


def test_it_gives_the_posteriors_of_gaussians_with_one_covariance(
    store: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, states = labelled(store)
    x = store.normalised(0, len(SIZES))[frames].astype(np.float64)
    counts = np.bincount(states, minlength=NUM_CLASSES)
    means = np.stack(
        [(x[states == c].sum(0) + PULL * x.mean(0)) / (counts[c] + PULL) for c in range(NUM_CLASSES)]
    )  # fmt: skip
    off = np.concatenate([x[states == c] - x[states == c].mean(0) for c in range(NUM_CLASSES - 1)])
    within = off.T @ off / len(x)
    within += RIDGE * within.trace() / 4 * np.eye(4)
    priors = (counts + 1) / (counts + 1).sum()
    distance = store.normalised(2).astype(np.float64)[:, None] - means
    scores = np.log(priors) - 0.5 * np.einsum("tcd,de,tce->tc", distance, np.linalg.inv(within), distance)
    expected = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    for block in (1, 3, 256):  # utterances that are read at once
        monkeypatch.setattr(linear, "_BLOCK", block)
        monkeypatch.setattr(linear, "_CACHED_FRAMES", 0 if block == 1 else 1 << 20)
        classifier = LdaClassifier(store, NUM_CLASSES)
        classifier.fit(frames, states)
        assert np.allclose(classifier.log_posteriors(store, [2])[0], expected, atol=1e-4)


def test_its_state_is_all_of_it(store: FrameStore) -> None:
    classifier, other = LdaClassifier(store, NUM_CLASSES), LdaClassifier(store, NUM_CLASSES)
    classifier.fit(*labelled(store))
    other.restore(classifier.state())
    assert np.array_equal(other.log_posteriors(store, [0])[0], classifier.log_posteriors(store, [0])[0])
