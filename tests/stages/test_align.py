"""The stage `align` on made-up speech whose states are known: labels, failures, skipping, killing, added sets."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr_kd.acoustic.divergence import DivergedError
from asr_kd.alignment import aligner, flat_start
from asr_kd.alignment.set_alignment import CONTEXTS, SEGMENTS, read_array
from asr_kd.alignment.settings import AlignmentConfig, RealignConfig
from asr_kd.alignment.tree import read_tree
from asr_kd.corpora.settings import FolderConfig
from asr_kd.errors import UserError
from asr_kd.frames.source import FrameSource
from asr_kd.frames.store import FrameStore
from asr_kd.io.stamp import STAMP, Stamp, read_stamp
from asr_kd.lang.lexicon import Lang, write_lang
from asr_kd.stages import align as stage
from asr_kd.stages.align import AlignResult
from asr_kd.stages.align_stamps import AlignmentStamps
from asr_kd.stages.finished_alignment import read_times
from asr_kd.workspace.config import Config, SystemConfig
from asr_kd.workspace.sets import add_set, open_labels
from asr_kd.workspace.work import Workspace

from ..stores import write_store

SETS = ("train", "dev", "test")
PHONES = ("SIL", "A", "B", "C")
LANG = Lang(PHONES, ("AB", "BC", "CA"), {"AB": ((1, 2),), "BC": ((2, 3), (3,)), "CA": ((3, 1),)})
CONFIG = Config(
    alignment=AlignmentConfig(rounds=5, leaves=14, min_count=30, realign=RealignConfig(rounds=0)),
    systems={"control": SystemConfig(tree="monophone")},
)
NUM_DIMS = 20
Arrays = dict[str, np.ndarray]


class Gaussians:
    """In place of the flat start's net, without randomness: the mean of each class, one variance for all."""

    means, variance = np.zeros(0), 1.0  # before the first round

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    @classmethod
    def untrained(cls, num_dims: int, num_states: int, settings: AlignmentConfig, seed: int) -> Gaussians:
        return cls(num_states)

    def prepare(self, source: FrameSource, utterances: Sequence[int], settings: AlignmentConfig) -> None:
        self.frames = source.normalised(0, len(source.ids))

    def fit(self, frames: np.ndarray, states: np.ndarray) -> None:
        x, seen = self.frames[frames], np.bincount(states, minlength=self.num_classes)
        sums = np.zeros((self.num_classes, x.shape[1]))
        np.add.at(sums, states, x)
        self.means = np.where(seen[:, None] > 0, sums / np.maximum(seen, 1)[:, None], x.mean(0))
        self.variance = float(((x - self.means[states]) ** 2).mean())

    def state(self) -> Arrays:
        return {"means": self.means, "variance": np.array(self.variance)}

    def restore(self, state: Arrays) -> None:
        self.means, self.variance = state["means"], float(state["variance"])

    def save(self, folder: Path) -> None:
        np.savez(folder / "gaussians.npz", **self.state())

    @classmethod
    def load(cls, folder: Path) -> Gaussians:
        with np.load(folder / "gaussians.npz") as state:
            classifier = cls(len(state["means"]))
            classifier.restore(state)
        return classifier

    def log_posteriors(self, source: FrameSource, utterances: Sequence[int]) -> list[np.ndarray]:
        return [self._of_one(source, utterance) for utterance in utterances]

    def _of_one(self, source: FrameSource, utterance: int) -> np.ndarray:
        distance = ((source.normalised(utterance)[:, None] - self.means) ** 2).sum(-1)
        scores = -0.5 * distance / self.variance
        return (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).astype(np.float32)


