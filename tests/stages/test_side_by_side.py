"""Trainings that run at once are the fastest of all the ways to begin."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asr_kd.stages.side_by_side import WITH_ALL_CORES, trained_now

loads = st.lists(st.floats(0.1, 100.0), min_size=1, max_size=6)


def duration(chosen: list[int], loads: list[float]) -> float:
    """Of those on two places, each as soon as one is free, and of the others one after the other with all cores."""
    if len(chosen) == 1:
        together = WITH_ALL_CORES * loads[chosen[0]]
    else:
        ends = [0.0, 0.0]
        for number in chosen:
            ends[ends.index(min(ends))] += loads[number]
        together = max(ends)
    return together + WITH_ALL_CORES * sum(load for number, load in enumerate(loads) if number not in chosen)


@given(loads)
def test_no_other_beginning_is_faster(loads: list[float]) -> None:
    chosen = trained_now(loads, places=2)
    assert chosen and len(set(chosen)) == len(chosen)
    assert [loads[number] for number in chosen] == sorted((loads[number] for number in chosen), reverse=True)
    best = duration(chosen, loads)
    everything = sorted(range(len(loads)), key=lambda number: -loads[number])
    assert best <= duration(everything, loads) + 1e-9
    for left_out in range(len(loads)) if len(loads) > 1 else ():
        assert best <= duration([number for number in everything if number != left_out], loads) + 1e-9


@given(loads, st.integers(2, 8))
def test_on_machines_of_their_own_all_run_at_once(loads: list[float], places: int) -> None:
    assert sorted(trained_now(loads, places, alone=1.0)) == list(range(len(loads)))
