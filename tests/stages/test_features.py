"""Stage 2 on made-up audio: the same numbers from any number of processes, and one sentence for bad audio."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.utils import compute_num_frames
from torchaudio.compliance import kaldi

from asr_kd.corpora.settings import PromptsConfig
from asr_kd.errors import UserError
from asr_kd.frames.features import FeaturesConfig, fbank, num_frames
from asr_kd.frames.store import FrameStore, FrameStoreWriter, StoredUtterance
from asr_kd.io import append_log as growing
from asr_kd.io.fingerprint import fingerprint
from asr_kd.io.stamp import Stamp
from asr_kd.settings import to_mapping
from asr_kd.stages import features as stage
from asr_kd.stages.features import make_features
from asr_kd.workspace.config import Config
from asr_kd.workspace.freshness import note_files
from asr_kd.workspace.sets import add_set
from asr_kd.workspace.work import Workspace

RATE = 8000
SPEEDS = Config(features=FeaturesConfig(speeds=(1.0, 0.9, 1.1)))


def config(on_bad_utterance: Any = "fail") -> Config:
    return Config(corpus=PromptsConfig(on_bad_utterance=on_bad_utterance))


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """Noise that swells, so that frames differ."""
    rng = np.random.default_rng(seed)
    return (0.1 * rng.normal(size=samples) * np.linspace(0.01, 1, samples)).astype(np.float32)


class Corpus:
    """A work folder with made-up audio in it; recording paths are relative to it."""

    def __init__(self, root: Path):
        self.work = Workspace(root, root / "conf.yaml")
        self.work.data.mkdir(parents=True)
        (root / "wav").mkdir()
        Stamp("prepare", {}, {}).write(self.work.data / "stamp.json")

    def cut(
        self, name: str, samples: np.ndarray, *, rate: int = RATE, speaker: str | None = "ann", subtype: str = "FLOAT"
    ) -> MonoCut:
        file = self.work.root / "wav" / f"{name}.wav"
        soundfile.write(file, samples, rate, subtype=subtype)
        recording = Recording.from_file(file, recording_id=name)
        recording.sources[0].source = f"wav/{name}.wav"
        text = SupervisionSegment(f"{name}", name, 0, recording.duration, text=f"SAY {name.upper()}", speaker=speaker)
        cut: MonoCut = dataclasses.replace(recording.to_cut(), id=name, supervisions=[text])
        return cut

    def write(self, name: str, cuts: list[Any]) -> None:
        CutSet.from_cuts(cuts).to_file(self.work.cuts(name))
        Stamp("cuts", {}, {}).write(self.work.cuts_stamp(name))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus(tmp_path / "work")
    lengths = [8000, 8039, 8040, 3333, 200, 12345]
    cuts = [made.cut(f"u{k}", noise(n, k), speaker="bob" if k == 4 else "ann") for k, n in enumerate(lengths)]
    made.write("train", cuts)
    made.write("dev", [made.cut("d0", noise(9000, 77), speaker=None), made.cut("d1", noise(5000, 78), speaker=None)])
    made.write("test", [made.cut("t0", noise(4000, 79))])
    return made


def test_stores(corpus: Corpus) -> None:
    result = make_features(SPEEDS, corpus.work, nj=1)
    train, dev, test = (FrameStore.open(corpus.work.frames(name)) for name in ("train", "dev", "test"))
    assert train.ids[:4] == ["u0", "u0_sp0.9", "u0_sp1.1", "u1"]
    assert train.texts[:2] == ["SAY U0", "SAY U0"]
    np.testing.assert_allclose(train.speeds[:3], [1.0, 0.9, 1.1])
    # a copy at 0.9 is longer by 1 / 0.9, and its duration says so
    np.testing.assert_allclose(train.durations[:3], [1.0, 1 / 0.9, 1 / 1.1], atol=2 / RATE)
    for store in (train, dev, test):
        for u, frames in enumerate(np.diff(store.offsets)):
            assert frames == compute_num_frames(float(store.durations[u]), 0.01, RATE)
    # one mean per speaker and speed; per utterance where the speaker is not known
    assert len(train.means) == 6
    assert train.groups[train.index("u0")] == train.groups[train.index("u1")]
    assert len({int(train.groups[train.index(name)]) for name in ("u0", "u0_sp0.9", "u0_sp1.1", "u4")}) == 4
    assert dev.ids == ["d0", "d1"]
    assert dev.groups.tolist() == [0, 1]
    np.testing.assert_array_equal(dev.scale, train.scale)
    np.testing.assert_array_equal(test.scale, train.scale)
    assert train.num_dims == 40
    one = result.sets[0]
    assert (one.utterances, one.frames, one.ran) == (18, train.num_frames, True)
    assert one.bytes > train.num_frames * 80
    assert "18 utterances" in str(result)


def test_minutes_are_those_of_the_audio_where_frames_are_not_10_ms_apart(corpus: Corpus) -> None:
    """At 22,050 Hz they are 220 samples apart: 30 s are 3,007 frames."""
    corpus.write("train", [corpus.cut("u", noise(30 * 22050), rate=22050)])
    result = make_features(Config(corpus=PromptsConfig(sampling_rate=22050)), corpus.work, sets=("train",))
    assert (result.sets[0].frames, result.sets[0].minutes) == (3007, 0.5)


def test_warped_copies(corpus: Corpus) -> None:
    plain = make_features(SPEEDS, corpus.work, sets=("train",)).sets[0]
    before = FrameStore.open(corpus.work.frames("train"))
    frames = {name: before.features[before.span(u)] for u, name in enumerate(before.ids)}
    warped = Config(features=dataclasses.replace(SPEEDS.features, warps=(0.9, 1.0)))
    result = make_features(warped, corpus.work)
    train, dev = (FrameStore.open(corpus.work.frames(name)) for name in ("train", "dev"))
    assert train.ids[:6] == ["u0_vt0.9", "u0", "u0_sp0.9_vt0.9", "u0_sp0.9", "u0_sp1.1_vt0.9", "u0_sp1.1"]
    assert train.originals[:6] == ["u0"] * 6 and train.unaltered[:6].tolist() == [False, True, *[False] * 4]
    assert train.unwarped[:8].tolist() == [1, 1, 3, 3, 5, 5, 7, 7]
    # without a warp everything is as before, and a warp changes no time
    for u, name in enumerate(train.ids):
        stored = train.features[train.span(u)]
        if name in frames:
            np.testing.assert_array_equal(stored, frames[name])
        else:
            assert stored.shape == frames[train.ids[train.unwarped[u]]].shape
            assert (stored != frames[train.ids[train.unwarped[u]]]).any()
    # a mean of its own for each speaker, speed and warp
    assert len(train.means) == 12 and len(set(train.groups[:6].tolist())) == 6
    assert train.groups[train.index("u0_vt0.9")] == train.groups[train.index("u1_vt0.9")]
    assert result.sets[0].frames == 2 * plain.frames
    assert dev.ids == ["d0", "d1"]


def test_means_of_utterances_and_running_means(corpus: Corpus) -> None:
    for mean, groups in (("utterance", 6), ("running", 2)):
        of_mean = Config(features=FeaturesConfig(mean=mean))
        assert all(features.ran for features in make_features(of_mean, corpus.work).sets)
        train, test = (FrameStore.open(corpus.work.frames(name)) for name in ("train", "test"))
        assert len(train.means) == groups
        # a known speaker makes no difference: `transcribe` gives the same
        alone = train.normalisation.of_unknown_speaker(test.features[:])
        np.testing.assert_allclose(test.normalised(0), alone, atol=1e-5)
        assert np.square(train.normalised(0, 6)).mean(0) == pytest.approx(np.ones(40), rel=0.01)


def test_speakers_of_other_sets_have_a_variance_of_their_own(corpus: Corpus) -> None:
    make_features(Config(features=FeaturesConfig(variance="speaker")), corpus.work)
    train, test = (FrameStore.open(corpus.work.frames(name)) for name in ("train", "test"))
    np.testing.assert_array_equal(test.scale, train.scale)
    assert test.normalisation.scales is not None
    np.testing.assert_allclose(test.normalised(0), train.normalisation.of_unknown_speaker(test.features[:]), atol=1e-5)


def test_defaults_leave_stamps_as_they_were() -> None:
    assert to_mapping(FeaturesConfig(), changed_only=True) == {}


def test_second_run_makes_nothing_and_changes_spread(corpus: Corpus) -> None:
    assert make_features(config(), corpus.work).ran
    again = make_features(config(), corpus.work)
    assert not again.ran
    assert [features.utterances for features in again.sets] == [6, 2, 1]
    corpus.write("test", [corpus.cut("t1", noise(4000, 80))])
    assert [features.ran for features in make_features(config(), corpus.work).sets] == [False, False, True]
    # other features of the training set: another scale for dev and test
    assert [features.ran for features in make_features(SPEEDS, corpus.work).sets] == [True, True, True]


def test_an_added_set_gets_its_store_and_the_others_stay(corpus: Corpus) -> None:
    make_features(config(), corpus.work)
    corpus.write("more", [corpus.cut("m0", noise(4000, 81))])
    add_set(corpus.work, "more", ("others",))
    again = make_features(config(), corpus.work)
    assert [(features.name, features.ran) for features in again.sets] == [
        ("train", False), ("dev", False), ("test", False), ("more", True),
    ]  # fmt: skip
    store = FrameStore.open(corpus.work.frames("more"))
    np.testing.assert_array_equal(store.scale, FrameStore.open(corpus.work.frames("train")).scale)


def test_a_recording_that_changed_since_prepare_is_named(corpus: Corpus) -> None:
    make_features(SPEEDS, corpus.work, nj=1)
    file = corpus.work.root / "wav/u1.wav"
    note_files(corpus.work, {"wav/u1.wav": fingerprint(file)})
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=r"u1.wav changed after .*data was made; .*asr-kd prepare"):
        make_features(SPEEDS, corpus.work, nj=1)
    file.unlink()  # whoever needs the space may delete the audio
    assert not make_features(SPEEDS, corpus.work, nj=1).ran


def test_long_recordings_are_few_at_a_time() -> None:
    """So that what a process holds does not grow with the length of recordings."""
    cuts = [{"duration": seconds, "recording": {"sources": [k]}} for k, seconds in enumerate([10, 1800, 1800, 9000, 5])]
    assert [[cut["duration"] for cut in shard] for shard in stage._shards(cuts, 50)] == [
        [10, 1800],
        [1800],
        [9000],
        [5],
    ]


class Killed(BaseException):
    """What no code catches by mistake."""


def test_killed_features_go_on_where_they_were(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    make_features(SPEEDS, corpus.work, nj=1)
    files = ("features.npy", "utterances.jsonl", "cmvn.npz")
    whole = {name: (corpus.work.frames("train") / name).read_bytes() for name in files}
    shutil.rmtree(corpus.work.frames("train"))
    monkeypatch.setattr(growing, "COMMIT_SECONDS", -1.0)
    monkeypatch.setattr(stage, "_SHARD", 1)
    real, appended = FrameStoreWriter.append, []

    def append(self: FrameStoreWriter, utterance: StoredUtterance, features: np.ndarray) -> None:
        if len(appended) == 10:
            appended.clear()
            raise Killed
        appended.append(utterance.id)
        real(self, utterance, features)

    monkeypatch.setattr(FrameStoreWriter, "append", append)
    with pytest.raises(Killed):
        make_features(SPEEDS, corpus.work, nj=1, sets=("train",))
    make_features(SPEEDS, corpus.work, nj=1, sets=("train",))
    assert appended[0] == "u3"  # of the fourth recording's three copies one had been written; it begins anew
    assert {name: (corpus.work.frames("train") / name).read_bytes() for name in files} == whole
    assert [folder.name for folder in corpus.work.frames("train").parent.iterdir() if "train" in folder.name] == [
        "train"
    ]


def test_result_does_not_depend_on_the_number_of_processes(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr_kd.stages.features._SMALL", 0)
    monkeypatch.setattr("asr_kd.stages.features._BLOCK", 4)  # two blocks
    make_features(SPEEDS, corpus.work, nj=1, sets=("train",))
    folder = corpus.work.frames("train")
    names = ("features.npy", "utterances.jsonl", "stamp.json")
    alone = [(folder / name).read_bytes() for name in names]
    (folder / "stamp.json").unlink()
    make_features(SPEEDS, corpus.work, nj=2, sets=("train",))
    assert [(folder / name).read_bytes() for name in names] == alone


def test_frames_of_any_length_follow_the_rule() -> None:
    for rate in (8000, 16000, 22050):
        for samples in [round(0.025 * rate) + k for k in range(0, 300, 7)] + [rate, rate + 1]:
            assert fbank(noise(samples)[None], rate, 40).shape == (num_frames(samples, rate), 40)


def test_mel_filters_reach_half_the_sampling_rate() -> None:
    tone = 0.1 * np.sin(2 * np.pi * 3900 * np.arange(RATE) / RATE, dtype=np.float32)[None].astype(np.float32)
    assert fbank(tone, RATE, 40)[50].argmax() == 39


def test_a_warp_moves_resonances() -> None:
    """A tone at f, warped by w, is where a tone at w f is without: as if the vocal tract were shorter."""
    time = np.arange(RATE, dtype=np.float32) / RATE

    def tone(frequency: float, warp: float = 1.0) -> np.ndarray:
        return fbank(0.1 * np.sin(2 * np.pi * frequency * time, dtype=np.float32)[None], RATE, 40, warp)[20:-20].mean(0)

    for warp in (0.8, 0.9, 1.1, 1.25):
        for frequency in (500, 1000, 2000):
            warped = tone(frequency, warp)
            assert abs(int(warped.argmax()) - int(tone(frequency * warp).argmax())) <= 1
            assert warped.argmax() != tone(frequency).argmax()


@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_warped_filterbanks_are_kaldis(rate: int) -> None:
    samples = noise(3 * rate + 41)[None]
    for warp in (0.8, 0.9, 1.1, 1.25):
        expected = kaldi.fbank(
            torch.from_numpy(samples), num_mel_bins=40, sample_frequency=rate, snip_edges=False, vtln_warp=warp
        )
        np.testing.assert_allclose(fbank(samples, rate, 40, warp), expected.numpy(), atol=1e-3)


def test_hardly_any_warp_is_hardly_any_change() -> None:
    for samples in (182, 200, 8039):  # also of less than a window, as fast copies are
        plain, warped = (fbank(noise(samples)[None], RATE, 40, warp) for warp in (1.0, 1.0 + 1e-9))
        assert warped.dtype == plain.dtype == np.float32
        np.testing.assert_allclose(warped, plain, atol=1e-3)


def test_an_utterance_may_not_have_the_name_of_a_copy(corpus: Corpus) -> None:
    corpus.write("train", [corpus.cut("a", noise(8000)), corpus.cut("a_sp0.9", noise(8000, 1))])
    copies = dataclasses.replace(config(), features=FeaturesConfig(speeds=(1.0, 0.9)))
    with pytest.raises(UserError, match=r"a_sp0\.9 is an utterance, and the name of the copy of a at speed 0\.9"):
        make_features(copies, corpus.work, sets=("train",))
    assert make_features(config(), corpus.work, sets=("train",)).sets[0].utterances == 2  # the sentence's advice
    corpus.write("train", [corpus.cut("a", noise(8000)), corpus.cut("a_vt1.1", noise(8000, 1))])
    copies = dataclasses.replace(config(), features=FeaturesConfig(warps=(1.0, 1.1)))
    with pytest.raises(
        UserError, match=r"a_vt1\.1 is an utterance, .* of a at warp 1\.1; .* 1\.1 out of features\.warps"
    ):
        make_features(copies, corpus.work, sets=("train",))


def bad_cut(corpus: Corpus, kind: str) -> Any:
    if kind == "has 16000 Hz":
        return corpus.cut("bad", noise(8000), rate=16000)
    if kind == "less than one window":
        return corpus.cut("bad", noise(199))
    if kind == "silence":
        return corpus.cut("bad", np.zeros(8000, np.float32))
    if kind == "NaN":
        samples = noise(8000)
        samples[100] = np.nan
        return corpus.cut("bad", samples)
    cut = corpus.cut("bad", noise(80000), subtype="PCM_16")
    file = corpus.work.root / "wav" / "bad.wav"
    if kind == "missing":
        file.unlink()
    elif kind == "cut short":
        file.write_bytes(file.read_bytes()[:3000])
    return cut


@pytest.mark.parametrize("kind", ["has 16000 Hz", "less than one window", "silence", "NaN", "missing", "cut short"])
def test_bad_utterance_is_named_or_left_out(corpus: Corpus, kind: str) -> None:
    corpus.write("train", [corpus.cut("good", noise(8000)), bad_cut(corpus, kind)])
    with pytest.raises(UserError, match=rf"utterance bad\b.*{kind}") as caught:
        make_features(config(), corpus.work)
    assert "\n" not in str(caught.value)
    assert list(corpus.work.frames("train").parent.iterdir()) == []  # nothing half-written
    one = make_features(config("skip"), corpus.work, sets=("train",)).sets[0]
    assert one.utterances == 1
    assert [row["utterance"] for row in one.left_out] == ["bad"]
    metadata = json.loads((corpus.work.frames("train") / "stamp.json").read_text())["metadata"]
    assert kind in metadata["left_out"][0]["reason"]


def test_too_little_disk_is_refused_before_anything_is_written(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("asr_kd.io.resources.shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"needs .* of disk, but 1\.0 kB are free"):
        make_features(config(), corpus.work)
    assert not corpus.work.frames("train").parent.exists()


def test_inputs_that_are_missing_or_damaged(corpus: Corpus) -> None:
    with pytest.raises(UserError, match="asr-kd features"):
        make_features(config(), corpus.work, sets=("dev",))
    file = corpus.work.cuts("train")
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(UserError, match=r"cuts_train.* cannot be read .*asr-kd prepare"):
        make_features(config(), corpus.work)
    file.unlink()
    with pytest.raises(UserError, match="asr-kd prepare"):
        make_features(config(), corpus.work)
    corpus.work.cuts_stamp("train").unlink()
    with pytest.raises(UserError, match="asr-kd prepare"):
        make_features(config(), corpus.work)


@pytest.mark.parametrize("speeds", [(0.9, 1.1), (1.0, 1.0), (1.0, 0.4)])
def test_wrong_speeds(corpus: Corpus, speeds: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"features\.speeds"):
        make_features(Config(features=FeaturesConfig(speeds=speeds)), corpus.work)


@pytest.mark.parametrize("warps", [(0.9, 1.1), (1.0, 1.0), (1.0, 0.7), (1.0, 1.3)])
def test_wrong_warps(corpus: Corpus, warps: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"features\.warps: .* lie within 0\.8 to 1\.25"):
        make_features(Config(features=FeaturesConfig(warps=warps)), corpus.work)
