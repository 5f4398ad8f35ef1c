"""The figure of a sweep: the first key along the axis, one line for each combination of the others and each system."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from asr_kd.report.style import COLOURS, colour, is_small
from asr_kd.report.svg import STYLE, percents, to_svg

Row = dict[str, Any]
_TONES = ("#12a383", "#5b78e5", "#e0763a", "#a88bb4", "#c2a227", "#7d8a94")


def draw(rows: Sequence[Row], keys: Sequence[str]) -> str:
    """SVG: frame accuracy on dev, and cross-entropy; where points were decoded, errors and real-time factor instead."""
    decoded = "wer" in rows[0]
    keys = [keys[0], *(key for key in keys[1:] if len({str(row[key]) for row in rows}) > 1)]  # one value says nothing
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13.2 if decoded else 9.6, 3.9), layout="constrained")
        axes = figure.subplots(1, 3 if decoded else 2)
        values = list(dict.fromkeys(row[keys[0]] for row in rows))
        for number, (label, line) in enumerate(_lines(rows, keys).items()):
            x = [values.index(row[keys[0]]) for row in line]
            look: dict[str, Any] = {
                "color": _tone(line, keys, number),
                "linestyle": "--" if is_small(line[0]["system"]) else "-",
            }
            for ax, (y, each) in zip(axes, _curves(line), strict=True):
                _plot(ax, x, y, each, look, label)
        for ax, title in zip(axes, _titles(rows[0]), strict=True):
            ax.set_title(title)
            ax.xaxis.set_major_locator(FixedLocator(range(len(values))))
            ax.set_xticklabels([str(value) for value in values])
            ax.set_xlabel(keys[0])
        for ax in axes[: 2 if decoded else 1]:
            ax.yaxis.set_major_formatter(percents())
        axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
        return to_svg(figure, "sweep", "The sweep")


def _titles(row: Row) -> list[str]:
    if "wer" not in row:
        return ["Frame accuracy on dev", "Cross-entropy on dev, nats"]
    name = list(row["wer"])[-1]
    rate = f"{row.get('unit', 'word').capitalize()} error rate on {name}"
    return ["Frame accuracy on dev", rate, f"Real-time factor on {name}, one core"]


def _curves(line: Sequence[Row]) -> list[tuple[list[float], list[list[float]]]]:
    """For each panel the means, and what each seed has."""
    accuracy = [row["frame_accuracy"] for row in line], [row["frame_accuracy_each"] for row in line]
    if "wer" not in line[0]:
        return [accuracy, ([row["cross_entropy"] for row in line], [])]
    name = list(line[0]["wer"])[-1]
    errors = [row["wer"][name] for row in line], [row["wer_per_seed"][name] for row in line]
    return [accuracy, errors, ([row["rtf"] for row in line], [])]


def _lines(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, list[Row]]:
    lines: dict[str, list[Row]] = {}
    for row in rows:
        others = [f"{key.rpartition('.')[2]} {row[key]}" for key in keys[1:]]
        lines.setdefault(", ".join([row["system"], *others]), []).append(row)
    return lines


def _tone(line: Sequence[Row], keys: Sequence[str], number: int) -> str:
    system = str(line[0]["system"])
    return (
        colour(system) if len(keys) == 1 and system.removesuffix("-small") in COLOURS else _TONES[number % len(_TONES)]
    )


def _plot(
    ax: Axes, x: list[int], y: list[float], each: Sequence[Sequence[float]], look: dict[str, Any], label: str
) -> None:
    ax.plot(x, y, marker="o", markersize=5, label=label, **look)
    for place, seeds in zip(x, each, strict=False):
        ax.plot(np.full(len(seeds), place), seeds, ".", color=look["color"], markersize=4, alpha=0.45)
