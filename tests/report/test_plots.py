"""Ticks of the report's figures tell their values apart."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.report import plots


def _rows(middle: float, half: float, sizes: tuple[int, int, int]) -> plots.Rows:
    return {
        name: {
            "bytes": size,
            "wer": {"test": middle + shift * half, "dev": middle},
            "wer_ci95": {"test": [middle - half, middle + half]},
            "each": {"wer": {"test": [middle]}},
        }
        for name, size, shift in zip(("direct", "ensemble", "distilled"), sizes, (0.3, -0.3, 0.0), strict=True)
    }


def _numbers(svg: str, unit: str) -> list[float]:
    return [float(text) for text in re.findall(rf">([\d.]+)\s?{unit}</text>", svg)]


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 0.9), st.floats(0.002, 0.04))
def test_no_two_ticks_of_an_error_rate_read_the_same(middle: float, half: float) -> None:
    svg = plots.size_and_errors(_rows(middle, half, (4_000_000, 20_000_000, 4_000_000)))
    ticks = _numbers(svg, "%")
    assert len(ticks) > 2 and len(set(ticks)) == len(ticks)
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps), abs=1e-6)  # none was rounded


def test_sizes_are_named_where_the_models_are() -> None:
    svg = plots.size_and_errors(_rows(0.3, 0.01, (4_000_000, 20_000_000, 4_200_000)))
    assert _numbers(svg, "MB") == [4.0, 20.0]
