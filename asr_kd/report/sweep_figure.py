"""The rows of a sweep and their figure: the first key along the axis, a line for each other combination and system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from asr_kd.report.results import Role, Unit
from asr_kd.report.style import COLOURS, OTHERS
from asr_kd.report.svg import STYLE, percents, to_svg


@dataclass(frozen=True)
class SweepRow:
    """One system at one point of the grid; accuracies and cross-entropy are those of dev, means over the models."""

    values: Mapping[str, Any]  # key of the grid -> its value here
    system: str
    role: Role
    parameters: int
    seeds: int
    frame_accuracy: float
    frame_accuracy_each: list[float]
    cross_entropy: float
    # by set, where the point was decoded
    unit: Unit = "word"
    wer: dict[str, float] = field(default_factory=dict)
    wer_per_seed: dict[str, list[float]] = field(default_factory=dict)
    rtf: float | None = None  # on the last of these sets

    def as_mapping(self) -> dict[str, Any]:
        """For sweep.json: the grid's values and what was measured."""
        measured = {name: value for name, value in vars(self).items() if name not in ("values", "role")}
        if not self.wer:
            for name in ("unit", "wer", "wer_per_seed", "rtf"):
                del measured[name]
        return {**self.values, **measured}


@dataclass(frozen=True)
class _Line:
    label: str
    colour: str
    rows: list[SweepRow]


def draw(rows: Sequence[SweepRow]) -> str:
    """SVG: frame accuracy on dev, and cross-entropy; where points were decoded, errors and real-time factor instead."""
    first, *others = rows[0].values
    others = [key for key in others if len({str(row.values[key]) for row in rows}) > 1]  # one value says nothing
    decoded = bool(rows[0].wer)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13.2 if decoded else 9.6, 3.9), layout="constrained")
        axes = figure.subplots(1, 3 if decoded else 2)
        values = list(dict.fromkeys(row.values[first] for row in rows))
        for line in _lines(rows, others):
            x = [values.index(row.values[first]) for row in line.rows]
            for ax, (y, each) in zip(axes, _curves(line.rows), strict=True):
                _plot(ax, x, y, each, line)
        for ax, title in zip(axes, _titles(rows[0]), strict=True):
            ax.set_title(title)
            ax.xaxis.set_major_locator(FixedLocator(range(len(values))))
            ax.set_xticklabels([str(value) for value in values])
            ax.set_xlabel(first)
        for ax in axes[: 2 if decoded else 1]:
            ax.yaxis.set_major_formatter(percents())
        axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
        return to_svg(figure, "sweep", "The sweep")


def _titles(row: SweepRow) -> list[str]:
    if not row.wer:
        return ["Frame accuracy on dev", "Cross-entropy on dev, nats"]
    name = list(row.wer)[-1]
    rate = f"{row.unit.capitalize()} error rate on {name}"
    return ["Frame accuracy on dev", rate, f"Real-time factor on {name}, one core"]


def _curves(rows: Sequence[SweepRow]) -> list[tuple[list[float], list[list[float]]]]:
    """For each panel the means, and those of each seed."""
    accuracy = [row.frame_accuracy for row in rows], [row.frame_accuracy_each for row in rows]
    if not rows[0].wer:
        return [accuracy, ([row.cross_entropy for row in rows], [])]
    name = list(rows[0].wer)[-1]
    errors = [row.wer[name] for row in rows], [row.wer_per_seed[name] for row in rows]
    return [accuracy, errors, ([row.rtf or 0.0 for row in rows], [])]


def _lines(rows: Sequence[SweepRow], keys: Sequence[str]) -> list[_Line]:
    by_label: dict[str, list[SweepRow]] = {}
    for row in rows:
        others = [f"{key.rpartition('.')[2]} {row.values[key]}" for key in keys]
        by_label.setdefault(", ".join([row.system, *others]), []).append(row)
    tones = (*(COLOURS[role] for role in ("distilled", "teacher", "direct", "control")), *OTHERS)
    roles = [line[0].role for line in by_label.values()]
    by_role = not keys and "other" not in roles and len(set(roles)) == len(roles)
    return [
        _Line(label, COLOURS[line[0].role] if by_role else tones[number % len(tones)], line)
        for number, (label, line) in enumerate(by_label.items())
    ]


def _plot(ax: Axes, x: Sequence[int], y: Sequence[float], each: Sequence[Sequence[float]], line: _Line) -> None:
    ax.plot(x, y, marker="o", markersize=5, label=line.label, color=line.colour)
    for place, seeds in zip(x, each, strict=False):
        ax.plot(np.full(len(seeds), place), seeds, ".", color=line.colour, markersize=4, alpha=0.45)
