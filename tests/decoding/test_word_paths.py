"""The best path for given words, against trying every path."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.decoding.word_paths import best_scores


def _by_trying_all(src, dst, output, score, part) -> dict[tuple[int, ...], tuple[float, float]]:  # type: ignore[no-untyped-def]
    result: dict[tuple[int, ...], tuple[float, float]] = {}

    def walk(state: int, spoken: tuple[int, ...], total: float, beside: float) -> None:
        if state == dst.max():
            result[spoken] = max(result.get(spoken, (-np.inf, 0.0)), (total, beside))
        for arc in np.flatnonzero(src == state):
            more = (int(output[arc]),) if output[arc] > 0 else ()
            walk(int(dst[arc]), spoken + more, total + score[arc], beside + part[arc])

    walk(0, (), 0.0, 0.0)
    return result


@st.composite
def _lattices(draw):  # type: ignore[no-untyped-def]
    states = draw(st.integers(2, 7))
    arcs = [(k, k + 1) for k in range(states - 1)]
    arcs += draw(
        st.lists(st.tuples(st.integers(0, states - 2), st.integers(1, states - 1)).filter(lambda a: a[0] < a[1]))
    )
    src, dst = np.array(sorted(arcs), np.int32).T
    outputs = draw(st.lists(st.integers(-1, 3), min_size=len(src), max_size=len(src)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return src, dst, np.array(outputs, np.int32), rng.normal(size=len(src)), rng.normal(size=len(src))


@settings(max_examples=200, deadline=None)
@given(_lattices())
def test_scores_are_those_of_the_best_of_all_paths(lattice) -> None:  # type: ignore[no-untyped-def]
    expected = _by_trying_all(*lattice)
    sequences = [*expected, (9,), (1,) * 20]
    result = best_scores(*lattice, sequences)
    for sequence, sums in zip(sequences, result, strict=True):
        assert sums == pytest.approx(expected.get(sequence, (-np.inf, 0.0)))


def test_what_is_no_lattice_is_refused() -> None:
    one = np.ones(1)
    with pytest.raises(ValueError, match="topological"):
        best_scores(np.array([1], np.int32), np.array([0], np.int32), np.zeros(1, np.int32), one, one, [()])