def align(config: Config, work: Workspace, classifier: Any = Gaussians, nj: int = 1) -> AlignResult:
    """The stage with this classifier in place of the net."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aligner, "NetClassifier", classifier)
        patch.setattr(flat_start, "MonophoneNet", classifier)
        return stage.align(config, work, nj=nj)


class Never(Gaussians):
    """Where nothing is to be trained."""

    @classmethod
    def untrained(cls, *arguments: Any) -> Gaussians:
        raise AssertionError("an aligner was trained")


def make_work(root: Path) -> tuple[Workspace, Arrays]:
    """A work folder as prepare and features leave it, and the true monophone state of each frame of each set."""
    work, rng, truth = Workspace(root, root / "conf.yaml"), np.random.default_rng(3), {}
    work.lang.mkdir(parents=True)
    write_lang(work.lang, LANG)
    Stamp("lang", {}, {}).write(work.lang / STAMP)
    centres = rng.normal(0, 3, (3 * len(PHONES), NUM_DIMS))
    scale = None
    for name, size in (("train", 40), ("dev", 6), ("test", 6)):
        truth[name] = make_set(work, name, size, rng, centres, scale)
        scale = FrameStore.open(work.frames("train")).scale
    return work, truth


def make_set(
    work: Workspace, name: str, size: int, rng: np.random.Generator, centres: np.ndarray, scale: np.ndarray | None
) -> np.ndarray:
    """Writes the features of a set; returns the true monophone state of each frame."""
    utterances, texts, states_of_set = [], [], []
    for number in range(size):
        words = rng.choice(LANG.words, rng.integers(2, 6)).tolist()
        phones = [0, *(phone for word in words for phone in LANG.pronunciations[word][0]), 0]
        states = np.repeat([3 * p + k for p in phones for k in range(3)], rng.integers(2, 7, 3 * len(phones)))
        utterances.append((f"{name}{number}", centres[states] + rng.normal(0, 0.6, (len(states), NUM_DIMS))))
        texts.append(" ".join(words))
        states_of_set.append(states)
    write_store(work.frames(name), utterances, texts=texts, scale=scale)
    return np.concatenate(states_of_set)


def changed(**settings: Any) -> Config:
    return dataclasses.replace(CONFIG, alignment=dataclasses.replace(CONFIG.alignment, **settings))


def labels(work: Workspace, sets: Sequence[str] = SETS) -> Arrays:
    """Everything that the stage leaves behind for others, as arrays."""
    actual = {}
    for name in sets:
        store = FrameStore.open(work.frames(name))
        for kind in ("senones", "senones_monophone"):
            actual[f"{name} {kind}"] = np.array(store.array(kind))
        actual[f"{name} contexts"] = np.array(read_array(work.exp("align") / name / CONTEXTS))
        actual[f"{name} segments"] = np.array(read_array(work.exp("align") / name / SEGMENTS))
    for kind in ("tree", "tree_monophone"):
        tree = read_tree(work.exp(kind))
        actual[f"{kind} tables"], actual[f"{kind} counts"] = tree.tables, tree.counts
    return actual


def assert_same(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def change_text(work: Workspace, name: str, number: int, text: str) -> None:
    """Another transcript for one utterance, as if the features had been made so."""
    path = work.frames(name) / "utterances.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[number]["text"] = text
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_frames_get_their_true_states(tmp_path: Path) -> None:
    work, truth = make_work(tmp_path)
    result = align(CONFIG, work)
    assert (result.ran, result.utterances, result.failed, result.num_senones) == (True, 52, [], 14)
    actual = labels(work)
    for name in SETS:
        assert (actual[f"{name} senones_monophone"] == truth[name]).mean() > 0.95, name
        segments = actual[f"{name} segments"]
        store = FrameStore.open(work.frames(name))
        # the segments of an utterance follow each other without gaps, from its first frame to its last
        for u in range(len(store.ids)):
            mine = segments[segments[:, 0] == u]
            assert [0, *mine[:, 4]] == [*mine[:, 3], store.offsets[u + 1] - store.offsets[u]]
    for kind in ("tree", "tree_monophone"):
        states = actual[f"train {kind.replace('tree', 'senones')}"]
        tree, stamp = read_tree(work.exp(kind)), read_stamp(work.exp(kind))
        assert tree.counts.tolist() == np.bincount(states, minlength=tree.num_senones).tolist()
        assert stamp is not None and stamp["metadata"]["num_senones"] == tree.num_senones
        for name in SETS:
            label_stamp = FrameStore.open(work.frames(name)).array_stamp(kind.replace("tree", "senones"))
            assert label_stamp is not None and label_stamp["inputs"]["tree"] == stamp["digest"]
    # a senone belongs to the phone and HMM state that the monophone tree gives the same frame
    pairs = set(zip(actual["train senones"].tolist(), actual["train senones_monophone"].tolist(), strict=True))
    assert len(pairs) == len(np.unique(actual["train senones"]))


def test_a_warped_copy_is_aligned_as_the_utterance_without_the_warp(tmp_path: Path) -> None:
    work, truth = make_work(tmp_path)
    store = FrameStore.open(work.frames("train"))
    rng, rows = np.random.default_rng(8), []
    for u, name in enumerate(store.ids):
        frames = store.features[store.span(u)].astype(np.float64)
        rows += [(f"{name}_vt0.9", rng.normal(size=frames.shape)), (name, frames)]  # a copy that nothing can align
    shutil.rmtree(work.frames("train"))
    write_store(work.frames("train"), rows, texts=np.repeat(store.texts, 2).tolist(), warps=[0.9, 1.0] * len(store.ids))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "BLOCK", 3)  # utterances and their copies in different blocks
        assert align(CONFIG, work).utterances == 92
    store, segments = FrameStore.open(work.frames("train")), labels(work)["train segments"]
    for kind in ("senones", "senones_monophone"):
        of_frames = store.array(kind)
        for u in range(0, len(store.ids), 2):
            np.testing.assert_array_equal(of_frames[store.span(u)], of_frames[store.span(u + 1)])
            np.testing.assert_array_equal(segments[segments[:, 0] == u, 1:], segments[segments[:, 0] == u + 1, 1:])
    unaltered = np.repeat(store.unaltered, np.diff(store.offsets))
    assert (store.array("senones_monophone")[unaltered] == truth["train"]).mean() > 0.95


def test_threads_do_not_change_anything_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    one, _ = make_work(tmp_path / "one")
    two, _ = make_work(tmp_path / "two")
    first = align(CONFIG, one, nj=1)
    align(CONFIG, two, nj=3)
    assert_same(labels(one), labels(two))

    again = align(CONFIG, one, Never)
    assert not again.ran
    assert dataclasses.replace(again, ran=True) == first


def test_another_setting_makes_it_again(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)
    align(CONFIG, work)
    more = dataclasses.replace(CONFIG, alignment=dataclasses.replace(CONFIG.alignment, leaves=13))
    assert align(more, work).num_senones == 13
    assert read_tree(work.exp("tree")).num_senones == 13


def test_features_made_again_are_labelled_again(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)
    align(CONFIG, work)
    for file in work.frames("dev").glob("senones*"):
        file.unlink()
    assert align(CONFIG, work).ran
    assert len(FrameStore.open(work.frames("dev")).array("senones"))


def test_what_cannot_be_aligned_is_named_and_gets_no_label(tmp_path: Path) -> None:
    work, truth = make_work(tmp_path)
    change_text(work, "train", 2, " ".join(["AB"] * 200))
    change_text(work, "test", 1, "AB NOISE")
    result = align(CONFIG, work)
    assert [(one["set"], one["utterance"]) for one in result.failed] == [("test", "test1"), ("train", "train2")]
    assert "NOISE" in result.failed[0]["reason"]
    assert "frames" in result.failed[1]["reason"]
    assert "train2" in str(result)
    assert json.loads((work.exp("align") / "failed.json").read_text()) == result.failed
    store, actual = FrameStore.open(work.frames("train")), labels(work)
    for kind in ("senones", "senones_monophone"):
        unlabelled = np.flatnonzero(actual[f"train {kind}"] < 0)
        assert unlabelled.tolist() == list(range(store.offsets[2], store.offsets[3]))
    good = actual["train senones_monophone"] >= 0
    assert (actual["train senones_monophone"] == truth["train"])[good].mean() > 0.95
    assert align(CONFIG, work).failed == result.failed  # also named by a run that does nothing


def test_too_many_failures_stop_the_stage_with_their_names(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)
    for number in range(4):
        change_text(work, "train", number, "")
    with pytest.raises(UserError, match=r"4 of 52 .*train0.*empty.*max_bad_fraction"):
        align(CONFIG, work)
    assert not (work.exp("align") / STAMP).exists() and not work.exp("tree").exists()
    assert not list(work.root.rglob("senones*"))
    # what is aligned need not be aligned again once more failures are allowed
    assert len(align(changed(max_bad_fraction=0.1), work, Never).failed) == 4


def test_missing_inputs_name_the_command_that_makes_them(tmp_path: Path) -> None:
    work = Workspace(tmp_path, tmp_path / "conf.yaml")
    with pytest.raises(UserError, match="asr-kd prepare"):
        align(CONFIG, work)
    work.lang.mkdir(parents=True)
    Stamp("lang", {}, {}).write(work.lang / STAMP)
    with pytest.raises(UserError, match="asr-kd features"):
        align(CONFIG, work)


class Killed(BaseException):
    """What no code catches by mistake."""


def renames(monkeypatch: pytest.MonkeyPatch, die_at: int) -> list[int]:
    """Every rename by which an artefact takes its place dies at the given one; returns the counter."""
    count = [0]

    def watched(real: Any) -> Any:
        def rename(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == die_at:
                raise Killed
            return real(*arguments, **options)

        return rename

    monkeypatch.setattr(os, "replace", watched(os.replace))
    monkeypatch.setattr(Path, "rename", watched(Path.rename))
    return count


def forget(work: Workspace) -> None:
    """As before the first run of the stage."""
    shutil.rmtree(work.root / "exp", ignore_errors=True)
    for file in work.root.rglob("senones*"):
        file.unlink()


def test_killed_at_any_rename_the_next_run_ends_the_same(tmp_path: Path) -> None:
    config = changed(rounds=1)
    work, _ = make_work(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        total = renames(patch, 0)
        align(config, work)
    expected = labels(work)
    assert total[0] >= 25  # the aligner, three sets, two trees, six arrays with their stamps, the totals
    for die_at in range(1, total[0] + 1):
        forget(work)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            renames(patch, die_at)
            align(config, work)
        assert align(config, work).ran
        assert_same(labels(work), expected)
        assert not list(work.root.rglob(".*"))


def test_killed_again_and_again_it_gets_done(tmp_path: Path) -> None:
    config = changed(phases=2)
    whole, _ = make_work(tmp_path / "whole")
    align(config, whole)
    work, _ = make_work(tmp_path / "killed")
    for _ in range(40):  # more often than there are artefacts
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            renames(patch, 2)  # so each run gets one file further, until the labels, which take two, are left
            align(config, work)
    assert work.exp("tree_monophone").exists() and not list(work.root.rglob("senones*.stamp.json"))
    assert align(config, work, Never).ran
    assert_same(labels(work), labels(whole))
    assert list(read_times(CONFIG, work, "test")) == list(read_times(CONFIG, whole, "test"))


def test_blocks_and_rounds_that_are_done_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after its first round and in the middle of the training set, it resumes there, with the same result."""
    monkeypatch.setattr(stage, "BLOCK", 7)
    whole, _ = make_work(tmp_path / "whole")
    align(CONFIG, whole)
    work, _ = make_work(tmp_path / "killed")
    rounds: list[int] = []
    asked: list[int] = []

    class Counting(Gaussians):
        die_in_round = 2

        def fit(self, frames: np.ndarray, states: np.ndarray) -> None:
            rounds.append(1)
            if len(rounds) == self.die_in_round:
                raise Killed
            super().fit(frames, states)

        def log_posteriors(self, source: FrameSource, utterances: Sequence[int]) -> list[np.ndarray]:
            asked.extend(utterances)
            return super().log_posteriors(source, utterances)

    with pytest.raises(Killed):
        align(CONFIG, work, Counting)
    assert len(rounds) == 2

    Counting.die_in_round = 0
    real, blocks = stage.align_block, []

    def dying(data: Any, utterances: range, *rest: Any, **options: Any) -> Any:
        blocks.append(utterances.start)
        if len(blocks) == 4:
            raise Killed
        return real(data, utterances, *rest, **options)

    monkeypatch.setattr(stage, "align_block", dying)
    with pytest.raises(Killed):
        align(CONFIG, work, Counting)
    assert len(rounds) == 2 + CONFIG.alignment.rounds - 1  # the first round was not done again
    assert blocks == [0, 7, 14, 21]
    asked.clear()
    assert align(CONFIG, work, Counting).ran
    assert blocks[4:8] == [21, 28, 35, 0]  # the rest of training, then dev
    assert len(rounds) == 2 + CONFIG.alignment.rounds - 1 and min(asked[:19]) == 21
    assert_same(labels(work), labels(whole))
    assert not list(work.root.rglob(".*"))


