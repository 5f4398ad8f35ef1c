"""The stage `align` on made-up speech whose states are known: labels, failures, skipping, killing, the same numbers."""

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

from asr_kd.alignment import set_alignment
from asr_kd.alignment.segments import read_alignment
from asr_kd.alignment.tree import read_tree
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore, write_store
from asr_kd.io.stamp import STAMP, Stamp, read_stamp
from asr_kd.lang.lexicon import Lang, write_lang
from asr_kd.stages.align import SETS, align
from asr_kd.stages.finished_alignment import read_times
from asr_kd.workspace.config import AlignmentConfig, Config
from asr_kd.workspace.work import Workspace

PHONES = ("SIL", "A", "B", "C")
LANG = Lang(PHONES, ("AB", "BC", "CA"), {"AB": ((1, 2),), "BC": ((2, 3), (3,)), "CA": ((3, 1),)})
CONFIG = Config(alignment=AlignmentConfig(rounds=5, leaves=14, min_count=30))
NUM_DIMS = 20
Arrays = dict[str, np.ndarray]


class Gaussians:
    """A FrameClassifier without randomness: the mean of each class, one variance for all."""

    def __init__(
        self, store: FrameStore, num_classes: int, settings: AlignmentConfig, seed: int, utterances: list[int]
    ) -> None:
        self.frames, self.num_classes = store.normalised(0, len(store.ids)), num_classes

    def fit(self, frames: np.ndarray, states: np.ndarray, *, epochs: int) -> None:
        x, seen = self.frames[frames], np.bincount(states, minlength=self.num_classes)
        sums = np.zeros((self.num_classes, x.shape[1]))
        np.add.at(sums, states, x)
        self.means = np.where(seen[:, None] > 0, sums / np.maximum(seen, 1)[:, None], x.mean(0))
        self.variance = float(((x - self.means[states]) ** 2).mean())

    def state(self) -> Arrays:
        return {"means": self.means, "variance": np.array(self.variance)}

    def restore(self, state: Arrays) -> None:
        self.means, self.variance = state["means"], float(state["variance"])

    def log_posteriors(self, store: FrameStore, utterances: Sequence[int]) -> list[np.ndarray]:
        return [self._of_one(store, utterance) for utterance in utterances]

    def _of_one(self, store: FrameStore, utterance: int) -> np.ndarray:
        distance = ((store.normalised(utterance)[:, None] - self.means) ** 2).sum(-1)
        scores = -0.5 * distance / self.variance
        return (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).astype(np.float32)


def make_work(root: Path) -> tuple[Workspace, Arrays]:
    """A work folder as prepare and features leave it, and the true monophone state of each frame of each set."""
    work, rng, truth = Workspace(root, root / "conf.yaml"), np.random.default_rng(3), {}
    work.lang.mkdir(parents=True)
    write_lang(work.lang, LANG)
    Stamp("lang", {}, {}).write(work.lang / STAMP)
    centres = rng.normal(0, 3, (3 * len(PHONES), NUM_DIMS))
    scale = None
    for name, size in (("train", 40), ("dev", 6), ("test", 6)):
        utterances, texts, states_of_set = [], [], []
        for number in range(size):
            words = rng.choice(LANG.words, rng.integers(2, 6)).tolist()
            phones = [0, *(phone for word in words for phone in LANG.pronunciations[word][0]), 0]
            states = np.repeat([3 * p + k for p in phones for k in range(3)], rng.integers(2, 7, 3 * len(phones)))
            utterances.append((f"{name}{number}", centres[states] + rng.normal(0, 0.6, (len(states), NUM_DIMS))))
            texts.append(" ".join(words))
            states_of_set.append(states)
        store = write_store(work.frames(name), utterances, texts=texts, scale=scale)
        scale, truth[name] = store.scale, np.concatenate(states_of_set)
    return work, truth


