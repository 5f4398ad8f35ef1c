"""Shards on workers of Dask, and what is said where that goes wrong."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import cloudpickle
import dask.config
import distributed
import numpy as np
import pytest
from distributed.comm.core import CommClosedError

from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.workspace import cluster as cluster_module
from asr_kd.workspace.cached_map import cached_map, json_codec
from asr_kd.workspace.executor import on_cluster, parallel_map, running_on
from asr_kd.workspace.queues import QUEUES

from ..stores import write_store
from .shards import die, note_slowly

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture
def at_once(cluster: Any, tmp_path: Path) -> Iterator[int]:
    with running_on(f"dask:{cluster.scheduler_address}", None, tmp_path) as count:
        yield count


def complain(shard: int) -> tuple[int, int]:
    logging.getLogger("asr_kd.of_a_worker").warning("shard %d is odd", shard)
    time.sleep(0.03)
    return shard, os.getpid()


def test_answers_come_in_order_from_several_processes_with_what_they_log(
    at_once: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert at_once == 2 and on_cluster()
    answers = list(parallel_map(complain, range(20), nj=at_once))
    assert [shard for shard, _ in answers] == list(range(20))
    assert len({process for _, process in answers} - {os.getpid()}) == 2
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("asr_kd.of")]
    assert ours == [f"shard {k} is odd" for k in range(20)]


class Loads:
    """Notes how often it was loaded in a process, and whether two threads were in it at once."""

    def __init__(self, number: int) -> None:
        self.number, self.loaded, self.busy = number, 0, False

    def __call__(self, shard: int) -> tuple[int, int, bool]:
        together, self.busy = self.busy, True
        self.loaded += 1
        for _ in range(100_000):
            pass
        self.busy = False
        return self.number, self.loaded, together


def test_a_worker_keeps_what_it_loads_for_one_map_alone_and_does_one_shard_at_a_time(at_once: int) -> None:
    for number in (1, 2):
        answers = list(parallel_map(Loads(number), range(12), nj=at_once))
        assert {answer[0] for answer in answers} == {number}
        assert max(loaded for _, loaded, _ in answers) > 3  # one copy for all shards of a worker
        assert min(loaded for _, loaded, _ in answers) == 1  # and a new one for each map
        assert not any(together for _, _, together in answers)


def refuse(shard: int) -> int:
    if shard == 3:
        raise UserError("shard three is bad.")
    return shard


def test_a_sentence_comes_back_as_a_sentence_and_what_was_done_is_kept(at_once: int, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.json" for number in range(6)]
    codec = json_codec(int, int)
    with pytest.raises(UserError, match=r"^shard three is bad\.$"):
        list(cached_map(refuse, range(6), files, codec, nj=at_once))
    assert files[0].exists() and not files[3].exists()
    assert list(cached_map(math.factorial, range(6), files, codec, nj=at_once))[:3] == [0, 1, 2]  # not computed again


def in_folder(shard: str) -> str:
    return Path(shard).read_text()


def test_paths_may_be_relative_to_the_command_s_folder(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    assert list(parallel_map(in_folder, ["a", "b"], nj=at_once)) == ["a", "b"]


def test_shards_of_a_lost_worker_are_done_again_and_counted(
    at_once: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert list(parallel_map(die, [(str(tmp_path), number, 1) for number in range(8)], nj=at_once)) == list(range(8))
    assert "1 workers of 2 were lost; their shards were done again" in caplog.text


def test_a_shard_that_kills_workers_is_named(tmp_path: Path) -> None:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        running_on(f"dask:{cluster.scheduler_address}", None, tmp_path) as at_once,
        pytest.raises(
            UserError, match=r"^shard 4 of 6 kills worker after worker, most often because memory runs out; give"
        ),
    ):
        list(parallel_map(die, [(str(tmp_path), number, 99) for number in range(6)], nj=at_once))


def test_a_worker_that_does_not_see_the_work_folder_or_another_one_says_so(tmp_path: Path) -> None:
    file, pickled = tmp_path / "exp" / ".cluster" / "a", cloudpickle.dumps(math.factorial)
    sent = cluster_module._Sent(tmp_path, file, hashlib.sha256(pickled).hexdigest())
    with pytest.raises(UserError, match=r"a worker on \S+ does not see what was written to .*\.cluster"):
        sent.load()
    file.parent.mkdir(parents=True)
    file.write_bytes(cloudpickle.dumps(math.sqrt))  # of another file system: it is not unpickled
    with pytest.raises(UserError, match=r"a worker on \S+ does not see what was written to .*\.cluster"):
        sent.load()
    file.write_bytes(pickled)
    assert sent.load()(5) == 120
    with pytest.raises(UserError, match=r"a worker on \S+ does not see .*elsewhere: the work folder must be on a file"):
        cluster_module._Sent(tmp_path / "elsewhere", file, "").load()


def test_where_all_workers_are_gone_or_none_comes_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_WAIT", 1.0)
    monkeypatch.setattr(cluster_module, "_LOOK", 0.2)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        with running_on(f"dask:{cluster.scheduler_address}", None, tmp_path) as at_once:
            cluster.scale(0)
            with pytest.raises(UserError, match="for 0 minutes the cluster has had no worker; start workers and run"):
                list(parallel_map(math.factorial, range(6), nj=at_once))
        with (
            pytest.raises(UserError, match="no worker has come in 0 minutes"),
            running_on(f"dask:{cluster.scheduler_address}", None, tmp_path),
        ):
            pass


class _Lost:
    """The future of a shard whose scheduler went away: it fails only when its result is asked for."""

    status = "finished"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def exception(self, timeout: float) -> None:
        return None

    def result(self) -> None:
        raise self.error


@pytest.mark.parametrize("error", [CancelledError, CommClosedError, OSError, ConnectionResetError])
def test_a_scheduler_that_goes_away_is_one_sentence(error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scheduler was lost \(connection lost\); run the same"):
        cluster_module.Cluster(None, tmp_path, 2)._result(_Lost(error("connection lost")))


def test_what_a_shard_fails_with_is_not_laid_to_the_scheduler(at_once: int) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(parallel_map(os.stat, ["nowhere", "nowhere"], nj=at_once))


def test_a_client_that_has_given_up_is_one_sentence(cluster: Any, tmp_path: Path) -> None:
    """As after half a minute without a scheduler: shards cannot be submitted, nor workers be counted."""
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        given_up = cluster_module.Cluster(client, tmp_path, 1)
        results = given_up.map(math.factorial, range(30))
        assert next(results) == 1
        client.close()
        with pytest.raises(UserError, match=r"the cluster's scheduler was lost \(.*\); run the same"):
            list(results)
    with pytest.raises(UserError, match=r"the cluster's scheduler was lost \(.*\); run the same"):
        list(given_up.map(math.factorial, range(30)))


def test_without_dask_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['distributed'] = None; import asr_kd.workspace.cluster"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    says = "--executor dask:... needs Dask: install it with pip install 'asr_kd[dask]'."
    assert done.stderr.splitlines()[-1].endswith(says)


@pytest.fixture
def own_scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler that a test may stop, with a worker: its address for --executor, and its process."""
    monkeypatch.setattr(cluster_module, "_ANSWER", 3.0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    port, dask_command = address.rpartition(":")[2], [sys.executable, "-m", "dask"]
    options = ["--host", "127.0.0.1", "--port", port, "--no-dashboard", "--no-show"]
    scheduler = subprocess.Popen([*dask_command, "scheduler", *options], **quiet)
    worker = subprocess.Popen([*dask_command, "worker", address, "--no-dashboard", "--no-nanny"], **quiet)
    yield f"dask:{address}", scheduler
    for process in (scheduler, worker):
        process.kill()
        process.wait()


@pytest.mark.parametrize("when", ["between maps", "within one"])
@pytest.mark.parametrize(
    ("end", "says"),
    [
        (signal.SIGKILL, r"^the cluster's scheduler was lost \(.*\); run the same"),
        (signal.SIGSTOP, r"^for 0 minutes the cluster has had no scheduler that answers; look at it and run the same"),
    ],
    ids=["killed", "frozen"],
)
def test_a_scheduler_that_is_killed_or_frozen_is_one_sentence(
    end: signal.Signals,
    says: str,
    when: str,
    own_scheduler: tuple[str, subprocess.Popen[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    executor, scheduler = own_scheduler
    shards = [(str(tmp_path), number) for number in range(9)]
    with pytest.raises(UserError, match=says), running_on(executor, None, tmp_path) as at_once:
        monkeypatch.setattr(cluster_module, "_WAIT", 2.0)
        results = parallel_map(note_slowly, shards, nj=at_once)
        if when == "between maps":
            list(results)
        else:
            next(results)
        scheduler.send_signal(end)
        if end == signal.SIGKILL:
            scheduler.wait()
        list(parallel_map(note_slowly, shards, nj=at_once) if when == "between maps" else results)
    assert "Traceback" not in capfd.readouterr().err  # Dask's own


def _thaw_when_missed(scheduler: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture) -> None:
    end = time.monotonic() + 60
    while "does not answer" not in caplog.text and time.monotonic() < end:
        time.sleep(0.1)
    scheduler.send_signal(signal.SIGCONT)


def test_a_scheduler_that_answers_again_goes_on(
    own_scheduler: tuple[str, subprocess.Popen[bytes]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    executor, scheduler = own_scheduler
    shards = [(str(tmp_path), number) for number in range(9)]
    with running_on(executor, None, tmp_path) as at_once:
        results = parallel_map(note_slowly, shards, nj=at_once)
        first = next(results)
        scheduler.send_signal(signal.SIGSTOP)
        thaw = threading.Thread(target=_thaw_when_missed, args=(scheduler, caplog))
        thaw.start()
        assert [first, *results] == list(range(9))
        thaw.join()
    assert "the cluster's scheduler does not answer; waiting for it" in caplog.text


def test_files_of_commands_that_were_killed_long_ago_are_deleted(cluster: Any, tmp_path: Path) -> None:
    folder = tmp_path / "exp" / ".cluster"
    folder.mkdir(parents=True)
    for name, age in (("asr-kd-old", 2 * 86400), ("asr-kd-new", 60)):
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (time.time() - age, time.time() - age))
    with running_on(f"dask:{cluster.scheduler_address}", None, tmp_path):
        assert [path.name for path in folder.iterdir()] == ["asr-kd-new"]


def noise(length: int) -> np.ndarray:
    return np.random.default_rng(length).normal(size=(length, 4))


def length_of(store: FrameStore) -> int:
    return store.num_frames


def test_a_store_is_sent_by_its_folder_and_another_one_there_is_refused(at_once: int, tmp_path: Path) -> None:
    store = write_store(tmp_path / "frames", [("a", noise(50)), ("b", noise(30))])
    assert list(parallel_map(length_of, [store, store], nj=at_once)) == [80, 80]
    write_store(tmp_path / "frames", [("a", noise(40))])
    with pytest.raises(UserError, match=r"frames is \w+ on \S+, but \w+ where the work was begun; run the command"):
        list(parallel_map(length_of, [store, store], nj=at_once))


@pytest.mark.parametrize(
    ("spec", "options", "says"),
    [
        ("processes:0", None, r"--executor processes:0: it must be processes, processes:N, dask:tcp"),
        ("threads", None, r"--executor threads: it must be processes"),
        ("dask:", None, r"--executor dask:: it must be processes"),
        ("dask:cobalt", None, r"--executor dask:cobalt: it must be the address of a scheduler .*, or slurm, sge"),
        ("processes", "jobs: 2", r"--executor-config is for --executor dask:slurm"),
        ("dask:tcp://127.0.0.1:1", "jobs: 2", r"--executor-config is for queues"),
        ("dask:slurm", "[1, 2]", r"queue.yaml must hold options by their names"),
        ("dask:slurm", "a: [", r"queue.yaml cannot be read"),
        ("dask:slurm", "jobs: 0", r"queue.yaml: jobs must be a whole number of at least 1, not 0"),
        (
            "dask:slurm",
            "{cores: 1, memory: 1GB}",
            r"dask:slurm: there is no program sbatch here; run the command where",
        ),
        ("dask:local", "jobs: 2", r"queue.yaml: LocalCluster does not take this \(You must specify how much"),
        ("dask:local", "{cores: 1, memory: 1GB, nodes: 7}", r"queue.yaml: LocalCluster does not take this .*nodes"),
        (
            "dask:kubernetes",
            None,
            r"dask:kubernetes needs dask-kubernetes: install it with pip install dask-kubernetes",
        ),
    ],
)
def test_an_executor_that_does_not_exist_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, options: str | None, says: str
) -> None:
    monkeypatch.setitem(QUEUES, "local", ("dask_jobqueue.local:LocalCluster", "dask-jobqueue"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no SLURM
    file = None if options is None else tmp_path / "queue.yaml"
    if file is not None:
        file.write_text(str(options))
    with pytest.raises(UserError, match=says), running_on(spec, file, tmp_path):
        pass


def test_a_number_of_processes_is_that_of_the_executor_or_of_nj(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr_kd.workspace.executor.usable_cores", lambda: 4)
    for spec, nj, expected in (("processes", 3, 3), ("processes:2", 3, 2)):
        with running_on(spec, None, tmp_path, nj) as at_once:
            assert at_once == expected and not on_cluster()


def test_a_queue_starts_workers_with_the_options_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask_jobqueue  # not in workers: in a thread, where they load this file, it cannot be loaded

    script = dask_jobqueue.SLURMCluster(cores=1, memory="1GB", queue="long", walltime="02:00:00").job_script()
    assert "#SBATCH -p long" in script and "#SBATCH -t 02:00:00" in script
    # a queue of this machine in place of SLURM: the same class otherwise
    monkeypatch.setitem(QUEUES, "slurm", ("dask_jobqueue.local:LocalCluster", "dask-jobqueue"))
    file = tmp_path / "queue.yaml"
    file.write_text("cores: 1\nprocesses: 1\nmemory: 1GB\njobs: 2\nlog_directory: " + str(tmp_path / "logs"))
    with running_on("dask:slurm", file, tmp_path) as at_once:
        assert at_once == 2
        answers = list(parallel_map(complain, range(6), nj=at_once))
    assert [shard for shard, _ in answers] == list(range(6)) and os.getpid() not in {pid for _, pid in answers}


def test_a_queue_that_takes_no_job_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\necho submitting\necho error: no such partition >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("dask_jobqueue.slurm.SLURMJob.submit_command", str(program))
    file = tmp_path / "queue.yaml"
    file.write_text("{cores: 1, processes: 1, memory: 1GB, jobs: 2}")
    started = time.monotonic()
    said = r"^--executor dask:slurm: the queue takes no job: error: no such partition\.$"
    with pytest.raises(UserError, match=said), running_on("dask:slurm", file, tmp_path):
        pass
    assert time.monotonic() - started < 60  # not the ten minutes that a queue may take
    assert caplog.text.count("a job was not taken by the queue: error: no such partition") == 2
