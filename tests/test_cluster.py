"""The whole recipe on two workers of Dask: what one process makes, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import pytest

from .recipe import finished_recipe, make_recipe, run

# each stage, and what is deleted of a finished recipe so that it is at work again
STAGES = {
    "prepare": ["data"],
    "features": ["data/frames"],
    "align": ["exp/align", "exp/realign", "exp/tree"],
    "soft-targets": ["exp/targets"],
    "train": ["exp/direct", "exp/distilled"],
    "decode": ["exp/decode", "exp/phone_decode"],
}
COMMANDS = [["prepare"], ["features"], ["align"], ["train", "--teachers"], ["soft-targets"], ["train"], ["decode"]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is more than one of everything."""
    monkeypatch.setattr("asr_kd.stages.check_utterances._SHARD", 8)
    monkeypatch.setattr("asr_kd.stages.align.BLOCK", 20)
    monkeypatch.setattr("asr_kd.distillation.soft_target_worker.MAX_SHARD_FRAMES", 2000)
    monkeypatch.setattr("asr_kd.stages.soft_targets.SERIAL_FRAMES", 0)


def made(config: Path) -> dict[str, bytes]:
    """Features, labels, targets, models, and words without what depends on the clock."""
    root, files = config.parent.parent, {}
    for pattern in ("data/frames/*/*.npy", "data/frames/*/cmvn.npz", "exp/align/*/*.npy", "exp/targets/*/*.npy"):
        files |= {str(path.relative_to(root)): path.read_bytes() for path in root.glob(pattern)}
    for path in root.glob("exp/*/member_*.safetensors"):
        files[str(path.relative_to(root))] = path.read_bytes()
    for path in root.glob("exp/*decode/*/*/hyps.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        files[str(path.relative_to(root))] = json.dumps(
            [[row["utterance"], row["seed"], row["hyp"]] for row in rows]
        ).encode()
    return files


def same(ours: dict[str, bytes], theirs: dict[str, bytes]) -> bool:
    assert ours.keys() == theirs.keys() and len(ours) > 40
    return [name for name in ours if ours[name] != theirs[name]] == []


def test_two_workers_make_what_one_process_makes(cluster, small_shards, tmp_path, tmp_path_factory) -> None:
    config, executor = make_recipe(tmp_path / "work"), ["--executor", f"dask:{cluster.scheduler_address}"]
    run(config, [[*command, *executor] for command in COMMANDS])
    assert same(made(config), made(finished_recipe(tmp_path_factory)))
    assert list((config.parent.parent / "exp" / ".cluster").iterdir()) == []


class Killer(threading.Thread):
    """Kills the first worker that is seen at work on a shard, and notes the shard."""

    def __init__(self, cluster: Any) -> None:
        super().__init__()
        self.killed: list[str] = []
        self._client, self._over = distributed.Client(cluster, set_as_default=False), threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.01) and not self.killed:
            for address, keys in self._client.processing().items():
                if keys:
                    (process,) = self._client.run(os.getpid, workers=[address]).values()
                    os.kill(process, signal.SIGKILL)
                    self.killed.append(str(keys[0]))
                    break

    def end(self) -> list[str]:
        self._over.set()
        self.join()
        self._client.close()
        return self.killed


@pytest.fixture
def copies(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The configs of two finished recipes."""
    finished = finished_recipe(tmp_path_factory)
    configs = [tmp_path / name / "conf" / finished.name for name in ("here", "there")]
    for config in configs:
        shutil.copytree(finished.parent.parent, config.parent.parent)
    return configs


def run_and_kill(cluster: Any, config: Path, command: list[str]) -> None:
    """Runs a command on the cluster, one of whose workers is killed at work."""
    killer = Killer(cluster)
    killer.start()
    try:
        run(config, [[*command, "--executor", f"dask:{cluster.scheduler_address}"]])
    finally:
        killed = killer.end()
    assert killed, f"no worker was at work in {command[0]}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_that_is_killed_in_a_stage_changes_nothing(stage, cluster, small_shards, copies) -> None:
    finished, config = copies
    for folder in STAGES[stage]:
        shutil.rmtree(config.parent.parent / folder)
    run_and_kill(cluster, config, [stage])
    run(config, [[each, "--nj", "1"] for each in [*STAGES][[*STAGES].index(stage) + 1 :]])
    assert same(made(config), made(finished))


def test_a_worker_that_is_killed_while_lists_are_rescored_changes_nothing(cluster, copies) -> None:
    rescored = []
    for config in copies:
        root = config.parent.parent
        larger = root / "data" / "lm" / "G.arpa"  # the same one does
        command = ["decode", "--system", "distilled", "--rescore-lm", str(larger)]
        if config is copies[0]:
            run(config, [[*command, "--nj", "1"]])
        else:
            run_and_kill(cluster, config, command)
        files = sorted(root.glob("exp/rescored/**/hyps.jsonl"))
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        rescored.append([[row["utterance"], row["seed"], row["hyp"]] for row in rows])
    assert rescored[0] == rescored[1] and len(rescored[0]) > 30


def test_a_worker_that_is_killed_while_an_export_is_measured_changes_nothing(cluster, copies) -> None:
    measured = []
    for config in copies:
        folder = config.parent.parent / "out"
        command = ["export", "distilled", str(folder), "--precision", "float32"]
        if config is copies[0]:
            run(config, [[*command, "--nj", "1"]])
        else:
            run_and_kill(cluster, config, command)
        figures = json.loads((folder / "export.json").read_text())
        for row in figures["models"]:
            for of_set in row["sets"].values():
                del of_set["net_rtf"]
        measured.append([figures | {"processes": 0}, (folder / "model.onnx").read_bytes()])
    assert measured[0] == measured[1] and len(measured[0][0]["models"]) == 2


def swept(root: Path) -> dict[str, bytes]:
    """What a sweep has made, but for the clock's part: soft targets, models, and the rows of the table."""
    folder = root / "exp" / "sweep" / "temperatures"
    files = [*folder.glob("shared/*/*.npy"), *folder.glob("points/*/exp/distilled/*.safetensors")]
    rows = [row | {"rtf": 0} for row in json.loads((folder / "report" / "sweep.json").read_text())]
    return {str(path.relative_to(root)): path.read_bytes() for path in files} | {"rows": json.dumps(rows).encode()}


def test_a_sweep_on_workers_that_are_killed_is_that_of_one_process(cluster, small_shards, copies, caplog) -> None:
    keys = ["--grid", "systems.distilled.targets.temperature=1,3", "--grid", "systems.distilled.seeds=1"]
    command = ["sweep", *keys, "--name", "temperatures", "--decode", "dev"]
    run(copies[0], [[*command, "--nj", "1"]])
    caplog.clear()
    run_and_kill(cluster, copies[1], command)
    trained = [record for record in caplog.records if record.getMessage().startswith("training distilled")]
    assert len(trained) >= 2 and os.getpid() not in {record.process for record in trained}
    here, there = (swept(config.parent.parent) for config in copies)
    assert here == there and len(here) > 10
