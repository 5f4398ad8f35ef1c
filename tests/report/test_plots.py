"""Ticks of the report's figures tell their values apart."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.report import plots
from asr_kd.report.results import Results
from asr_kd.report.results_file import read_results
from asr_kd.stages.report import report


@pytest.fixture(scope="module")
def results(finished_run) -> Results:
    return read_results(report(*finished_run).path / "results.json")


def _changed(results: Results, middle: float, half: float, sizes: tuple[int, int, int]) -> Results:
    """The three systems of the first comparison, with other rates and sizes."""
    rows = [
        replace(
            results.row(name),
            bytes=size,
            wer={"test": middle + shift * half, "dev": middle},
            wer_ci95={"test": (middle - half, middle + half)},
        )
        for name, size, shift in zip(("direct", "teacher", "distilled"), sizes, (0.3, -0.3, 0.0), strict=True)
    ]
    return replace(results, systems=rows, comparisons=[])


def _numbers(svg: str, unit: str) -> list[float]:
    return [float(text) for text in re.findall(rf">([\d.]+)\s?{unit}</text>", svg)]


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 0.9), st.floats(0.002, 0.04))
def test_no_two_ticks_of_an_error_rate_read_the_same(results: Results, middle: float, half: float) -> None:
    svg = plots.size_and_errors(_changed(results, middle, half, (4_000_000, 20_000_000, 4_000_000)))
    ticks = _numbers(svg, "%")
    assert len(ticks) > 2 and len(set(ticks)) == len(ticks)
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps), abs=1e-6)  # none was rounded


def test_sizes_are_named_where_the_models_are(results: Results) -> None:
    svg = plots.size_and_errors(_changed(results, 0.3, 0.01, (4_000_000, 20_000_000, 4_200_000)))
    assert _numbers(svg, "MB") == [4.0, 20.0]


def test_labels_of_points_that_coincide_are_drawn_apart(results: Results) -> None:
    same = _changed(results, 0.3, 0.0, (4_000_000, 4_000_000, 4_000_000))
    svg = plots.size_and_errors(same)
    heights = sorted(
        float(re.search(rf'y="([\d.]+)"[^>]*>{row.name}</text>', svg).group(1))  # type: ignore[union-attr]
        for row in same.systems
    )
    assert len(heights) == 3 and all(b - a >= 9 for a, b in itertools.pairwise(heights))  # points: the size of the font