def labels(work: Workspace) -> Arrays:
    """Everything that the stage leaves behind for others, as arrays."""
    found = {}
    for name in SETS:
        store = FrameStore.open(work.frames(name))
        for kind in ("states", "states_monophone"):
            found[f"{name} {kind}"] = np.array(store.array(kind))
        alignment = read_alignment(work.exp("align"), name)
        found[f"{name} contexts"] = np.array(alignment.contexts)
        found[f"{name} segments"] = np.array(alignment.segments)
    for kind in ("tree", "tree_monophone"):
        tree = read_tree(work.exp(kind))
        found[f"{kind} tables"], found[f"{kind} counts"] = tree.tables, tree.counts
    return found


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
    result = align(CONFIG, work, Gaussians)
    assert (result.made, result.utterances, result.failed, result.tied_states) == (True, 52, [], 14)
    found = labels(work)
    for name in SETS:
        assert (found[f"{name} states_monophone"] == truth[name]).mean() > 0.95, name
        segments = found[f"{name} segments"]
        store = FrameStore.open(work.frames(name))
        # the segments of an utterance follow each other without gaps, from its first frame to its last
        for u in range(len(store.ids)):
            mine = segments[segments[:, 0] == u]
            assert [0, *mine[:, 4]] == [*mine[:, 3], store.offsets[u + 1] - store.offsets[u]]
    for kind in ("tree", "tree_monophone"):
        states = found[f"train {kind.replace('tree', 'states')}"]
        tree, stamp = read_tree(work.exp(kind)), read_stamp(work.exp(kind))
        assert tree.counts.tolist() == np.bincount(states, minlength=tree.num_states).tolist()
        assert stamp is not None and stamp["metadata"]["num_states"] == tree.num_states
        for name in SETS:
            label_stamp = FrameStore.open(work.frames(name)).array_stamp(kind.replace("tree", "states"))
            assert label_stamp is not None and label_stamp["inputs"]["tree"] == stamp["digest"]
    # a tied state belongs to the phone and HMM state that the monophone tree gives the same frame
    pairs = set(zip(found["train states"].tolist(), found["train states_monophone"].tolist(), strict=True))
    assert len(pairs) == len(np.unique(found["train states"]))


def test_threads_do_not_change_anything_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    one, _ = make_work(tmp_path / "one")
    two, _ = make_work(tmp_path / "two")
    first = align(CONFIG, one, Gaussians, nj=1)
    align(CONFIG, two, Gaussians, nj=3)
    assert_same(labels(one), labels(two))

    def never(*_: Any) -> Any:
        raise AssertionError("a finished alignment was begun again")

    again = align(CONFIG, one, never)
    assert not again.made
    assert dataclasses.replace(again, made=True) == first


def test_another_setting_makes_it_again(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)
    align(CONFIG, work, Gaussians)
    more = dataclasses.replace(CONFIG, alignment=dataclasses.replace(CONFIG.alignment, leaves=13))
    assert align(more, work, Gaussians).tied_states == 13
    assert read_tree(work.exp("tree")).num_states == 13


def test_features_made_again_are_labelled_again(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)
    align(CONFIG, work, Gaussians)
    for file in work.frames("dev").glob("states*"):
        file.unlink()
    assert align(CONFIG, work, Gaussians).made
    assert len(FrameStore.open(work.frames("dev")).array("states"))


def test_what_cannot_be_aligned_is_named_and_gets_no_label(tmp_path: Path) -> None:
    work, truth = make_work(tmp_path)
    change_text(work, "train", 2, " ".join(["AB"] * 200))
    change_text(work, "test", 1, "AB NOISE")
    result = align(CONFIG, work, Gaussians)
    assert [(one["set"], one["utterance"]) for one in result.failed] == [("test", "test1"), ("train", "train2")]
    assert "NOISE" in result.failed[0]["reason"]
    assert "frames" in result.failed[1]["reason"]
    assert "train2" in str(result)
    assert json.loads((work.exp("align") / "failed.json").read_text()) == result.failed
    store, found = FrameStore.open(work.frames("train")), labels(work)
    for kind in ("states", "states_monophone"):
        unlabelled = np.flatnonzero(found[f"train {kind}"] < 0)
        assert unlabelled.tolist() == list(range(store.offsets[2], store.offsets[3]))
    good = found["train states_monophone"] >= 0
    assert (found["train states_monophone"] == truth["train"])[good].mean() > 0.95
    assert align(CONFIG, work, Gaussians).failed == result.failed  # told again by a run that does nothing