def test_what_another_setting_left_half_done_is_not_used(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)

    class Dying(Gaussians):
        def log_posteriors(self, source: FrameSource, utterances: Sequence[int]) -> list[np.ndarray]:
            if source.ids[0] == "dev0":
                raise Killed
            return super().log_posteriors(source, utterances)

    with pytest.raises(Killed):
        align(CONFIG, work, Dying)
    fewer = dataclasses.replace(CONFIG, alignment=dataclasses.replace(CONFIG.alignment, rounds=2))
    align(fewer, work)
    fresh, _ = make_work(tmp_path / "fresh")
    align(fewer, fresh)
    assert_same(labels(work), labels(fresh))


def test_phases_change_times_and_no_label(tmp_path: Path) -> None:
    one, _ = make_work(tmp_path / "one")
    four, _ = make_work(tmp_path / "four")
    align(CONFIG, one)
    align(changed(phases=4), four)
    assert_same(labels(one), labels(four))
    for name in SETS:
        by_frame, finer = list(read_times(CONFIG, one, name)), list(read_times(CONFIG, four, name))
        assert [times.utterance for times in by_frame] == [times.utterance for times in finer]
        pairs = [pair for one, other in zip(by_frame, finer, strict=True)
                 for pair in zip(one.phones, other.phones, strict=True)]  # fmt: skip
        assert all(a.label == b.label and b.start < b.end for a, b in pairs)
        moved = np.array([b.start - a.start for a, b in pairs])
        assert np.abs(moved).max() < 0.05 and (np.abs(moved) > 1e-4).mean() > 0.3
    # without phases the times are those of frames again
    assert align(CONFIG, four, Never).ran
    assert list(read_times(CONFIG, four, "dev")) == list(read_times(CONFIG, one, "dev"))


