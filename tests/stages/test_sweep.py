"""A sweep over settings: every point once, nothing twice, and what is not the grid's business stays as it was."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from asr_kd.cli import main
from asr_kd.errors import UserError
from asr_kd.stages.sweep import parse_grid, points_of
from asr_kd.workspace.config import Config, StudentConfig, load_config

from ..test_pipeline import STAGES, arguments, make_recipe, run


def test_values_are_read_as_numbers_words_and_nothing():
    grid = parse_grid(
        ["soft_targets.temperature=1,2.5", "student.direct.learning_rate=1e-3", "soft_targets.mean=geometric",
         "student.distilled.hidden_dropout=null,0.1"]
    )  # fmt: skip
    assert grid["soft_targets.temperature"] == [1, 2.5]
    assert grid["student.direct.learning_rate"] == [0.001]
    assert grid["soft_targets.mean"] == ["geometric"]
    assert grid["student.distilled.hidden_dropout"] == [None, 0.1]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["soft_targets.temperature"], "expected KEY=VALUE"),
        (["soft_targets.temperature="], "expected KEY=VALUE"),
        (["alignment.leaves=3"], "alignment.leaves cannot be swept; keys begin with teacher"),
        (["teacher.members=1", "teacher.members=2"], "teacher.members is there twice"),
    ],
)
def test_a_bad_grid_is_one_sentence(entries, message):
    with pytest.raises(UserError, match=message):
        parse_grid(entries)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("student.width=3", "unknown key 'width'"),
        ("student.distilled.soft_weight=2", "soft_weight must be"),
        ("small.seeds=3", "what is above it is not set"),
    ],
)
def test_every_point_is_checked_before_any_is_run(entry, message):
    with pytest.raises(UserError, match=message):
        points_of(Config(), parse_grid([entry]))


def test_all_combinations_the_last_key_fastest():
    config = replace(Config(), small=StudentConfig())
    points = points_of(config, parse_grid(["small.seeds=1,2", "student.distilled.soft_weight=0.5,1"]))
    assert [tuple(point.values.values()) for point in points] == [(1, 0.5), (1, 1), (2, 0.5), (2, 1)]
    assert [point.config.small.seeds for point in points] == [1, 1, 2, 2]
    assert len({point.name for point in points}) == 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    config = make_recipe(tmp_path_factory.mktemp("sweep"))
    run(config, STAGES[:4])  # up to the teachers
    return config


def sweep(config: Path, *options: str) -> str:
    result = CliRunner().invoke(main, arguments(config, ["sweep", *options]), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def times(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def test_points_share_what_they_can_and_are_made_once(trained: Path) -> None:
    root = trained.parent.parent
    teacher = times(root / "exp" / "teacher")
    grid = ["--grid", "soft_targets.temperature=1,3", "--grid", "student.distilled.soft_weight=0.5,1"]
    told = sweep(trained, *grid, "--name", "two")
    rows = json.loads((root / "exp/sweep/two/report/sweep.json").read_text())
    assert len(rows) == 4 and {row["system"] for row in rows} == {"distilled"}
    assert all(0 < row["frame_accuracy"] <= 1 and len(row["frame_accuracy_each"]) == 2 for row in rows)
    assert len({row["cross_entropy"] for row in rows}) == 4  # each point did train with its own settings
    assert "best on dev: distilled with" in told
    assert (root / "exp/sweep/two/report/sweep.svg").read_text().startswith("<svg")
    assert len(list((root / "exp/sweep/two/shared").iterdir())) == 2  # one store for each temperature
    assert times(root / "exp" / "teacher") == teacher
    assert not (root / "exp" / "student").exists() and not (root / "exp" / "soft_targets").exists()

    before = times(root / "exp/sweep/two/points")
    sweep(trained, *grid[:1], "soft_targets.temperature=1,3,4", *grid[2:], "--name", "two")
    after = times(root / "exp/sweep/two/points")
    assert {name: after[name] for name in before} == before  # only what is new was made
    assert len(json.loads((root / "exp/sweep/two/report/sweep.json").read_text())) == 6


def test_direct_nets_are_taken_where_they_are_trained_as_the_ensemble_is(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent.parent, tmp_path / "work", ignore=shutil.ignore_patterns("sweep"))  # of other tests
    config, exp = tmp_path / "work" / "conf" / trained.name, tmp_path / "work" / "exp"
    settings = yaml.safe_load(config.read_text())
    teacher = settings["teacher"]
    settings["student"] |= {"model": teacher["model"], "direct": teacher["training"], "direct_of_ensemble": True}
    config.write_text(yaml.safe_dump(settings))
    made = times(exp / "teacher")
    grid = ["--grid", "student.direct.epochs=3,1", "--system", "direct", "--name", "taken"]
    sweep(config, *grid)
    assert times(exp / "teacher") == made
    shutil.rmtree(exp / "teacher")
    shutil.rmtree(exp / "sweep" / "taken")
    sweep(config, *grid)  # makes the ensemble that there is not
    alike, unlike = (exp / "sweep/taken/points" / f"student.direct.epochs={n}" / "exp" / "baseline" for n in (3, 1))
    of_first = [(folder / "member_0.safetensors").read_bytes() for folder in (alike, exp / "teacher", unlike)]
    assert of_first[0] == of_first[1] != of_first[2]


def test_student_sizes_are_decoded_and_drawn(trained: Path) -> None:
    pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    sweep(
        trained, "--grid", "student.model.width=8,16", "--grid", "student.seeds=1", "--system", "direct",
        "--system", "distilled", "--name", "size",
        "--decode", "dev", "--decode", "test",
    )  # fmt: skip
    rows = json.loads((trained.parent.parent / "exp/sweep/size/report/sweep.json").read_text())
    assert [(row["student.model.width"], row["system"]) for row in rows] == [
        (8, "direct"), (8, "distilled"), (16, "direct"), (16, "distilled"),
    ]  # fmt: skip
    assert rows[0]["parameters"] == rows[1]["parameters"] < rows[2]["parameters"]
    for row in rows:
        assert set(row["wer"]) == {"dev", "test"} and row["rtf"] > 0
    assert "| WER dev | WER test | RTF |" in (trained.parent.parent / "exp/sweep/size/report/sweep.md").read_text()
    assert all(row["seeds"] == 1 for row in rows)
    figure = (trained.parent.parent / "exp/sweep/size/report/sweep.svg").read_text()
    assert all(f"{title} on " in figure for title in ("Frame accuracy", "Word error rate", "Real-time factor"))
    assert "seeds 1" not in figure  # what is the same everywhere is not in the legend
    exp = trained.parent.parent / "exp"
    assert not list(exp.glob("decode_*")) and not (exp / "student").exists()


def test_another_graph_is_not_put_in_the_place_of_the_recipes(trained: Path) -> None:
    pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    own = load_config(trained).decoding.silence_probability
    grid = ["--grid", f"decoding.silence_probability={own},0.05", "--grid", "student.direct.epochs=1"]
    sweep(trained, *grid, "--name", "silence", "--system", "direct", "--decode", "dev")
    exp = trained.parent.parent / "exp"
    stamp = json.loads((exp / "graph" / "stamp.json").read_text())
    assert stamp["settings"]["silence_probability"] == own
    (other,) = (exp / "sweep/silence/shared").glob("graph-*")
    assert json.loads((other / "stamp.json").read_text())["settings"]["silence_probability"] == 0.05


def test_a_sweep_before_its_stages_says_what_to_run(tmp_path: Path) -> None:
    config = make_recipe(tmp_path)
    result = CliRunner().invoke(main, arguments(config, ["sweep", "--grid", "student.seeds=1"]))
    assert result.exit_code == 2 and "asr-kd align" in result.output
    assert load_config(config).student.seeds == 2
