"""Shards of a recipe that has run are timed, and the hours of another one follow."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from asr_kd.cli import main
from asr_kd.corpora.settings import LibriSpeechConfig, UntranscribedConfig
from asr_kd.distillation.settings import TargetsConfig
from asr_kd.errors import UserError
from asr_kd.frames.features import FeaturesConfig
from asr_kd.stages import plan_workers as stage
from asr_kd.stages.plan_models import aligner_plan, plans_of
from asr_kd.stages.plan_workers import Search, ShardRates, WorkersPlan, plan_workers
from asr_kd.workspace.config import Config, SystemConfig
from asr_kd.workspace.work import Workspace

from ..recipe import finished_recipe, make_recipe

CONFIG = Config(
    corpus=LibriSpeechConfig(),
    sets={"train": ("train-clean-100",), "dev": ("dev-clean",), "test": ("test-clean",)},
    features=FeaturesConfig(speeds=(1.0, 0.5)),
    systems={
        "teacher": SystemConfig(members=4),
        "distilled": SystemConfig(seeds=3, targets=TargetsConfig(source=("teacher",))),
        "again": SystemConfig(targets=TargetsConfig(source=("teacher",))),
    },
)


def hours_of(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rates: ShardRates) -> WorkersPlan:
    monkeypatch.setattr(stage, "measure", lambda config, work: rates)
    return plan_workers(config, Workspace(tmp_path, tmp_path / "conf.yaml"), [1, 4])


def test_hours_are_rates_times_speech(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    targets = CONFIG.systems["distilled"].stored_targets
    assert targets is not None
    flops = {plan.name: plan.forward_flops for plan in plans_of(CONFIG)}
    search = {"words": Search(0.1, 0.02), "phones": Search(0.01, 0.002)}
    rates = ShardRates(0.01, 1e9, 2e9, {"dnn": 4e9}, search)
    plan = hours_of(CONFIG, monkeypatch, tmp_path, rates)
    train, dev, scored = 100.59, 5.39, 5.39 + 5.40
    nets = sum(flops.values()) * 100 / 4e9 * (dev + scored)  # on dev twice: for the scales, then with the chosen ones
    expected = {
        "features": 0.01 * (train + scored / 2),  # both copies of train, one of the others
        "align": aligner_plan(CONFIG).forward_flops * 100 / 1e9 * (3 * train + scored),
        f"soft-targets {targets.name}": flops["teacher"] * 100 / 2e9 * 3 * train,  # once for both systems
        # the four of the ensemble answer together, three seeds do not: five searches
        "decode words": 5 * (dev * 0.1 + scored * 0.02) + nets,
        "decode phones": 5 * (dev * 0.01 + scored * 0.002) + nets,
    }
    assert plan.hours.keys() == expected.keys()
    for name, hours in expected.items():
        assert plan.hours[name] == pytest.approx(hours, rel=1e-2), name
    lines = str(WorkersPlan([1, 4], {"align": 0.313}, "x")).splitlines()
    assert lines[2].split() == ["align", "0.313", "h", "0.313", "h", "4.7", "min"]  # 0.313 h by four


def test_targets_of_untranscribed_speech_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    extra = TargetsConfig(source=("teacher",), extra=("more",))
    systems = {**CONFIG.systems, "distilled": SystemConfig(targets=extra)}
    more = {"more": UntranscribedConfig(parts=("train-clean-360",))}
    config = replace(CONFIG, systems=systems, untranscribed=more)
    name = systems["distilled"].stored_targets.name  # type: ignore[union-attr]
    flops = {plan.name: plan.forward_flops for plan in plans_of(config)}
    plan = hours_of(config, monkeypatch, tmp_path, ShardRates(0.01, None, 1e9, {}, {}))
    assert plan.hours[f"soft-targets {name} of more"] == pytest.approx(
        flops["teacher"] * 100 / 1e9 * 3 * 363.6, rel=1e-2
    )
    assert plan.hours["align"] is None and plan.hours["decode words"] is None
    assert "has not got so far: align, " in str(plan)


@pytest.mark.slow
def test_a_recipe_that_has_run_is_timed_and_stays_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    finished = finished_recipe(tmp_path_factory)
    root = finished.parent.parent
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.suffix != ".log"}
    runner = CliRunner()
    result = runner.invoke(main, ["plan", "--config", str(finished), "--workers", "1,2"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if " min" in line]
    assert [row.split("  ")[0] for row in rows][:2] == ["features", "align"]
    assert any(row.startswith("decode phones") for row in rows) and rows[-1].startswith("together")
    assert "not known" not in result.output
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.suffix != ".log"}
    assert before == after

    other = make_recipe(tmp_path / "other")
    begun = ["plan", "--config", str(other), "--workers", "4"]
    assert runner.invoke(main, ["prepare", "--corpus-dir", str(tmp_path / "other" / "corpus"), "--config", str(other)])
    alone = runner.invoke(main, begun)
    assert alone.exit_code == 0 and "has not got so far: align, " in alone.output
    like = runner.invoke(main, [*begun, "--like", str(finished)])
    assert like.exit_code == 0 and "not known" not in like.output and str(finished) in like.output
    shutil.rmtree(tmp_path / "other" / "data")
    nothing = runner.invoke(main, begun)
    assert nothing.exit_code == 2 and "how much speech there is" in nothing.output


@pytest.mark.parametrize("words", [["--workers", "0"], ["--workers", "1,two"], ["--like", "x.yaml"]])
def test_wrong_words_are_one_sentence(tmp_path: Path, words: list[str]) -> None:
    result = CliRunner().invoke(main, ["plan", "--config", str(make_recipe(tmp_path)), *words])
    assert result.exit_code == 2 and "Traceback" not in result.output


def test_where_no_stage_has_run_another_recipe_is_advised(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name a recipe that has, such as a smaller one, as --like"):
        plan_workers(CONFIG, Workspace(tmp_path, tmp_path / "conf.yaml"), [1])