def test_linear_rounds_come_first_and_are_resumed(tmp_path: Path) -> None:
    config = changed(linear_rounds=3, rounds=2, phases=2)
    whole, truth = make_work(tmp_path / "whole")
    align(config, whole)
    actual = labels(whole)
    assert (actual["train senones_monophone"] == truth["train"]).mean() > 0.95
    work, _ = make_work(tmp_path / "killed")
    for _ in range(6):  # one round further with each run
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            renames(patch, 2)
            align(config, work)
    assert align(config, work).ran
    assert_same(labels(work), actual)


def test_the_flat_start_may_learn_from_all_sets(tmp_path: Path) -> None:
    """The tree and its counts are those of the training set."""
    seen: list[int] = []

    class Watched(Gaussians):
        def fit(self, frames: np.ndarray, states: np.ndarray) -> None:
            seen.append(len(frames))
            super().fit(frames, states)

    work, truth = make_work(tmp_path)
    align(changed(learn_from="all"), work, Watched)
    assert set(seen) == {sum(len(states) for states in truth.values())}
    assert all((labels(work)[f"{name} senones_monophone"] == truth[name]).mean() > 0.9 for name in SETS)
    assert read_tree(work.exp("tree")).counts.sum() == len(truth["train"])
    with pytest.raises(UserError, match="with labels: manual leave it out"):
        align(changed(learn_from="all", labels="manual"), work)


