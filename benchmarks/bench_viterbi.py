"""How fast the forced alignment's Viterbi is, against the memory traffic that it cannot do without.

    python benchmarks/bench_viterbi.py [--seconds 15] [--words 40]

One utterance through the graph of its transcript, exact search, one thread. The floor: one addition for each state and
frame and one back-pointer (1 byte) that goes to memory, in a compiled loop without indices, as nothing that looks at
every state in every frame can do with less.

Measured on one core of an AMD EPYC with AVX-512: 1.1 ms, 0.54 ns an arc, 13,000 times real time, 2.1 times the floor;
before neighbouring states had arrays of their own (`topology.SearchArcs`) 5.7 ms and 2.7 ns an arc.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numba
import numpy as np

from asr_kd.alignment.topology import NUM_HMM_STATES, compile_transcript
from asr_kd.alignment.viterbi import viterbi
from asr_kd.lang.lexicon import make_lang, pronounce

WORDS = "PLEASE ENTER YOUR PASSWORD FOLLOWED BY THE POUND KEY THANK YOU FOR CALLING GOODBYE".split()  # noqa: SIM905


@numba.njit
def one_addition(before: np.ndarray, stay: np.ndarray, back: np.ndarray) -> np.ndarray:
    now = np.zeros_like(before)
    for t in range(len(back)):
        for s in range(len(before)):
            now[s] = before[s] + stay[s]
            back[t, s] = 1
        before, now = now, before
    return before


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
    graph = compile_transcript([WORDS[k % len(WORDS)] for k in range(options.words)], lang)
    frames = round(options.seconds * 100)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(frames, NUM_HMM_STATES * len(lang.phones))).astype(np.float32)
    took = best_of(lambda: viterbi(scores, graph))
    arcs = len(graph.source)

    before, stay = np.zeros((2, graph.num_states))
    least = best_of(lambda: one_addition(before, stay, np.empty((frames, graph.num_states), np.uint8)))
    print(f"{frames} frames, {graph.num_states} states, {arcs} arcs")
    speed = f"{took / frames / arcs * 1e9:5.2f} ns an arc  {options.seconds / took:,.0f} x real time"
    print(f"viterbi  {took * 1e3:7.2f} ms  {speed}")
    print(f"floor    {least * 1e3:7.2f} ms  {took / least:.1f} times as long is the search")


if __name__ == "__main__":
    main()
