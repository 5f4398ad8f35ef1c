"""Long recordings are cut where it is quiet, and nothing of them is lost."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.runtime.pieces import pieces

RATE = 1000


@given(seconds=st.floats(0.001, 200), longest=st.floats(1, 40), seed=st.integers(0, 99))
def test_pieces_follow_each_other_and_none_is_too_long(seconds, longest, seed):
    samples = np.random.default_rng(seed).normal(size=max(1, round(seconds * RATE)))
    ranges = list(pieces(samples, RATE, longest))
    assert ranges[0].start == 0 and ranges[-1].stop == len(samples)
    assert all(a.stop == b.start for a, b in itertools.pairwise(ranges))
    assert all(0 < len(piece) <= (longest + 0.01) * RATE for piece in ranges)
    assert len(ranges) == 1 or all(len(piece) >= (min(10, longest / 3) - 0.01) * RATE for piece in ranges)


@given(pauses=st.lists(st.integers(11, 28), min_size=1, max_size=6))
def test_a_cut_is_in_a_pause_where_one_is_within_reach(pauses):
    """A pause of 0.4 s after each stretch of these lengths."""
    rng = np.random.default_rng(0)
    samples = np.concatenate(
        [
            rng.normal(size=RATE * length) * np.append(np.ones(RATE * length - 400), np.full(400, 0.01))
            for length in pauses
        ]
        + [rng.normal(size=RATE * 30)]
    )
    ends = np.cumsum(pauses) * RATE
    for piece in pieces(samples, RATE):
        latest = min(piece.start + 30 * RATE, len(samples) - 10 * RATE)
        reachable = ends[(ends - 400 >= piece.start + 10 * RATE) & (ends <= latest)]
        if piece.stop < len(samples) and len(reachable):
            assert any(end - 400 <= piece.stop <= end for end in ends)