def test_settings_that_are_off_leave_older_alignments_as_they_are(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)
    align(CONFIG, work)
    stamp = read_stamp(work.exp("align") / "model")
    assert stamp is not None and stamp["settings"] == {"alignment": {"rounds": 5}}
    assert not align(changed(max_bad_fraction=0.5), work, Never).ran
    assert align(changed(linear_rounds=1), work).ran


def at_rate(rate: int, **settings: Any) -> Config:
    return dataclasses.replace(changed(**settings), corpus=FolderConfig(sampling_rate=rate))


def test_only_times_that_were_counted_in_frames_of_another_length_are_made_again(tmp_path: Path) -> None:
    """At 44,100 Hz frames are 10 ms apart, at 22,050 Hz 220 samples."""
    work, _ = make_work(tmp_path)
    align(at_rate(16000, phases=2), work)
    before, expected = list(read_times(CONFIG, work, "dev")), labels(work)
    assert not align(at_rate(44100, phases=2), work, Never).ran
    assert align(at_rate(22050, phases=2), work, Never).ran
    assert_same(labels(work), expected)
    for old, new in zip(before, read_times(at_rate(22050), work, "dev"), strict=True):
        ratio = 220 / 22050 / 0.01
        assert [phone.start for phone in new.phones] == pytest.approx([ratio * phone.start for phone in old.phones])


