"""Which systems are trained at once: those that together keep all places busy, the longest first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

# of the seconds that a training takes on one of two cores, what it takes on both: two members of mini.yaml's teacher
# side by side were trained 1.28 times as fast as one after the other
WITH_ALL_CORES = 0.65


def trained_now(loads: Sequence[float], places: int, alone: float = WITH_ALL_CORES) -> list[int]:
    """The trainings that run next, in the order in which they start; what is left out is asked for again afterwards.

    All start as places become free, unless one is so long, or one so many, that it ends sooner by itself.

    Args:
      loads: how long each takes on its share of the cores, in any unit.
      places: trainings that run at once.
      alone: the part of that which a training takes that has all cores.

    >>> trained_now([4.0, 4.0, 2.0, 2.0], places=2)
    [0, 1, 2, 3]
    >>> trained_now([4.0, 4.0, 4.0], places=2)  # the third runs by itself afterwards
    [0, 1]
    >>> trained_now([9.0, 1.0], places=2)
    [0]
    """
    longest_first = sorted(range(len(loads)), key=lambda number: -loads[number])

    def duration(left_out: int | None) -> float:
        rest = [loads[number] for number in longest_first if number != left_out]
        together = alone * rest[0] if len(rest) == 1 else _until_the_last_ends(rest, places)
        return together + (0.0 if left_out is None else alone * loads[left_out])

    # of equal ones the last: systems start in the order of the config
    choices = [None, *reversed(longest_first)] if len(loads) > 1 else [None]
    left_out = min(choices, key=duration)
    return [number for number in longest_first if number != left_out]


def _until_the_last_ends(loads: Sequence[float], places: int) -> float:
    ends = [0.0] * places
    for load in loads:
        heapq.heapreplace(ends, ends[0] + load)
    return max(ends)