def test_too_many_failures_stop_the_stage_with_their_names(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)
    for number in range(4):
        change_text(work, "train", number, "")
    with pytest.raises(UserError, match=r"4 of 52 .*train0.*empty.*max_bad_fraction"):
        align(CONFIG, work, Gaussians)
    assert not work.exp("align").exists() and not work.exp("tree").exists()
    assert not list(work.root.rglob("states*"))


def test_missing_inputs_name_the_command_that_makes_them(tmp_path: Path) -> None:
    work = Workspace(tmp_path, tmp_path / "conf.yaml")
    with pytest.raises(UserError, match="asr-kd prepare"):
        align(CONFIG, work, Gaussians)
    work.lang.mkdir(parents=True)
    Stamp("lang", {}, {}).write(work.lang / STAMP)
    with pytest.raises(UserError, match="asr-kd features"):
        align(CONFIG, work, Gaussians)


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


def test_killed_at_any_rename_the_next_run_ends_the_same(tmp_path: Path) -> None:
    whole, _ = make_work(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        total = renames(patch, 0)
        align(CONFIG, whole, Gaussians)
    expected = labels(whole)
    assert total[0] >= 15  # two trees, six arrays with their stamps, the alignment
    work, _ = make_work(tmp_path / "killed")
    for die_at in range(1, total[0] + 1):
        shutil.rmtree(work.exp(".align.partial"), ignore_errors=True)  # else a run has fewer renames than `total`
        with pytest.MonkeyPatch.context() as patch:
            renames(patch, die_at)
            with pytest.raises(Killed):
                align(CONFIG, work, Gaussians)
        if die_at % 5 == 0 or die_at == total[0]:
            assert align(CONFIG, work, Gaussians).made
            assert_same(labels(work), expected)
            (work.exp("align") / STAMP).unlink()  # so that it is made again, over what is there


def test_killed_again_and_again_it_gets_done(tmp_path: Path) -> None:
    whole, _ = make_work(tmp_path / "whole")
    align(CONFIG, whole, Gaussians)
    work, _ = make_work(tmp_path / "killed")
    for _ in range(30):  # more often than there are files in exp/.align.partial
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            renames(patch, 2)  # so each run gets one file further, until the trees are all that is left
            align(CONFIG, work, Gaussians)
    assert len(list(work.exp(".align.partial").glob("*.npz"))) == 1 + len(SETS)  # the flat start, and a block a set
    assert align(CONFIG, work, Gaussians).made
    assert_same(labels(work), labels(whole))


def test_blocks_and_rounds_that_are_done_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after its first round and in the middle of the training set, it goes on there, to the same end."""
    monkeypatch.setattr(set_alignment, "BLOCK", 7)
    whole, _ = make_work(tmp_path / "whole")
    align(CONFIG, whole, Gaussians)
    work, _ = make_work(tmp_path / "killed")
    rounds: list[int] = []
    asked: list[int] = []

    class Counting(Gaussians):
        die_in_round = 2

        def fit(self, frames: np.ndarray, states: np.ndarray, *, epochs: int) -> None:
            rounds.append(1)
            if len(rounds) == self.die_in_round:
                raise Killed
            super().fit(frames, states, epochs=epochs)

        def log_posteriors(self, store: FrameStore, utterances: Sequence[int]) -> list[np.ndarray]:
            asked.extend(utterances)
            return super().log_posteriors(store, utterances)

    with pytest.raises(Killed):
        align(CONFIG, work, Counting)
    assert len(rounds) == 2

    Counting.die_in_round = 0
    real, blocks = set_alignment._align_block, []

    def dying(store: FrameStore, graphs: dict[int, Any], *rest: Any) -> Any:
        blocks.append(min(graphs))
        if len(blocks) == 4:
            raise Killed
        return real(store, graphs, *rest)

    monkeypatch.setattr(set_alignment, "_align_block", dying)
    with pytest.raises(Killed):
        align(CONFIG, work, Counting)
    assert len(rounds) == 2 + CONFIG.alignment.rounds - 1  # the first round was not done again
    assert blocks == [0, 7, 14, 21]
    asked.clear()
    assert align(CONFIG, work, Counting).made
    assert blocks[4:8] == [21, 28, 35, 0]  # the rest of training, then dev
    assert len(rounds) == 2 + CONFIG.alignment.rounds - 1 and min(asked[:19]) == 21
    assert_same(labels(work), labels(whole))
    assert not list(work.exp("align").parent.glob(".align*"))


def test_what_another_setting_left_half_done_is_not_used(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)

    class Dying(Gaussians):
        def log_posteriors(self, store: FrameStore, utterances: Sequence[int]) -> list[np.ndarray]:
            if "dev" in str(store.folder):
                raise Killed
            return super().log_posteriors(store, utterances)

    with pytest.raises(Killed):
        align(CONFIG, work, Dying)
    fewer = dataclasses.replace(CONFIG, alignment=dataclasses.replace(CONFIG.alignment, rounds=2))
    align(fewer, work, Gaussians)
    fresh, _ = make_work(tmp_path / "fresh")
    align(fewer, fresh, Gaussians)
    assert_same(labels(work), labels(fresh))


def changed(**settings: Any) -> Config:
    return dataclasses.replace(CONFIG, alignment=dataclasses.replace(CONFIG.alignment, **settings))


def test_phases_change_times_and_no_label(tmp_path: Path) -> None:
    one, _ = make_work(tmp_path / "one")
    four, _ = make_work(tmp_path / "four")
    align(CONFIG, one, Gaussians)
    align(changed(phases=4), four, Gaussians)
    assert_same(labels(one), labels(four))
    for name in SETS:
        by_frame, finer = list(read_times(one, name)), list(read_times(four, name))
        assert [times.utterance for times in by_frame] == [times.utterance for times in finer]
        pairs = [pair for one, other in zip(by_frame, finer, strict=True)
                 for pair in zip(one.phones, other.phones, strict=True)]  # fmt: skip
        assert all(a.label == b.label and b.start < b.end for a, b in pairs)
        moved = np.array([b.start - a.start for a, b in pairs])
        assert np.abs(moved).max() < 0.05 and (np.abs(moved) > 1e-4).mean() > 0.3
    # the phases are a setting: without them the times are made anew
    assert align(CONFIG, four, Gaussians).made and list(read_times(four, "dev")) == list(read_times(one, "dev"))


def test_linear_rounds_come_first_and_are_gone_on_from(tmp_path: Path) -> None:
    config = changed(linear_rounds=3, rounds=2, phases=2)
    whole, truth = make_work(tmp_path / "whole")
    align(config, whole, Gaussians)
    found = labels(whole)
    assert (found["train states_monophone"] == truth["train"]).mean() > 0.95
    work, _ = make_work(tmp_path / "killed")
    for _ in range(20):  # a rename further with each run: after each round, and each block of each phase
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            renames(patch, 2)
            align(config, work, Gaussians)
    assert align(config, work, Gaussians).made
    assert_same(labels(work), found)
    assert list(read_times(work, "test")) == list(read_times(whole, "test"))


def test_the_flat_start_may_learn_from_all_sets(tmp_path: Path) -> None:
    """The tree and what is counted stay those of the training set."""
    seen: list[int] = []

    class Watched(Gaussians):
        def fit(self, frames: np.ndarray, states: np.ndarray, *, epochs: int) -> None:
            seen.append(len(frames))
            super().fit(frames, states, epochs=epochs)

    work, truth = make_work(tmp_path)
    align(changed(learn_from="all"), work, Watched)
    assert set(seen) == {sum(len(states) for states in truth.values())}
    assert all((labels(work)[f"{name} states_monophone"] == truth[name]).mean() > 0.9 for name in SETS)
    assert read_tree(work.exp("tree")).counts.sum() == len(truth["train"])
    with pytest.raises(UserError, match="with labels: manual leave it out"):
        align(changed(learn_from="all", labels="manual"), work, Gaussians)


def test_settings_that_are_off_leave_older_alignments_as_they_are(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)
    align(CONFIG, work, Gaussians)
    stamp = read_stamp(work.exp("align"))
    assert stamp is not None and not {"linear_rounds", "phases", "learn_from"} & stamp["settings"].keys()
    assert align(changed(linear_rounds=1), work, Gaussians).made