@pytest.mark.parametrize(("given", "depends"), [("forced", False), ("words", False), ("manual", True), ("from", True)])
def test_an_aligner_depends_on_the_distance_of_frames_where_labels_have_times(
    tmp_path: Path, given: str, depends: bool
) -> None:
    work, _ = make_work(tmp_path)
    stores = {name: FrameStore.open(work.frames(name)) for name in SETS}
    settings = {"labels": given} | ({"dir": "labels"} if given == "from" else {})
    rates = (8000, 16000, 22050, 44100, 48000)
    digests = [AlignmentStamps(at_rate(rate, **settings), work, "", stores).aligner(0).digest for rate in rates]
    assert len({*digests[:2], *digests[3:]}) == 1 and (digests[2] != digests[0]) == depends


def stamps(work: Workspace) -> dict[str, bytes]:
    return {str(path.relative_to(work.root)): path.read_bytes() for path in work.root.rglob("*stamp.json")}


def test_an_added_set_is_aligned_by_the_same_aligner_and_nothing_else_changes(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)
    align(CONFIG, work)
    before, expected = stamps(work), labels(work)
    centres = np.random.default_rng(3).normal(0, 3, (3 * len(PHONES), NUM_DIMS))  # as `make_work` has them
    scale = FrameStore.open(work.frames("train")).scale
    truth = make_set(work, "more", 5, np.random.default_rng(4), centres, scale)
    add_set(work, "more", ("more",))
    result = align(CONFIG, work, Never)
    assert result.ran and result.utterances == 57 and result.num_senones == 14
    after = stamps(work)
    changed_stamps = {name for name in before if after[name] != before[name]}
    assert changed_stamps == {"exp/align/stamp.json"}
    assert after.keys() - before.keys() == {
        "exp/align/more/stamp.json",
        *(f"data/frames/more/{name}stamp.json" for name in ("", "senones.", "senones_monophone.")),
    }
    assert_same(labels(work), expected)
    of_more = labels(work, ["more"])
    assert (of_more["more senones_monophone"] == truth).mean() > 0.95
    # as if the set had been there from the start
    other, _ = make_work(tmp_path / "other")
    make_set(other, "more", 5, np.random.default_rng(4), centres, scale)
    add_set(other, "more", ("more",))
    align(CONFIG, other)
    assert_same(labels(other, ["more"]), of_more)


