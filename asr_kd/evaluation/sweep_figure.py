"""The figure of a sweep: the first key along the axis, one line for each combination of the others and each system."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from asr_kd.evaluation.look import COLOURS, colour, is_small
from asr_kd.evaluation.svg import STYLE, percents, to_svg

Row = dict[str, Any]
_TONES = ("#12a383", "#5b78e5", "#e0763a", "#a88bb4", "#c2a227", "#7d8a94")


def draw(rows: Sequence[Row], keys: Sequence[str]) -> str:
    """SVG: frame accuracy on dev, and beside it the word error rate where it was measured, else the cross-entropy."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        values = list(dict.fromkeys(row[keys[0]] for row in rows))
        for number, (label, line) in enumerate(_lines(rows, keys).items()):
            x = [values.index(row[keys[0]]) for row in line]
            look: dict[str, Any] = {
                "color": _tone(line, keys, number),
                "linestyle": "--" if is_small(line[0]["system"]) else "-",
            }
            _plot(
                left,
                x,
                [row["frame_accuracy"] for row in line],
                [row["frame_accuracy_each"] for row in line],
                look,
                label,
            )
            if "wer" in line[0]:
                name = list(line[0]["wer"])[-1]
                each = [row["wer_per_seed"][name] for row in line]
                _plot(right, x, [row["wer"][name] for row in line], each, look, label)
                right.set_title(f"{line[0].get('unit', 'word').capitalize()} error rate on {name}")
                right.yaxis.set_major_formatter(percents())
            else:
                _plot(right, x, [row["cross_entropy"] for row in line], [], look, label)
                right.set_title("Cross-entropy on dev, nats")
        left.set_title("Frame accuracy on dev")
        left.yaxis.set_major_formatter(percents())
        for ax in (left, right):
            ax.xaxis.set_major_locator(FixedLocator(range(len(values))))
            ax.set_xticklabels([str(value) for value in values])
            ax.set_xlabel(keys[0])
        right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
        return to_svg(figure, "sweep", "The sweep")


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
