"""A store gives back what was written, or says in one sentence what is wrong with it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse.utils import compute_num_frames, compute_num_frames_from_samples

from asr_kd.errors import UserError
from asr_kd.frames.features import num_frames
from asr_kd.frames.store import FrameStore, FrameStoreError, FrameStoreWriter, StoredUtterance
from asr_kd.io.stamp import Stamp

from ..stores import write_store

STAMP = Stamp("align", {}, {})


def utterances(lengths: list[int], dims: int = 4, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [(f"u{k}", rng.normal(5, 3, (n, dims)).astype(np.float32)) for k, n in enumerate(lengths)]


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return write_store(tmp_path / "train", utterances([3, 1, 7]), texts=["A B", "", "ÄÖ"])


@given(
    samples=st.integers(0, 10_000_000),
    rate=st.sampled_from([8000, 11025, 16000, 22050, 32000, 44100, 48000]),
)
def test_frame_count_rule_is_lhotses(samples: int, rate: int) -> None:
    assert num_frames(samples, rate) == compute_num_frames_from_samples(samples, 0.01, rate)
    assert num_frames(samples, rate) == compute_num_frames(samples / rate, 0.01, rate)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    speakers=st.integers(1, 4),
    dims=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_round_trip_and_normalisation(lengths: list[int], speakers: int, dims: int, seed: int) -> None:
    given_ = utterances(lengths, dims + 1, seed)
    groups = [f"s{k % speakers}" for k in range(len(lengths))]
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(
            Path(folder), given_, groups=groups, speeds=[1.0 if k % 2 else 0.9 for k in range(len(lengths))]
        )
        stored = np.concatenate([features for _, features in given_]).astype(np.float16)
        assert store.ids == [name for name, _ in given_]
        assert store.features.dtype == np.float16
        np.testing.assert_array_equal(store.features, stored)
        np.testing.assert_array_equal(np.diff(store.offsets), lengths)
        # every group has mean zero, and all frames together variance one, unless there is no variance
        frames, of_group = store.normalised(0, len(lengths)), np.repeat(store.groups, lengths)
        for group in np.unique(of_group):
            np.testing.assert_allclose(frames[of_group == group].mean(0), 0, atol=2e-3)
        if len(stored) > 2 * speakers:
            np.testing.assert_allclose(np.square(frames).mean(0), 1, atol=2e-3)
        for u in range(len(lengths)):
            np.testing.assert_array_equal(store.normalised(u), frames[store.span(u)])
        assert [store.index(name) for name in store.ids] == list(range(len(lengths)))


def test_scale_of_the_training_set_is_taken_over(tmp_path: Path) -> None:
    train = write_store(tmp_path / "train", utterances([50]))
    dev = write_store(tmp_path / "dev", [("d", 7 * train.features[:].astype(np.float32))], scale=train.scale)
    np.testing.assert_array_equal(dev.scale, train.scale)
    np.testing.assert_allclose(dev.normalised(0), 7 * train.normalised(0), atol=0.1)


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (np.full((5, 4), np.nan), "NaN"),
        (np.array([[1.0, np.inf, 0, 0]]), "infinite"),
        (np.array([[1e6, 1, 0, 0]]), "infinite"),  # beyond float16
        (np.full((5, 4), -15.9), "silence"),
        (np.empty((0, 4)), "no frame"),
    ],
)
def test_bad_features_are_refused_by_name(tmp_path: Path, features: np.ndarray, reason: str) -> None:
    with pytest.raises(UserError, match=rf"utterance bad.*{reason}"), FrameStoreWriter(tmp_path, 4) as writer:
        writer.append(StoredUtterance("bad", group="g", text="", duration=1), features)


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no usable utterance"), FrameStoreWriter(tmp_path, 4):
        pass


def test_attached_arrays(store: FrameStore) -> None:
    assert store.array_stamp("senones") is None
    with pytest.raises(FrameStoreError, match=r"has no senones: .*senones\.npy is missing"):
        store.array("senones")
    senones = np.arange(11, dtype=np.int32)
    store.attach("senones", [senones[:4], senones[4:]], np.int32, STAMP)
    np.testing.assert_array_equal(FrameStore.open(store.folder).array("senones"), senones)
    stamp = store.array_stamp("senones")
    assert stamp is not None
    assert stamp["digest"] == STAMP.digest
    store.attach("senones", [senones + 1], np.int32, STAMP)
    np.testing.assert_array_equal(store.array("senones"), senones + 1)
    for wrong in ([senones[:-1]], [senones, senones], [senones[:7], senones[:7], senones]):
        with pytest.raises(UserError, match="11 frames"):
            store.attach("senones", wrong, np.int32, STAMP)
    np.testing.assert_array_equal(store.array("senones"), senones + 1)
    with pytest.raises(ValueError, match="features"):
        store.attach("features", [senones], np.int32, STAMP)


def test_array_of_other_features_is_refused(store: FrameStore, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other", utterances([11]))
    other.attach("senones", [np.arange(11)], np.int32, STAMP)
    for name in ("senones.npy", "senones.stamp.json"):
        (store.folder / name).write_bytes((other.folder / name).read_bytes())
    with pytest.raises(UserError, match=r"senones\.npy .* does not belong to .*"):
        store.array("senones")


def test_damaged_array(store: FrameStore) -> None:
    store.attach("senones", [np.arange(11)], np.int32, STAMP)
    file = store.folder / "senones.npy"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"senones\.npy is damaged"):
        store.array("senones")


def cut_short(folder: Path) -> None:
    file = folder / "features.npy"
    file.write_bytes(file.read_bytes()[:-6])


def drop_a_line(folder: Path) -> None:
    file = folder / "utterances.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def half_a_line(folder: Path) -> None:
    file = folder / "utterances.jsonl"
    file.write_text(file.read_text()[:-10])


def same_id_twice(folder: Path) -> None:
    file = folder / "utterances.jsonl"
    file.write_text(file.read_text().replace('"u2"', '"u0"'))


def no_cmvn(folder: Path) -> None:
    (folder / "cmvn.npz").unlink()


def cmvn_is_text(folder: Path) -> None:
    (folder / "cmvn.npz").write_text("nothing")


def cmvn_of_other_size(folder: Path) -> None:
    np.savez(folder / "cmvn.npz", means=np.zeros((3, 5), np.float32), scale=np.ones(5, np.float32))


def too_few_groups(folder: Path) -> None:
    np.savez(folder / "cmvn.npz", means=np.zeros((2, 4), np.float32), scale=np.ones(4, np.float32))


def no_features(folder: Path) -> None:
    (folder / "features.npy").unlink()


def row_without_frames(folder: Path) -> None:
    (folder / "utterances.jsonl").write_text(json.dumps({"id": "u0"}) + "\n")


def features_are_float32(folder: Path) -> None:
    np.save(folder / "features.npy", np.zeros((11, 4), np.float32))


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        drop_a_line,
        half_a_line,
        same_id_twice,
        no_cmvn,
        cmvn_is_text,
        cmvn_of_other_size,
        too_few_groups,
        no_features,
        row_without_frames,
        features_are_float32,
    ],
)
def test_damage_is_one_sentence_that_says_what_to_do(store: FrameStore, damage) -> None:  # type: ignore[no-untyped-def]
    damage(store.folder)
    with pytest.raises(UserError, match=r"damaged.*delete") as caught:
        FrameStore.open(store.folder)
    assert "\n" not in str(caught.value)


def test_missing_store_and_unknown_utterance(store: FrameStore, tmp_path: Path) -> None:
    with pytest.raises(FrameStoreError, match="holds no features"):
        FrameStore.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no utterance u9"):
        store.index("u9")