def test_what_cannot_be_aligned_in_an_added_set_stops_nothing(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)
    centres = np.random.default_rng(3).normal(0, 3, (3 * len(PHONES), NUM_DIMS))
    make_set(work, "more", 5, np.random.default_rng(4), centres, FrameStore.open(work.frames("train")).scale)
    for number in range(5):
        change_text(work, "more", number, "")
    add_set(work, "more", ("more",))
    result = align(CONFIG, work)
    assert [failed["set"] for failed in result.failed] == 5 * ["more"]
    assert (np.asarray(labels(work, ["more"])["more senones"]) == -1).all()


def test_another_tree_needs_no_alignment_and_other_times_no_tree(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)
    align(CONFIG, work)
    before = stamps(work)
    align(changed(leaves=13), work, Never)
    changed_stamps = {name for name, stamp in stamps(work).items() if before[name] != stamp}
    labels_of_sets = {f"data/frames/{name}/senones.stamp.json" for name in SETS}
    assert changed_stamps == {"exp/tree/stamp.json", "exp/align/stamp.json", *labels_of_sets}
    before = stamps(work)
    (tmp_path / "offsets.yaml").write_text("stop-vowel: 3")
    assert align(changed(leaves=13, phases=2, boundary_offsets="offsets.yaml"), work, Never).ran
    changed_stamps = {name for name, stamp in stamps(work).items() if before.get(name, stamp) != stamp}
    assert changed_stamps == {"exp/align/stamp.json"}
    assert (work.exp("align") / "boundary_offsets.yaml").exists()


def test_a_damaged_aligner_is_one_sentence(tmp_path: Path) -> None:
    """With the net itself, which is read back where one set is aligned again."""
    work, _ = make_work(tmp_path)
    stage.align(changed(rounds=1), work)
    expected = labels(work)
    shutil.rmtree(work.exp("align") / "dev")
    stage.align(changed(rounds=1), work)
    assert_same(labels(work), expected)
    shutil.rmtree(work.exp("align") / "dev")
    (work.exp("align") / "model" / "log_priors.npy").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"log_priors\.npy is missing or damaged"):
        stage.align(changed(rounds=1), work)


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_the_advice_about_damaged_labels_works(tmp_path: Path, damage: str) -> None:
    work, _ = make_work(tmp_path)
    align(changed(rounds=1), work)
    expected, file = labels(work), work.frames("dev") / "senones.npy"
    if damage == "torn":
        file.write_bytes(b"torn")
        says = r"senones\.npy is damaged .*; delete it\. Align again: asr-kd align"
        with pytest.raises(UserError, match=says):
            open_labels(work, FrameStore.open(work.frames("dev")), "tied")
    file.unlink()
    with pytest.raises(UserError, match=r"senones\.npy is missing\. Align again: asr-kd align"):
        open_labels(work, FrameStore.open(work.frames("dev")), "tied")
    assert align(changed(rounds=1), work, Never).ran
    assert_same(labels(work), expected)


def test_a_flat_start_that_diverges_is_named_with_its_folder(tmp_path: Path) -> None:
    class Diverging(Gaussians):
        def fit(self, frames: np.ndarray, states: np.ndarray) -> None:
            raise DivergedError("the loss of model 0 is not finite at step 3 (learning rate 0.5)")

    work, _ = make_work(tmp_path)
    says = r"exp/align/model: training diverged: the loss .* at step 3 .*; lower alignment\.batch_size, or set"
    with pytest.raises(UserError, match=says):
        align(CONFIG, work, Diverging)
    assert not (work.exp("align") / "model").exists()


def test_words_of_a_test_set_are_in_its_own_lexicon(tmp_path: Path) -> None:
    work, truth = make_work(tmp_path)
    change_text(work, "test", 0, FrameStore.open(work.frames("test")).texts[0].replace("AB", "BA"))
    result = align(CONFIG, work)
    assert [failed["utterance"] for failed in result.failed] == ["test0"] and "BA" in result.failed[0]["reason"]
    work.lexicon("test").write_text("BA A B\nCA A A\n")  # a word of training keeps its pronunciations
    assert align(CONFIG, work, Never).failed == []
    assert (labels(work)["test senones_monophone"] == truth["test"]).mean() > 0.95
