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

STAGES = ("prepare", "features", "align", "train", "decode")


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
    for stage in STAGES:
        run(config, [[stage, *executor]])
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


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_that_is_killed_in_a_stage_changes_nothing(
    stage, cluster, small_shards, tmp_path, tmp_path_factory
) -> None:
    finished = finished_recipe(tmp_path_factory)
    shutil.copytree(finished.parent.parent, tmp_path / "work")
    config = tmp_path / "work" / "conf" / finished.name
    gone = {
        "prepare": ["data"],
        "features": ["data/frames"],
        "align": ["exp/align", "exp/realign", "exp/tree"],
        "train": ["exp/targets", "exp/direct", "exp/distilled"],
        "decode": ["exp/decode", "exp/phone_decode"],
    }
    for folder in gone[stage]:
        shutil.rmtree(config.parent.parent / folder)
    killer = Killer(cluster)
    killer.start()
    run(config, [[stage, "--executor", f"dask:{cluster.scheduler_address}"]])
    assert killer.end(), f"no worker was at work in {stage}"
    rest = [[each, "--nj", "1"] for each in STAGES[STAGES.index(stage) + 1 :]]
    run(config, rest)
    assert same(made(config), made(finished))
