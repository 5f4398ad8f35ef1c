"""Few data: the share is of whole utterances, is the same for every system, and the report says what the nets did."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from asr_kd.cli import main
from asr_kd.frames.store import write_store
from asr_kd.io.stamp import read_stamp
from asr_kd.stages.train import share_of
from asr_kd.workspace.config import load_config

from ..test_pipeline import CONFIG, STAGES, arguments, make_recipe, run


def test_a_share_is_of_whole_utterances_with_their_copies_and_grows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    speeds = {"": 1.0, "_sp0.9": 0.9, "_sp1.1": 1.1}
    names = [f"dr_spock_{k}{suffix}" for suffix in speeds for k in range(20)]
    arrays = [(name, rng.normal(size=(3 + k % 4, 2)).astype(np.float32)) for k, name in enumerate(names)]
    store = write_store(tmp_path / "s", arrays, speeds=[speed for speed in speeds.values() for _ in range(20)])
    assert share_of(store, 1.0, 1) is None
    before: set[str] = set()
    for share, expected in ((0.001, 1), (0.1, 2), (0.5, 10), (0.95, 19)):
        chosen = share_of(store, share, 1)
        assert chosen is not None
        parts = [chosen[a:b] for a, b in zip(store.offsets, store.offsets[1:], strict=False)]
        assert all(part.all() or not part.any() for part in parts)
        seen = {name.split("_sp0")[0].split("_sp1")[0] for name, part in zip(names, parts, strict=True) if part.all()}
        assert len(seen) == expected and sum(part.all() for part in parts) == 3 * expected
        assert before <= seen
        before = seen
    assert not np.array_equal(share_of(store, 0.5, 1), share_of(store, 0.5, 2))


def test_all_hard_targets_may_be_the_ensembles_own_nets(tmp_path: Path) -> None:
    config = make_recipe(tmp_path)
    teacher, few = CONFIG["teacher"], {**CONFIG["student"], "share": 0.25}
    taken = {"model": teacher["model"], "direct": teacher["training"], "direct_of_ensemble": True}
    config.write_text(yaml.safe_dump({**CONFIG, "student": CONFIG["student"] | taken, "few": few | taken}))
    run(config, [*STAGES[:3], ["fewshot"]])
    rows = json.loads((tmp_path / "exp" / "fewshot" / "fewshot.json").read_text())
    folders = ("teacher", "baseline", "baseline_few")
    nets = {name: (tmp_path / "exp" / name / "member_0.safetensors").read_bytes() for name in folders}
    assert nets["baseline"] == nets["teacher"] != nets["baseline_few"]  # which saw only a share
    assert [(row["targets"], row["share"]) for row in rows] == [("hard", 0.25), ("soft", 0.25), ("hard", 1.0)]


def test_three_systems_one_table_and_nothing_twice(tmp_path: Path) -> None:
    config = make_recipe(tmp_path)
    few = {**CONFIG["student"], "share": 0.25, "direct": {**CONFIG["student"]["direct"], "epochs": 5}}
    config.write_text(yaml.safe_dump({**CONFIG, "few": few}))
    run(config, STAGES[:3])
    told = run(config, [["fewshot"]])[0]
    folder = tmp_path / "exp" / "fewshot"
    rows = json.loads((folder / "fewshot.json").read_text())
    assert [(row["targets"], row["share"]) for row in rows] == [("hard", 0.25), ("soft", 0.25), ("hard", 1.0)]
    assert [len(row["train_accuracy"]) for row in rows] == [5, 3, 3]
    assert all(0 < value <= 1 for row in rows for value in row["test_accuracy"])
    assert rows[0]["train_accuracy"] != rows[2]["train_accuracy"]
    assert "| hard | 25 % |" in told and (folder / "fewshot.svg").read_text().startswith("<svg")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "exp").rglob("*") if path.is_file()}
    run(config, [["fewshot"]])
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path]} <= {tmp_path / "exp/log/fewshot.log"}
    assert (read_stamp(tmp_path / "exp" / "baseline_few") or {})["metadata"]["members"] == 2


def test_shares_must_tell_few_from_all(tmp_path: Path) -> None:
    config = make_recipe(tmp_path)
    for few, student in ((1.0, 1.0), (0.5, 0.5)):
        config.write_text(yaml.safe_dump({**CONFIG, "few": {"share": few}, "student": {"share": student}}))
        result = CliRunner().invoke(main, arguments(config, ["fewshot"]))
        assert result.exit_code == 2 and "fewshot needs a share below 1 for few" in result.output


def test_the_recipes_fewshot_is_mini_with_few() -> None:
    conf = Path(__file__).parents[2] / "recipes" / "librispeech" / "conf"
    few = load_config(conf / "fewshot.yaml")
    assert few.few is not None and few.few.share == 0.03
    assert replace(few, few=None) == load_config(conf / "mini.yaml")


def test_without_the_section_it_says_so(tmp_path: Path) -> None:
    config = make_recipe(tmp_path)
    result = CliRunner().invoke(main, arguments(config, ["fewshot"]))
    assert result.exit_code == 2 and "the config has no section 'few'" in result.output


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_is_above_none_and_at_most_all(tmp_path: Path, share: float) -> None:
    config = make_recipe(tmp_path)
    config.write_text(yaml.safe_dump({**CONFIG, "few": {"share": share}}))
    result = CliRunner().invoke(main, arguments(config, ["fewshot"]))
    assert result.exit_code == 2 and "share must be above 0 and at most 1" in result.output
