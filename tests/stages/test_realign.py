"""Realignment in the stage `align`: rounds are kept, resumed after a kill, and run again only where they must be."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from asr_kd.acoustic import training
from asr_kd.acoustic.divergence import DivergedError
from asr_kd.acoustic.settings import DnnConfig, TrainingConfig
from asr_kd.alignment import realignment
from asr_kd.alignment.settings import AlignmentConfig, RealignConfig
from asr_kd.alignment.tree import read_tree
from asr_kd.io.stamp import read_stamp
from asr_kd.stages.align import align
from asr_kd.workspace.config import Config, SystemConfig
from asr_kd.workspace.work import Workspace

from .test_align import SETS, Killed, assert_same, labels, make_work

REALIGN = RealignConfig(
    model=DnnConfig(layers=1, width=32, left_context=3, right_context=3),
    training=TrainingConfig(epochs=4, batch_size=64, learning_rate=5e-3),
)
CONFIG = Config(
    alignment=AlignmentConfig(rounds=4, leaves=14, min_count=30, batch_size=64, realign=REALIGN),
    systems={"control": SystemConfig(tree="monophone")},
)


def changed(**settings: Any) -> Config:
    """With other settings of realignment."""
    realign = dataclasses.replace(REALIGN, **settings)
    return dataclasses.replace(CONFIG, alignment=dataclasses.replace(CONFIG.alignment, realign=realign))


def digest(folder: Path) -> str:
    stamp = read_stamp(folder)
    assert stamp is not None
    return str(stamp["digest"])


def test_every_set_is_aligned_by_the_last_round(tmp_path: Path) -> None:
    work, truth = make_work(tmp_path)
    result = align(CONFIG, work)
    assert result.ran and not align(CONFIG, work).ran
    assert read_tree(work.aligner(1)).num_senones == 14
    actual = labels(work)
    for name in SETS:
        assert (actual[f"{name} senones_monophone"] == truth[name]).mean() > 0.9, name
        stamp = read_stamp(work.exp("align") / name)
        assert stamp is not None and stamp["inputs"]["aligner"] == digest(work.aligner(1))
    # as many frames, and the time of both aligners, are in the totals
    seconds = [read_stamp(work.aligner(number))["metadata"]["seconds"] for number in (0, 1)]  # type: ignore[index]
    hours = sum(len(actual[f"{name} contexts"]) for name in SETS) * 0.01 / 3600
    assert result.seconds_per_hour * hours >= sum(seconds) - 0.2


def test_what_does_not_depend_on_a_change_stays(tmp_path: Path) -> None:
    work, _ = make_work(tmp_path)
    align(CONFIG, work)
    first, second = (digest(work.aligner(number)) for number in (0, 1))
    align(changed(rounds=2), work)
    assert (digest(work.aligner(0)), digest(work.aligner(1))) == (first, second)
    assert work.aligner(2).exists()
    align(changed(training=dataclasses.replace(REALIGN.training, epochs=2)), work)
    assert digest(work.aligner(0)) == first and digest(work.aligner(1)) != second
    before = labels(work)
    align(changed(rounds=0), work)
    assert digest(work.aligner(0)) == first
    with pytest.raises(AssertionError):
        assert_same(before, labels(work))


def test_killed_anywhere_the_next_run_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of what is aligned first, in the net's second epoch, and before its aligner is in place."""
    monkeypatch.setattr(realignment, "_BLOCK", 13)
    whole, _ = make_work(tmp_path / "whole")
    align(CONFIG, whole)
    work, _ = make_work(tmp_path / "killed")
    aligned: list[int] = []
    real_block, real_step = realignment.align_block, training._step
    steps: list[int] = []

    def dying_block(data: Any, utterances: range, **options: Any) -> Any:
        aligned.append(utterances.start)
        if len(aligned) == 3:
            raise Killed
        return real_block(data, utterances, **options)

    def dying_step(state: Any, *rest: Any) -> None:
        # the net of realignment: the flat start's has a window of three frames
        if state.model.context.left == 3:
            steps.append(state.progress.epoch)
            if state.progress.epoch == 1 and steps.count(1) == 2:
                raise Killed
        real_step(state, *rest)

    monkeypatch.setattr(realignment, "align_block", dying_block)
    with pytest.raises(Killed):
        align(CONFIG, work)
    monkeypatch.setattr(training, "_step", dying_step)
    with pytest.raises(Killed):
        align(CONFIG, work)
    assert aligned == [0, 13, 26, 26, 39]  # what was aligned is not aligned again
    before = len(steps)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("asr_kd.alignment.aligner.Aligner.save", lambda *_: (_ for _ in ()).throw(Killed))
        align(CONFIG, work)
    assert steps[:before].count(0) > 2 and 0 not in steps[before:]  # nor is the net's first epoch done again
    assert align(CONFIG, work).ran
    assert_same(labels(work), labels(whole))
    assert sorted(path.name for path in work.aligner(1).iterdir()) == sorted(
        path.name for path in whole.aligner(1).iterdir()
    )
    assert not list(work.root.rglob(".*"))


def test_no_realignment_within_manual_times() -> None:
    assert CONFIG.alignment.realign_rounds == 1
    assert dataclasses.replace(CONFIG.alignment, labels="manual").realign_rounds == 0


def test_a_net_of_discriminants_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"model\.lda_dims must be 0"):
        RealignConfig(model=DnnConfig(lda_dims=8))


def test_a_rate_that_diverges_says_which_to_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, _ = make_work(tmp_path)
    wild = dataclasses.replace(REALIGN.training, optimizer="sgd", learning_rate=1e18, precision="float32")
    with pytest.raises(DivergedError, match=r"realign/1.*lower alignment\.realign\.training\.learning_rate"):
        align(changed(training=wild), work)


def test_the_tree_of_a_round_is_that_of_its_alignment(tmp_path: Path) -> None:
    work: Workspace
    work, _ = make_work(tmp_path)
    align(CONFIG, work)
    tree = read_tree(work.aligner(1))
    assert tree.counts.sum() == len(labels(work)["train contexts"])
    priors = np.load(work.aligner(1) / "log_priors.npy")
    assert np.array_equal(priors, tree.log_priors())
