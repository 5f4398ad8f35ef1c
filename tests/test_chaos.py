"""A recipe on a cluster in which something goes wrong in every stage gives what a quiet run gives.

    ASR_KD_CHAOS_SEEDS=50 python -m pytest -s tests/test_chaos.py

A seed says what happens in which stage, and how long after shards are seen at work. What was lost comes back, and the
command is run again until it ends well; it may fail with a sentence (exit status 2), never with a traceback. If a
stage ended before anything had happened, what it made is deleted, and it runs again.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from .recipe import arguments, finished_recipe, make_recipe
from .test_cluster import STAGES as OF_STAGES
from .test_cluster import made, same

SEEDS = int(os.environ.get("ASR_KD_CHAOS_SEEDS", "2"))
# killed: one worker; the scheduler, with which its workers end; the command. disk: a file cannot be put in its place.
# clock: the command is killed, and runs again when its files are a day younger than its clock.
HAPPENINGS = ("worker", "scheduler", "command", "disk", "clock")
DAY = 86400
# train makes the soft targets too
STAGES = {stage: made_by for stage, made_by in OF_STAGES.items() if stage != "soft-targets"}
MOST = 300.0  # seconds for a stage with all that happens in it
# the command, with more shards than a small recipe would have by itself
COMMAND = f"""
import errno, os, runpy, sys, time
import asr_kd.stages.align, asr_kd.stages.check_utterances, asr_kd.stages.soft_targets
import asr_kd.distillation.soft_target_worker
asr_kd.stages.check_utterances._SHARD = 4
asr_kd.stages.align.BLOCK = 8
asr_kd.stages.soft_targets.SERIAL_FRAMES = 0
asr_kd.distillation.soft_target_worker.MAX_SHARD_FRAMES = 500
happening, replace, now, left = sys.argv[1], os.replace, time.time, [int(sys.argv[2])]
def full(*paths):
    left[0] -= 1
    if left[0] == 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    replace(*paths)
if happening == "disk":
    os.replace = full
if happening == "clock":
    time.time = lambda: now() - {DAY}
sys.argv = ["asr-kd", *sys.argv[3:]]
runpy.run_module("asr_kd", run_name="__main__")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def halted(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Within it a process and all that it started stand still."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)


@dataclass
class Machines:
    """A scheduler and two workers, each a process of its own."""

    folder: Path
    port: int = field(default_factory=free_port)
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard", "--no-show"]
        self.scheduler = self._start("scheduler", *options)
        for _ in range(2):
            self.start_worker()

    def start_worker(self) -> None:
        options = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(self.folder)]
        self.workers.append(self._start("worker", self.address, *options))

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "dask", *words]
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def end(self) -> None:
        for process in (self.scheduler, *self.workers):
            if process is not None:
                kill(process)
        self.workers.clear()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    folder = tmp_path / "dask"
    folder.mkdir()
    machines = Machines(folder)
    machines.start()
    yield machines
    machines.end()


@dataclass
class Run:
    """One stage, run as often as it takes."""

    config: Path
    stage: str
    machines: Machines
    rng: random.Random
    log: Path

    def until_hit(self, happening: str) -> None:
        """Runs the stage until it has ended well, and something has happened in the middle of it."""
        end = time.monotonic() + MOST
        while not self._until_done(happening, end):
            for folder in STAGES[self.stage]:
                shutil.rmtree(self.root / folder)

    def _until_done(self, happening: str, end: float) -> bool:
        """Returns whether it happened while shards were at work."""
        hit = False
        while time.monotonic() < end:
            before = self._maps()
            # a disk is full until something has failed, a clock stays as it is
            process = self._start(happening if hit == (happening == "clock") else "")
            try:
                if not hit and happening != "disk":
                    hit = self._hits(happening, process, before)
                status = process.wait(MOST)
            finally:
                kill(process)
            hit = hit or (happening == "disk" and status == 2)
            assert status in (0, 2, -signal.SIGKILL), self.log.read_text()[-3000:]
            if status == 0:
                return hit
        raise AssertionError(self.log.read_text()[-3000:])

    @property
    def root(self) -> Path:
        return self.config.parent.parent

    def _start(self, happening: str) -> subprocess.Popen[bytes]:
        words = [happening, str(self.rng.randint(1, 4)), *arguments(self.config, [self.stage])]
        environment = os.environ | {"ASR_KD_EXECUTOR": f"dask:{self.machines.address}"}
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", COMMAND, *words]
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def _hits(self, happening: str, process: subprocess.Popen[bytes], before: set[Path]) -> bool:
        """Lets it happen a moment after shards are at work, where some are then; returns whether it has."""
        while process.poll() is None:
            if self._maps() <= before:
                time.sleep(0.005)
                continue
            time.sleep(self.rng.uniform(0, 0.5))
            with halted(process):  # what is at work stays so until it has happened
                if not self._maps() <= before:
                    self._happens(happening, process)
                    return True
        return False

    def _maps(self) -> set[Path]:
        """Those whose shards are at work, and those of commands that were killed."""
        return set((self.root / "exp" / ".cluster").glob("asr-kd-*"))

    def _happens(self, happening: str, process: subprocess.Popen[bytes]) -> None:
        if happening == "worker":
            worker = self.rng.choice(self.machines.workers)
            kill(worker)
            self.machines.workers.remove(worker)
            self.machines.start_worker()
        elif happening == "scheduler":
            self.machines.end()
            self.machines.start()
        else:
            kill(process)
        if happening == "clock":
            for path in self.root.rglob("*"):
                status = path.lstat()
                os.utime(path, (status.st_atime + DAY, status.st_mtime + DAY), follow_symlinks=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_the_results_are_those_of_a_quiet_run(
    seed: int, machines: Machines, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = random.Random(seed)
    config = make_recipe(tmp_path / "work")
    happenings = rng.sample(HAPPENINGS, len(STAGES))
    for stage, happening in zip(STAGES, happenings, strict=True):
        Run(config, stage, machines, rng, tmp_path / "log").until_hit(happening)
    print(f"seed {seed}: " + ", ".join(f"{what} in {stage}" for stage, what in zip(STAGES, happenings, strict=True)))
    assert same(made(config), made(finished_recipe(tmp_path_factory)))
    left = [path for path in config.parent.parent.rglob("*") if path.name.endswith((".partial", ".tmp"))]
    assert left == []
    assert ".tmp." not in " ".join(path.name for path in config.parent.parent.rglob("*"))
    shutil.rmtree(tmp_path / "work")
