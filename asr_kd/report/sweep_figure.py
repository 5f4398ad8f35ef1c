"""The rows of a sweep and their figure: the first key along the axis, a line for each other combination and system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from asr_kd.evaluation.scoring import Unit
from asr_kd.report.results import Role
from asr_kd.report.style import COLOURS, OTHERS
from asr_kd.report.svg import STYLE, percents, to_svg

# dashes and size of the marker: a line shows through those that are drawn over it where they coincide
_STROKES = (("-", 8), ((0, (4, 3)), 6), ((0, (1, 3)), 4))

# title, mean of a row, and the value of each seed where they are drawn too
_Panel = tuple[str, Callable[["SweepRow"], float], Callable[["SweepRow"], Sequence[float]] | None]


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
    cer: dict[str, float] = field(default_factory=dict)  # where characters are counted beside words
    per: dict[str, float] = field(default_factory=dict)  # where phones are decoded beside words
    per_per_seed: dict[str, list[float]] = field(default_factory=dict)
    rtf: float | None = None  # on the last of these sets

    def as_mapping(self) -> dict[str, Any]:
        """Returns the grid's values and what was measured, for sweep.json."""
        left_out = {"values", "role"} | (set() if self.wer else {"unit", "wer", "wer_per_seed", "rtf"})
        left_out |= set() if self.cer else {"cer"}
        left_out |= set() if self.per else {"per", "per_per_seed"}
        return {**self.values, **{name: value for name, value in vars(self).items() if name not in left_out}}


@mpl.rc_context(STYLE)
def draw(rows: Sequence[SweepRow]) -> str:
    """SVG: frame accuracy on dev, and cross-entropy; where points were decoded, errors and real-time factor instead."""
    first, *others = rows[0].values
    others = [key for key in others if len({str(row.values[key]) for row in rows}) > 1]  # one value says nothing
    panels = _panels(rows[0])
    figure = Figure(figsize=(9.6 + 3.6 * (len(panels) - 2), 3.9), layout="constrained")
    axes = figure.subplots(1, len(panels))
    values = list(dict.fromkeys(row.values[first] for row in rows))
    for number, (label, colour, line) in enumerate(_lines(rows, others)):
        x = [values.index(row.values[first]) for row in line]
        dashes, size = _STROKES[number % len(_STROKES)]
        style: dict[str, Any] = {"linestyle": dashes, "marker": "o", "markersize": size}
        for ax, (_, mean, each) in zip(axes, panels, strict=True):
            ax.plot(x, [mean(row) for row in line], label=label, color=colour, **style)
            if each is not None:
                for place, row in zip(x, line):
                    ax.plot([place] * len(each(row)), each(row), ".", color=colour, markersize=4, alpha=0.45)
    for ax, (title, _, _) in zip(axes, panels, strict=True):
        ax.set_title(title)
        ax.xaxis.set_major_locator(FixedLocator(range(len(values))))
        ax.set_xticklabels([str(value) for value in values])
        ax.set_xlabel(first)
    for ax in axes[:-1]:
        ax.yaxis.set_major_formatter(percents())
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    return to_svg(figure, "sweep", "The sweep")


def _panels(row: SweepRow) -> list[_Panel]:
    accuracy: _Panel = "Frame accuracy on dev", lambda r: r.frame_accuracy, lambda r: r.frame_accuracy_each
    if not row.wer:
        return [accuracy, ("Cross-entropy on dev, nats", lambda r: r.cross_entropy, None)]
    name = list(row.wer)[-1]
    phones: _Panel = f"Phone error rate on {name}", lambda r: r.per[name], lambda r: r.per_per_seed[name]
    return [
        accuracy,
        *([phones] if row.per else []),
        (f"{row.unit.capitalize()} error rate on {name}", lambda r: r.wer[name], lambda r: r.wer_per_seed[name]),
        (f"Real-time factor on {name}, one core", lambda r: r.rtf or 0.0, None),
    ]


def _lines(rows: Sequence[SweepRow], keys: Sequence[str]) -> list[tuple[str, str, list[SweepRow]]]:
    """Label, colour and points of each line."""
    by_label: dict[str, list[SweepRow]] = {}
    for row in rows:
        others = [f"{key.rpartition('.')[2]} {row.values[key]}" for key in keys]
        by_label.setdefault(", ".join([row.system, *others]), []).append(row)
    tones = (*(COLOURS[role] for role in ("distilled", "teacher", "direct", "control")), *OTHERS)
    roles = [line[0].role for line in by_label.values()]
    by_role = not keys and "other" not in roles and len(set(roles)) == len(roles)
    return [
        (label, COLOURS[line[0].role] if by_role else tones[number % len(tones)], line)
        for number, (label, line) in enumerate(by_label.items())
    ]
