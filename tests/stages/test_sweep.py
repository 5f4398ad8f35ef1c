"""A sweep over settings: every point once, nothing twice, and what the grid leaves alone stays as it was."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from asr_kd.acoustic.model_files import load_model
from asr_kd.cli import main
from asr_kd.errors import UserError
from asr_kd.report.sweep_figure import SweepRow
from asr_kd.stages.sweep import SweepResult, _link, default_systems, markdown, parse_grid, points_of
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import from_mapping, load_config

from ..recipe import CONFIG, arguments, finished_recipe, make_recipe

DISTILLED = "systems.distilled.targets"


def test_values_are_read_as_numbers_words_and_nothing():
    entries = {
        f"{DISTILLED}.temperature": "1,2.5",
        "systems.direct.training.learning_rate": "1e-3",
        f"{DISTILLED}.mean": "geometric",
        "systems.distilled.targets": "null,0.1",
    }
    grid = parse_grid([f"{key}={values}" for key, values in entries.items()])
    assert list(grid.values()) == [[1, 2.5], [0.001], ["geometric"], [None, 0.1]]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([f"{DISTILLED}.temperature"], "expected KEY=VALUE"),
        ([f"{DISTILLED}.temperature="], "expected KEY=VALUE"),
        (["alignment.leaves=3"], "alignment.leaves cannot be swept; keys begin with systems or decoding"),
        ([f"{DISTILLED}.temperature=[1"], f"--grid {DISTILLED}.temperature: this is not YAML"),
        (["systems.teacher.members=1", "systems.teacher.members=2"], "systems.teacher.members appears twice"),
        (["systems.teacher.members=1,2,1"], "systems.teacher.members has the value 1 twice; leave one out"),
    ],
)
def test_a_bad_grid_is_one_sentence(entries, message):
    with pytest.raises(UserError, match=message):
        parse_grid(entries)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("systems.direct.width=3", "unknown key 'width'"),
        (f"{DISTILLED}.soft_weight=2", "soft_weight must be"),
        ("systems.direct.targets.soft_weight=0.3", "what is above it is not set"),
        ("systems.nobody.seeds=3", "no setting 'systems.nobody.seeds'"),
    ],
)
def test_every_point_is_checked_before_any_is_run(entry, message):
    with pytest.raises(UserError, match=message):
        points_of(from_mapping(Config, CONFIG, "test"), parse_grid([entry]))


def test_all_combinations_the_last_key_fastest():
    config = from_mapping(Config, CONFIG, "test")
    points = points_of(config, parse_grid(["systems.direct.seeds=1,2", f"{DISTILLED}.soft_weight=0.5,1"]))
    assert [tuple(point.values.values()) for point in points] == [(1, 0.5), (1, 1), (2, 0.5), (2, 1)]
    assert [point.config.systems["direct"].seeds for point in points] == [1, 1, 2, 2]
    assert len({point.name for point in points}) == 4


def test_a_folder_in_the_place_of_a_link_is_named(tmp_path: Path) -> None:
    for _ in range(2):
        _link(tmp_path / "a", tmp_path / "target")
    _link(tmp_path / "a", tmp_path / "other")
    assert (tmp_path / "a").readlink() == Path("other")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match=r"b must be a link to .*target, but a folder of this name is there"):
        _link(tmp_path / "b", tmp_path / "target")


def test_the_rate_of_characters_or_of_phones_stands_beside_that_of_words() -> None:
    measured = {"system": "direct", "role": "direct", "parameters": 1200, "seeds": 1, "frame_accuracy": 0.5,
                "frame_accuracy_each": [0.5], "cross_entropy": 1.0}  # fmt: skip
    decoded = {"wer": {"test": 0.5}, "wer_per_seed": {"test": [0.5]}, "rtf": 0.01}
    rows = [SweepRow({"k": 1}, **measured), SweepRow({"k": 1}, **measured, **decoded),
            SweepRow({"k": 1}, **measured, **decoded, cer={"test": 0.125}),
            SweepRow({"k": 1}, **measured, **decoded, per={"test": 0.25}, per_per_seed={"test": [0.25]})]  # fmt: skip
    tables = [markdown(SweepResult(Path("sweep"), ("k",), [row], [])).splitlines() for row in rows]
    assert tables[0][0].endswith("| dev cross-entropy |") and tables[1][0].endswith("| WER test | RTF |")
    assert tables[2][0].endswith("| WER test | CER test | RTF |")
    assert tables[2][2].endswith("| 50.00% | 12.50% | 0.010 |")
    assert tables[3][0].endswith("| WER test | PER test | RTF |") and tables[3][2].endswith("| 25.00% | 0.010 |")
    written = [row.as_mapping().keys() - {"k"} - measured.keys() for row in rows]
    assert written == [set(), {"unit", *decoded}, {"unit", "cer", *decoded}, {"unit", "per", "per_per_seed", *decoded}]


def test_the_best_point_is_the_one_with_the_fewest_word_errors_where_dev_was_decoded() -> None:
    """A sweep over the search changes nothing else."""
    measured = {"system": "direct", "role": "direct", "parameters": 1200, "seeds": 1, "frame_accuracy_each": [0.5],
                "cross_entropy": 1.0, "wer_per_seed": {"dev": [0.5]}, "rtf": 0.01}  # fmt: skip
    rows = [SweepRow({"beam": beam}, **measured, frame_accuracy=accuracy, wer={"dev": rate})
            for beam, accuracy, rate in ((5, 0.7, 0.4), (20, 0.7, 0.15), (10, 0.8, 0.3))]  # fmt: skip
    assert "best on dev: direct with beam 20" in str(SweepResult(Path("sweep"), ("beam",), rows, []))
    undecoded = [replace(row, wer={}) for row in rows]
    assert "best on dev: direct with beam 10" in str(SweepResult(Path("sweep"), ("beam",), undecoded, []))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A work folder as it is before soft targets are made."""
    config, root = finished_recipe(tmp_path_factory), tmp_path_factory.mktemp("sweep") / "work"
    later = ("targets", "direct", "distilled", "monophone", "graph*", "phone_*", "decode", "report")
    shutil.copytree(config.parent.parent, root, ignore=shutil.ignore_patterns(*later))
    return root / "conf" / config.name


