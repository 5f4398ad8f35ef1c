"""What training and other threaded work keep of their speed where other programs use the cores too.

    python benchmarks/bench_busy.py [--seconds 4] [--rounds 3] [--policy default --policy passive --policy 1000]

Each row is a kind of work with all cores' threads, in a process of its own: frames a second on an idle machine, and the
share of them that is left beside one and two programs that each keep a core busy. A policy says how OpenMP's threads
wait for each other: `default` is the library's own (they spin), `passive` OMP_WAIT_POLICY=PASSIVE, a number
GOMP_SPINCOUNT, turns before a thread sleeps. `chosen` has the library's own, and no more threads than cores that nobody
else keeps busy, as the commands have it (`asr_kd.io.cores.choose_threads`). `later` is `chosen` where the others come
when the work has begun (`asr_kd.io.cores.LoadWatch`, for trainings; give it --seconds 30), `unwatched` the same without
the watch. The fair share beside b others on c cores is c / (c + b) for c threads and the others' b. Rounds go through
all policies in turn; figures are medians. Words are recognised by as many processes as there are cores, each with one
thread, from a small graph.

Measured with torch 1.13.1 on two cores of an AMD EPYC with avx512_bf16, --seconds 2; the first three lines of a kind
are one call with two rounds, `chosen` is another with one round, in which default had 0.30 and 0.28, 0.30 and 0.22,
0.27 and 0.12:

    work            policy    idle, of default's    beside 1 (fair 0.67)    beside 2 (fair 0.50)
    train dnn       default                 1.00                    0.34                    0.23
                    passive                 1.03                    0.55                    0.44
                    1000                    0.94                    0.60                    0.43
                    chosen                  0.98                    0.54                    0.32
    train tdnn      default                 1.00                    0.34                    0.15
                    passive                 0.71                    0.40                    0.34
                    1000                    0.91                    0.30                    0.29
                    chosen                  1.04                    0.63                    0.44
    soft targets    default                 1.00                    0.35                    0.07
                    passive                 0.62                    1.00                    0.88
                    1000                    0.89                    0.47                    0.43
                    chosen                  0.97                    0.66                    0.42

In a call of their own, --seconds 4 with one round, with other work of low priority beside them:

    viterbi         default                 1.00                    0.69                    0.61
    decoding        default                 1.00                    0.77                    0.57

Others that come later, --seconds 12 (of which the first 5 pass before the watch looks), one round:

    train dnn       unwatched               1.00                    0.36                    0.25
                    later                   1.04                    0.48                    0.30

Threads that sleep lose a third on an idle machine, where a step has hundreds of small operations. Viterbi's threads and
the processes that recognise words do not wait for each other, and have their share with any policy.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from asr_kd.io.cores import choose_threads

if TYPE_CHECKING:
    from asr_kd.decoding.graph import Graph

WORK = ("train dnn", "train tdnn", "soft targets", "viterbi", "decoding")
SENONES, DIMS, LENGTH = 1000, 40, 300
_SPIN = "while True: pass"
_LATE = ("later", "unwatched")  # policies of others that come when the work has begun


class _TimeIsUp(Exception):
    pass


def frames_per_second(work: str, seconds: float, follow_load: bool) -> float:
    """Of this process; imports torch, whose OpenMP has read the environment by then. Says when it has warmed up."""
    import numpy as np
    import torch

    from asr_kd.acoustic.criteria import HardTargets, Terms
    from asr_kd.acoustic.model import build_model
    from asr_kd.acoustic.settings import DnnConfig, ModelConfig, TdnnConfig, TrainingConfig
    from asr_kd.acoustic.training import RunControl, TrainingData, fit
    from asr_kd.frames.batches import Batch
    from asr_kd.frames.source import ArrayFrames
    from asr_kd.frames.windows import windows_of

    rng = np.random.default_rng(0)
    if work == "viterbi":
        return _viterbi(seconds)
    if work == "decoding":
        return _decoding(seconds)
    tdnn = TdnnConfig(width=256, dropout=0.1)
    settings: ModelConfig = DnnConfig(layers=3, width=384, hidden_dropout=0.1) if work == "train dnn" else tdnn
    members = 3 if work == "train dnn" else 1
    model = build_model(settings, num_dims=DIMS, num_senones=SENONES, seeds=range(members))
    source = ArrayFrames([rng.normal(size=(LENGTH, DIMS)).astype(np.float32) for _ in range(40)])
    count = 0
    if work == "soft targets":
        features = torch.from_numpy(rng.normal(size=(LENGTH, DIMS)).astype(np.float32))
        model.log_posteriors(features)
        started = _begin()
        while time.perf_counter() - started < seconds:
            model.log_posteriors(features)
            count += LENGTH
        return count / (time.perf_counter() - started)
    labels = rng.integers(0, SENONES, 40 * LENGTH)
    data = TrainingData(windows_of(source, settings.context))
    config = TrainingConfig(epochs=1, batch_size=1000)
    fit(model, data, HardTargets(labels, torch.device("cpu")), config, RunControl(seed=1))  # compiles, and warms up
    started = _begin()

    class Timed(HardTargets):
        """Ends the training when the time is up."""

        def __call__(self, outputs: torch.Tensor, batch: Batch) -> Terms:
            nonlocal count
            if time.perf_counter() - started > seconds:
                raise _TimeIsUp
            count += batch.num_valid_of_all
            return super().__call__(outputs, batch)

    endless = TrainingConfig(epochs=100_000, batch_size=1000)
    with contextlib.suppress(_TimeIsUp):
        timed = Timed(labels, torch.device("cpu"))
        fit(model, data, timed, endless, RunControl(seed=1, follow_load=follow_load))
    return count / (time.perf_counter() - started)


def _begin() -> float:
    """Tells the other process that the work begins now."""
    print("begins", flush=True)
    return time.perf_counter()


def _viterbi(seconds: float) -> float:
    """As the aligner does it: a compiled search in each of as many threads as there are cores, without a lock."""
    import numpy as np

    from asr_kd.alignment.topology import NUM_HMM_STATES, compile_transcript
    from asr_kd.alignment.viterbi import viterbi
    from asr_kd.lang.lexicon import make_lang, pronounce
    from asr_kd.workspace.executor import default_jobs

    words = ["GOODBYE", "PASSWORD"]
    lang = make_lang(words, pronounce(words, {}))
    graph = compile_transcript(words * 20, lang)
    scores = np.random.default_rng(0).normal(size=(5 * LENGTH, NUM_HMM_STATES * len(lang.phones))).astype(np.float32)
    viterbi(scores, graph)
    count, started = 0, _begin()
    with ThreadPoolExecutor(default_jobs()) as pool:
        while time.perf_counter() - started < seconds:
            list(pool.map(lambda _: viterbi(scores, graph), range(64)))
            count += 64 * len(scores)
    return count / (time.perf_counter() - started)


def _decoding(seconds: float) -> float:
    """As `asr-kd decode` does it: processes that search a shard each, here of one utterance."""
    import numpy as np

    from asr_kd.alignment.tree import monophone_tree
    from asr_kd.decoding.graph import compile_graph
    from asr_kd.lang.kneser_ney import estimate
    from asr_kd.lang.lexicon import make_lang, pronounce
    from asr_kd.workspace.executor import default_jobs, parallel_map

    rng = np.random.default_rng(0)
    words = ["ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE", "ZERO", "PLEASE", "PRESS", "FOR"]
    lang = make_lang(words, pronounce(words, {}))
    arpa = estimate([rng.choice(words, 8).tolist() for _ in range(300)], 3, words)
    graph = compile_graph(lang, arpa, monophone_tree(lang.phones), 0.5)
    decode = functools.partial(_decode, graph)
    frames, jobs = 0, default_jobs()
    decoded = parallel_map(decode, range(1_000_000), nj=jobs)
    for _ in range(2 * jobs):  # the processes have begun, and have compiled the search
        next(decoded)
    started = _begin()
    while time.perf_counter() - started < seconds:
        frames += next(decoded)
    rate = frames / (time.perf_counter() - started)
    decoded.close()  # type: ignore[attr-defined]  # a generator, whose processes end here
    return rate


def _decode(graph: Graph, seed: int) -> int:
    import numpy as np

    from asr_kd.decoding.decoder import make_decoder
    from asr_kd.decoding.settings import DecodingConfig

    scores = np.random.default_rng(seed).normal(size=(LENGTH, graph.num_senones)).astype(np.float32)
    make_decoder("native", graph, DecodingConfig(), acoustic_scale=0.3).decode([scores])
    return LENGTH


def measured(work: str, policy: str, busy: int, seconds: float) -> float:
    """Frames a second of a process beside `busy` programs."""
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    if policy == "passive":
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    elif policy.isdecimal():
        environment["GOMP_SPINCOUNT"] = policy
    command = [sys.executable, __file__, "--of", work, "--seconds", str(seconds), "--policy", policy]
    others: list[subprocess.Popen[bytes]] = []
    try:
        if policy not in _LATE:
            others += _spinning(busy)
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "begins\n":
                raise SystemExit(f"{work}, {policy}: it did not begin")
            if policy in _LATE:
                others += _spinning(busy)
            return float(process.stdout.read())
    finally:
        for other in others:
            other.kill()
            other.wait()


def _spinning(count: int) -> list[subprocess.Popen[bytes]]:
    return [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(count)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=4.0)
    options.add_argument("--rounds", type=int, default=3)
    policies_help = "default, passive, a number of turns, chosen, later or unwatched; may be repeated"
    options.add_argument("--policy", action="append", help=policies_help)
    options.add_argument("--work", action="append", choices=WORK)
    options.add_argument("--of", help=argparse.SUPPRESS)  # this process does the work itself
    given = options.parse_args()
    if given.of:
        (policy,) = given.policy
        if policy in ("chosen", *_LATE):
            choose_threads(None)
        print(frames_per_second(given.of, given.seconds, follow_load=policy == "later"))
        return
    cores = len(os.sched_getaffinity(0))
    policies = given.policy or ["default", "passive", "chosen"]
    shares = " | ".join(f"beside {busy} (fair {cores / (cores + busy):.2f})" for busy in (1, 2))
    print(f"| work | policy | idle, frames/s | of default's | {shares} |\n|---|---|--:|--:|--:|--:|")
    for work in given.work or WORK:
        speeds: dict[tuple[str, int], list[float]] = {}
        for _ in range(given.rounds):
            for policy in policies:
                for busy in (0, 1, 2):
                    speeds.setdefault((policy, busy), []).append(measured(work, policy, busy, given.seconds))
        median = {key: statistics.median(values) for key, values in speeds.items()}
        for policy in policies:
            idle = median[policy, 0]
            left = " | ".join(f"{median[policy, busy] / idle:.2f}" for busy in (1, 2))
            print(f"| {work} | {policy} | {idle:,.0f} | {idle / median[policies[0], 0]:.2f} | {left} |", flush=True)


if __name__ == "__main__":
    main()
