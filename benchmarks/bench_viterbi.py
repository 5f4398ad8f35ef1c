"""How fast the forced alignment's Viterbi is, against the memory traffic that it cannot do without.

    python benchmarks/bench_viterbi.py [--seconds 15] [--words 40]

One utterance through the graph of its transcript, exact search, one thread. The floor: every frame writes one score
(8 bytes) and one back-pointer (1 byte) for each live state and reads two scores, timed as a plain numpy update of
arrays of that size.

Measured on one core of an AMD EPYC: 2.7 ns an arc, 2,600 times real time, 3.1 times as long as the traffic.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from asr_kd.alignment.topology import NUM_HMM_STATES, compile_graph
from asr_kd.alignment.viterbi import viterbi
from asr_kd.lang.lexicon import make_lang, pronounce

WORDS = "PLEASE ENTER YOUR PASSWORD FOLLOWED BY THE POUND KEY THANK YOU FOR CALLING GOODBYE".split()  # noqa: SIM905


def best_of(call: Callable[[], object], rounds: int = 10) -> float:
    """Seconds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--words", type=int, default=40)
    options = parser.parse_args()
    lang = make_lang(set(WORDS), pronounce(WORDS, {}))
    graph = compile_graph([WORDS[k % len(WORDS)] for k in range(options.words)], lang)
    frames = round(options.seconds * 100)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(frames, NUM_HMM_STATES * len(lang.phones))).astype(np.float32)
    took = best_of(lambda: viterbi(scores, graph))
    arcs = len(graph.source)

    before, now = np.zeros(graph.num_states), np.zeros(graph.num_states)
    back = np.zeros((frames, graph.num_states), np.uint8)

    def traffic() -> None:
        for t in range(frames):
            np.maximum(before[1:], before[:-1], out=now[1:])
            back[t] = 1

    floor = best_of(traffic)
    print(f"{frames} frames, {graph.num_states} states, {arcs} arcs")
    speed = f"{took / frames / arcs * 1e9:5.2f} ns an arc  {options.seconds / took:,.0f} x real time"
    print(f"viterbi  {took * 1e3:7.2f} ms  {speed}")
    print(f"traffic  {floor * 1e3:7.2f} ms  {took / floor:.1f} times as long is the search")


if __name__ == "__main__":
    main()