def sweep(config: Path, *options: str) -> str:
    result = CliRunner().invoke(main, arguments(config, ["sweep", "--nj", "1", *options]), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def times(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_distilled_systems_are_swept_by_default() -> None:
    config = from_mapping(Config, CONFIG, "test")
    assert default_systems(config) == ("distilled",)
    assert default_systems(replace(config, compare=())) == tuple(CONFIG["systems"])


def test_points_share_what_they_can_and_are_made_once(trained: Path) -> None:
    root = trained.parent.parent
    teacher = times(root / "exp" / "teacher")
    grid = ["--grid", f"{DISTILLED}.temperature=1,3", "--grid", f"{DISTILLED}.soft_weight=0.5,1"]
    output = sweep(trained, *grid, "--name", "two")
    rows = json.loads((root / "exp/sweep/two/report/sweep.json").read_text())
    assert len(rows) == 4 and {row["system"] for row in rows} == {"distilled"}
    assert all(0 < row["frame_accuracy"] <= 1 and len(row["frame_accuracy_each"]) == 2 for row in rows)
    assert len({row["cross_entropy"] for row in rows}) == 4  # each point did train with its own settings
    assert "best on dev: distilled with" in output
    assert (root / "exp/sweep/two/report/sweep.svg").read_text().startswith("<svg")
    assert len(list((root / "exp/sweep/two/shared").iterdir())) == 2  # one store for each temperature
    assert times(root / "exp" / "teacher") == teacher
    assert not (root / "exp" / "distilled").exists() and not (root / "exp" / "targets").exists()

    other = ["sweep", "--nj", "1", "--grid", "systems.direct.training.epochs=1", "--name", "two"]
    result = CliRunner().invoke(main, arguments(trained, other))
    assert result.exit_code == 2 and "exp/sweep/two has the results of another sweep, over systems.dis" in result.output

    before = times(root / "exp/sweep/two/points")
    sweep(trained, *grid[:1], f"{DISTILLED}.temperature=1,3,4", *grid[2:], "--name", "two", "--nj", "2")
    after = times(root / "exp/sweep/two/points")
    assert {name: after[name] for name in before} == before  # only what is new was made
    assert len(json.loads((root / "exp/sweep/two/report/sweep.json").read_text())) == 6


def test_a_point_that_diverges_is_named_and_the_others_count(trained: Path) -> None:
    key = "systems.direct.training.learning_rate"
    grid = ["--grid", f"{key}=1.0e+30,5.0e-3", "--system", "direct", "--name", "rates"]
    output = sweep(trained, *grid)
    report = trained.parent.parent / "exp/sweep/rates/report"
    (row,) = json.loads((report / "sweep.json").read_text())
    assert row[key] == 5e-3
    for text in (output, (report / "sweep.md").read_text()):
        assert f"Training diverged: direct at {key}=1e+30." in text
    with pytest.raises(AssertionError, match="training diverged at every point"):
        sweep(trained, "--grid", f"{key}=1.0e+30,2.0e+30", "--system", "direct", "--name", "none")


def test_direct_models_are_reused_where_they_are_trained_as_the_teacher_is(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(trained.parent.parent, tmp_path / "work", ignore=shutil.ignore_patterns("sweep"))  # of other tests
    config, exp = tmp_path / "work" / "conf" / trained.name, tmp_path / "work" / "exp"
    settings = yaml.safe_load(config.read_text())
    teacher = settings["systems"]["teacher"]
    settings["systems"]["direct"] |= {"model": teacher["model"], "training": teacher["training"], "reuse": "teacher"}
    config.write_text(yaml.safe_dump(settings))
    before = times(exp / "teacher")
    key = "systems.direct.training.epochs"
    grid = ["--grid", f"{key}=3,1", "--system", "direct", "--name", "reused"]
    with caplog.at_level(logging.INFO, logger="asr_kd"):
        sweep(config, *grid)
    assert f"{key}=1: direct reuses no models" in caplog.text and f"{key}=3: direct reuses" not in caplog.text
    assert times(exp / "teacher") == before
    shutil.rmtree(exp / "teacher")
    shutil.rmtree(exp / "sweep" / "reused")
    sweep(config, *grid)  # trains the teacher that is missing
    alike, unlike = (exp / "sweep/reused/points" / f"{key}={n}" / "exp" / "direct" for n in (3, 1))
    first = [(folder / "member_0.safetensors").read_bytes() for folder in (alike, exp / "teacher", unlike)]
    assert first[0] == first[1] != first[2]


def test_sizes_are_decoded_and_drawn(trained: Path) -> None:
    sweep(
        trained, "--grid", "systems.direct.model.width=8,16", "--grid", "systems.direct.seeds=1", "--system", "direct",
        "--name", "size",
        "--decode", "dev", "--decode", "test",
    )  # fmt: skip
    rows = json.loads((trained.parent.parent / "exp/sweep/size/report/sweep.json").read_text())
    assert [(row["systems.direct.model.width"], row["system"]) for row in rows] == [(8, "direct"), (16, "direct")]
    assert rows[0]["parameters"] < rows[1]["parameters"]
    for row in rows:
        assert set(row["wer"]) == set(row["per"]) == {"dev", "test"} and row["rtf"] > 0
    head = "| WER dev | WER test | PER dev | PER test | RTF |"
    assert head in (trained.parent.parent / "exp/sweep/size/report/sweep.md").read_text()
    assert all(row["seeds"] == 1 for row in rows)
    figure = (trained.parent.parent / "exp/sweep/size/report/sweep.svg").read_text()
    assert all(
        f"{title} on " in figure
        for title in ("Frame accuracy", "Word error rate", "Phone error rate", "Real-time factor")
    )
    assert "seeds 1" not in figure  # what is the same everywhere is not in the legend
    exp = trained.parent.parent / "exp"
    assert not (exp / "decode").exists() and not (exp / "direct").exists()


def test_an_ensemble_of_systems_is_joined_from_what_the_points_share(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent.parent, tmp_path / "work", ignore=shutil.ignore_patterns("sweep"))
    config, exp = tmp_path / "work" / "conf" / trained.name, tmp_path / "work" / "exp"
    settings = yaml.safe_load(config.read_text())
    systems = settings["systems"]
    systems["tdnn"] = {"model": {"kind": "tdnn", "width": 8, "dilations": [1]}, "training": {"epochs": 1}}
    systems["kinds"] = {"members": ["teacher", "tdnn"]}
    systems["distilled"] |= {"targets": {"from": "kinds"}, "seeds": 1}
    config.write_text(yaml.safe_dump(settings))
    before = times(exp / "teacher")
    sweep(
        config, "--grid", "systems.tdnn.model.width=8,12", "--system", "distilled", "--system", "kinds", "--name", "s"
    )
    rows = json.loads((exp / "sweep/s/report/sweep.json").read_text())
    assert [row["system"] for row in rows] == ["distilled", "kinds"] * 2
    assert rows[1]["parameters"] < rows[3]["parameters"] and rows[1]["cross_entropy"] != rows[3]["cross_entropy"]
    assert all(len(row["frame_accuracy_each"]) == row["seeds"] == 3 for row in rows[1::2])
    models = [load_model(exp / "sweep/s/points" / f"systems.tdnn.model.width={n}" / "exp/kinds") for n in (8, 12)]
    assert [model.select_members([2]).settings.width for model in models] == [8, 12]
    assert times(exp / "teacher") == before


def test_another_graph_is_not_put_in_the_place_of_the_recipes(trained: Path) -> None:
    own = load_config(trained).decoding.silence_probability
    grid = ["--grid", f"decoding.silence_probability={own},0.05", "--grid", "systems.direct.training.epochs=1"]
    sweep(trained, *grid, "--name", "silence", "--system", "direct", "--decode", "dev")
    exp = trained.parent.parent / "exp"
    graph = (exp / "graph" / "stamp.json").read_bytes()
    (other,) = (exp / "sweep/silence/shared").glob("graph-*")
    stamps = [json.loads(text) for text in (graph, (other / "stamp.json").read_text())]
    assert [stamp["settings"].get("silence_probability", own) for stamp in stamps] == [own, 0.05]
    # the graph of phones depends on no setting: all points share the recipe's
    assert not list((exp / "sweep/silence/shared").glob("phone*")) and (exp / "phone_graph" / "graph.npz").exists()


def test_a_sweep_before_its_stages_says_what_to_run(tmp_path: Path) -> None:
    config = make_recipe(tmp_path)
    result = CliRunner().invoke(main, arguments(config, ["sweep", "--grid", "systems.direct.seeds=1"]))
    assert result.exit_code == 2 and "asr-kd align" in result.output
    result = CliRunner().invoke(
        main, arguments(config, ["sweep", "--grid", "systems.direct.seeds=1", "--decode", "tset"])
    )
    assert result.exit_code == 2 and "there is no set 'tset' to score" in result.output
    assert load_config(config).systems["direct"].seeds == 2
