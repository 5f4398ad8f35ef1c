"""The report's first figure: error rate against parameters, direct and distilled, with the teachers as lines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from asr_kd.io.formatting import human_count
from asr_kd.report.results import Results
from asr_kd.report.style import COLOURS, Look, looks, mark
from asr_kd.report.svg import INK, LABEL, STYLE, move_apart, percents, to_svg
from asr_kd.report.worth import Pair, error_metrics, pairs

_MARKERS = {"direct": "o", "distilled": "s"}  # they differ in print without colours too


@mpl.rc_context(STYLE)
def draw(results: Results, title: str) -> str:
    """SVG: a panel for each rate of errors on the main test set.

    Args:
      title: what it shows, for who cannot see it.
    """
    metrics, name = error_metrics(results), results.main_set
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    labels = []
    for ax, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        of_set = pairs(results, name, metric)
        labels += _panel(ax, of_set, looks(results))
        ax.set_xlabel("parameters of the network")
        ax.set_ylabel(f"{metric.name} on {name}")
    figure.axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3)
    move_apart(figure, labels)
    return to_svg(figure, "worth", title)


def _panel(ax: Axes, of_set: Sequence[Pair], look: Mapping[str, Look]) -> list[Annotation]:
    """Draws the pairs and their teachers; returns the labels, which may overlap."""
    places = _places(of_set)
    for role in ("direct", "distilled"):
        for line in lines(of_set):
            sizes, values = [places[k][role] for k in line], [of_set[k].value(getattr(of_set[k], role)) for k in line]
            ax.plot(sizes, values, color=COLOURS[role], linewidth=1.4, alpha=0.45)
        name = "trained directly" if role == "direct" else role
        ax.plot([], [], _MARKERS[role], color=COLOURS[role], markersize=9, label=name)
    labels = []
    drawn: set[tuple[str, float]] = set()
    of_size = Counter(pair.distilled.parameters for pair in of_set)
    for place, pair in zip(places, of_set, strict=True):
        for role, side in (("direct", -1), ("distilled", 1)):
            row = getattr(pair, role)
            x, y, tone = place[role], pair.value(row), look[row.name].colour
            if (row.name, x) in drawn:
                continue
            drawn.add((row.name, x))
            ax.plot([x, x], pair.interval(row), color=tone, linewidth=1.6, alpha=0.5)
            ax.plot(x, y, _MARKERS[role], **mark(look[row.name], 9), zorder=3)
            # beside the lines, which fall to the right, and away from the teacher's
            below = side < 0 or _beats_teacher(pair)
            beside: dict[str, Any] = {"ha": "right" if side < 0 else "left", "va": "top" if below else "bottom"}
            beside["fontsize"] = 10 if len(of_set) <= 3 else 8.5
            offset = 8 * side, -5 if below else 5
            text = f"{row.name} {y:.1%}" if of_size[pair.distilled.parameters] > 1 else f"{y:.1%}"
            labels.append(ax.annotate(text, (x, y), offset, **LABEL, **beside, color=tone))
        start, end = ((place[role], pair.value(getattr(pair, role))) for role in ("direct", "distilled"))
        arrow = {"arrowstyle": "->", "color": INK, "alpha": 0.55, "shrinkA": 7, "shrinkB": 7}
        ax.annotate("", end, start, arrowprops=arrow)
    labels += _teachers(ax, of_set, look)
    _sizes(ax, of_set)
    return labels


def _teachers(ax: Axes, of_set: Sequence[Pair], look: Mapping[str, Look]) -> list[Annotation]:
    """A line for each; its name and size stand at the left end, where the small networks are far above it."""
    labels = []
    lowest_first = sorted(of_set, key=lambda pair: pair.value(pair.teacher))
    for number, pair in enumerate({pair.teacher.name: pair for pair in lowest_first}.values()):
        y, row, tone = pair.value(pair.teacher), pair.teacher, look[pair.teacher.name].colour
        dashes: dict[str, Any] = {"linestyle": (0, (5, 3)), "label": "teacher" if number == 0 else None}
        ax.axhline(y, color=tone, linewidth=1.6, **dashes)
        text = f"{row.name} {y:.1%}, {human_count(row.parameters)} parameters"
        # the lowest below its line, unless a network is there, the others above theirs: so two that are near stay apart
        above = number > 0 or any(_beats_teacher(pair) for pair in of_set)
        side: dict[str, Any] = {"xytext": (4, 4 if above else -4), "va": "bottom" if above else "top"}
        at: dict[str, Any] = {"xy": (0, y), "xycoords": ("axes fraction", "data")}
        labels.append(ax.annotate(text, **at, **LABEL, **side, ha="left", color=tone, fontsize=9))
    return labels


def _beats_teacher(pair: Pair) -> bool:
    return pair.value(pair.distilled) < pair.value(pair.teacher)


def lines(of_set: Sequence[Pair]) -> list[list[int]]:
    """Numbers of the pairs that a line joins, since they differ in size alone: of one kind, each of its own size."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for number, pair in enumerate(of_set):
        kinds.setdefault((pair.direct.kind, pair.distilled.kind), []).append(number)
    sizes = [len({of_set[number].distilled.parameters for number in line}) for line in kinds.values()]
    return [line for line, count in zip(kinds.values(), sizes, strict=True) if count == len(line)]


def _places(of_set: Sequence[Pair]) -> list[dict[str, float]]:
    """Returns where each pair's two points lie on the axis: around its size, and beside pairs of the same size.

    A network that several pairs of one size have in the same role has one place.
    """
    left, right = _range(of_set)
    step = (right / left) ** 0.011
    places: list[dict[str, float]] = []
    first: dict[tuple[str, str, int], float] = {}
    for k, pair in enumerate(of_set):
        same = [other for other in of_set if other.distilled.parameters == pair.distilled.parameters]
        number = sum(other.distilled.parameters == pair.distilled.parameters for other in of_set[:k])
        centre = pair.distilled.parameters * step ** (8 * (number - (len(same) - 1) / 2))
        own = {"direct": centre / step, "distilled": centre * step}
        size = pair.distilled.parameters
        places.append({role: first.setdefault((role, getattr(pair, role).name, size), x) for role, x in own.items()})
    return places


def _range(of_set: Sequence[Pair]) -> tuple[float, float]:
    """Returns the two ends of the axis of parameters."""
    sizes = [pair.distilled.parameters for pair in of_set]
    margin = max(1.8, (max(sizes) / min(sizes)) ** 0.25)
    return min(sizes) / margin, max(sizes) * margin


def _sizes(ax: Axes, of_set: Sequence[Pair]) -> None:
    left, right = _range(of_set)
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    apart = math.exp(0.08 * math.log(right / left))  # names of sizes that are nearer would overlap
    named: list[int] = []
    for size in sorted({pair.distilled.parameters for pair in of_set}):
        if not named or size > apart * named[-1]:
            named.append(size)
    kinds = {pair.distilled.parameters: pair.distilled.kind for pair in of_set}
    below = {size: f"\n{kind}" if len(set(kinds.values())) > 1 else "" for size, kind in kinds.items()}
    ax.xaxis.set_major_locator(FixedLocator(named))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: human_count(x) + below.get(round(x), "")))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(percents())
    ax.margins(y=0.12)
