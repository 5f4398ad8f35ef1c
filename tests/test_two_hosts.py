"""Commands on one host, workers or other processes on another: all that they share is a cable and a file system."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from asr_kd.acoustic.model_files import load_model
from asr_kd.stages.train import train

from .hosts import Host, two_hosts, why_not
from .recipe import arguments, finished_recipe, make_recipe, run
from .stages.toy import HARD, OPTIONS, make_toy, soft
from .test_chaos import COMMAND
from .test_cluster import COMMANDS, made, same
from .test_documents import ROOT, commands

CLUSTER = ROOT / "docs" / "cluster.md"
PORT = 8786
ALONE = {"OMP_NUM_THREADS": "1"}
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    if reason := why_not():
        pytest.skip(reason)
    with two_hosts() as both:
        yield both


@contextlib.contextmanager
def cluster(head: Host, node: Host) -> Iterator[None]:
    """A scheduler on the head and two workers on the node, as docs/cluster.md starts them."""
    scheduler, workers = (shlex.split(line) for line in commands(CLUSTER, "dask "))
    assert workers[2] == f"tcp://{head.name}:{PORT}" and workers[3] == "--nworkers"
    workers[4] = "2"
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (
        head.running(scheduler, env=environment, **QUIET),
        node.running(workers, env=environment, **QUIET),
    ):
        yield


def asr_kd(host: Host, words: list[str]) -> subprocess.CompletedProcess[str]:
    """The command, with more than one shard of everything, where the document's variable says."""
    (export,) = commands(CLUSTER, "export ")
    name, _, value = export.split()[1].partition("=")
    command = [sys.executable, "-c", COMMAND, "nothing", 0, *words]
    return host.run(command, env=os.environ | ALONE | {name: value}, check=False)


def test_workers_on_another_host_make_what_one_process_makes(
    hosts: tuple[Host, Host], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    head, node = hosts
    config = make_recipe(tmp_path / "work")
    with cluster(head, node):
        for command in COMMANDS:
            result = asr_kd(head, arguments(config, command))
            assert result.returncode == 0, f"{command}: {result.stderr}"
    assert same(made(config), made(finished_recipe(tmp_path_factory)))


def test_a_host_that_does_not_see_the_work_folder_says_so(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    head, node = hosts
    config = make_recipe(tmp_path / "work")
    run(config, [["prepare"]])
    node.run(["mount", "-t", "tmpfs", "none", tmp_path])
    try:
        with cluster(head, node):
            result = asr_kd(head, ["features", "--config", str(config)])
    finally:
        node.run(["umount", tmp_path])
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("asr-kd features: a worker on node does not see")
    assert str(tmp_path / "work") in result.stderr
    assert not (tmp_path / "work" / "data" / "frames" / "train").exists()


def test_hosts_train_a_model_together(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    systems = {"teacher": HARD, "distilled": soft(**{"from": "teacher"})}
    alone, both = make_toy(tmp_path / "alone"), make_toy(tmp_path / "both")
    train(alone.config(**systems), alone.work, OPTIONS, nj=1)
    both.work.config_path.write_text(json.dumps({"systems": systems}))
    head, node = hosts
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    command += ["--rdzv_backend=c10d", f"--rdzv_endpoint={head.address}:{PORT}", "-m", "asr_kd", "train"]
    command += ["--device", "cpu", "--config", str(both.work.config_path), "--work-dir", str(both.work.root)]
    with node.running(command, env=os.environ | ALONE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as other:
        result = head.run(command, env=os.environ | ALONE, check=False)
        said, _ = other.communicate()
    assert result.returncode == 0, result.stderr
    assert other.returncode == 0, said
    for name in systems:
        ours, theirs = (load_model(toy.work.exp(name)).state_dict() for toy in (both, alone))
        assert all(torch.allclose(ours[key].float(), theirs[key].float(), atol=1e-4) for key in theirs), name
