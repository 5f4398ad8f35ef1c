"""The report's figures. Each system has one colour in all of them; a pair's small model has its big model's, hollow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from asr_kd.evaluation.frames import ExampleFrame
from asr_kd.report.style import COLOURS, colour, human_bytes, is_small
from asr_kd.report.svg import INK, STYLE, percents, to_svg

Rows = dict[str, dict[str, Any]]  # system -> its row of results["systems"]


def training_curves(logs: dict[str, list[dict[str, Any]]]) -> str:
    """Dev frame accuracy and cross-entropy after each epoch: the mean thick, each member or seed thin.

    Args:
      logs: system -> rows of log.jsonl. Monophones are left out: another set of states is another scale.
    """
    with mpl.rc_context(STYLE):
        groups = [[s for s in logs if s != "monophone" and is_small(s) == small] for small in (False, True)]
        groups = [group for group in groups if group]
        spaced = ConstrainedLayoutEngine(hspace=0.08, wspace=0.04)
        figure = Figure(figsize=(9.6, 3.5 * len(groups)), layout=spaced)
        axes = figure.subplots(len(groups), 2, squeeze=False)
        for row, group in enumerate(groups):
            kind = ", small pair" if group[0].endswith("-small") else ""
            for ax, key, title in (
                (axes[row, 0], "dev_accuracy", f"Frame accuracy on dev{kind}"),
                (axes[row, 1], "dev_cross_entropy", f"Cross-entropy on dev{kind}, nats"),
            ):
                ends = []
                for system in group:
                    values = _series(logs[system], key)
                    if len(values) == 0:
                        continue
                    epochs = np.arange(1, len(values) + 1)
                    ax.plot(epochs, values, color=colour(system), alpha=0.28, linewidth=0.9)
                    mean = values.mean(axis=1)
                    what = "ensemble's members" if system == "ensemble" else system
                    # dashed and on top: direct nets that are the ensemble's members are drawn over them
                    dash = {"linestyle": (0, (4, 2)), "zorder": 3} if system.startswith("direct") else {}
                    ax.plot(epochs, mean, color=colour(system), label=what, **dash)
                    best = mean.argmax() if key == "dev_accuracy" else mean.argmin()
                    ax.plot(epochs[best], mean[best], "o", color=colour(system), markersize=5.5)
                    ends.append(values)
                ax.set_title(title)
                ax.set_xlabel("epoch")
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
                if ends:
                    _clip_the_start(ax, ends, rising=key == "dev_accuracy")
                if key == "dev_accuracy":
                    ax.yaxis.set_major_formatter(percents())
                    ax.legend(loc="lower right")
        return to_svg(figure, "training-curves", "Training curves")


def members(curve: dict[str, list[dict[str, Any]]], disagreement: Sequence[Sequence[float]], rows: Rows) -> str:
    """What each further member adds to the ensemble, and how often two members disagree (test)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.7), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.65, 1])
        for name, dash in (("test", "-"), ("dev", (0, (4, 2)))):
            points = curve[name]
            x = [p["members"] for p in points]
            low, high = zip(*(p["range"] for p in points), strict=True)
            left.fill_between(x, low, high, color=COLOURS["ensemble"], alpha=0.12, linewidth=0)
            y = [p["frame_accuracy"] for p in points]
            left.plot(x, y, linestyle=dash, marker="o", markersize=4.5, color=COLOURS["ensemble"], label=f"{name} set")
        for system in ("distilled", "direct"):
            value = rows[system]["frame_accuracy"]["test"]
            left.axhline(value, color=colour(system), linewidth=1.4, linestyle=(0, (1.5, 1.5)))
            left.plot([], [], color=colour(system), linestyle=(0, (1.5, 1.5)), label=f"{system}, one net (test)")
        left.set_title("Frame accuracy as members are added")
        left.set_xlabel("members of the ensemble")
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.yaxis.set_major_formatter(percents())
        left.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, handlelength=3.2)
        _heat(right, np.asarray(disagreement))
        return to_svg(figure, "members", "Members of the ensemble")


def error_rates(rows: Rows, unit: str = "word") -> str:
    """The rate on test with its 95 % interval; small dots are single seeds, diamonds the dev set."""
    with mpl.rc_context(STYLE):
        names = list(rows)
        figure = Figure(figsize=(9.6, 0.85 + 0.52 * len(names)), layout="constrained")
        ax = figure.subplots()
        for y, name in enumerate(names):
            row, tone = rows[name], colour(name)
            low, high = row["wer_ci95"]["test"]
            ax.plot([low, high], [y, y], color=tone, linewidth=7, alpha=0.28, solid_capstyle="round")
            ax.plot(
                row["each"]["wer"]["test"],
                [y + 0.27] * len(row["each"]["wer"]["test"]),
                ".",
                color=tone,
                markersize=5,
                alpha=0.9,
            )
            ax.plot(row["wer"]["dev"], y, "D", color=tone, markersize=5, fillstyle="none", markeredgewidth=1.3)
            ax.plot(row["wer"]["test"], y, "o", **_mark(name, 9))
            ax.annotate(
                f"{row['wer']['test']:.1%}", (row["wer"]["test"], y), (0, 8), **_LABEL, ha="center", va="bottom"
            )
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.45, -0.75)
        ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_formatter(percents())
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel(f"{unit} error rate on test: mean, 95 % interval, single seeds below; open diamond: dev")
        return to_svg(figure, "wer", f"{unit.capitalize()} error rates")


def size_and_errors(rows: Rows, unit: str = "word") -> str:
    """What a model's size buys: bytes on disk against the error rate on test."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.7), layout="constrained")
        ax = figure.subplots()
        shown = {name: row for name, row in rows.items() if name != "monophone"}
        for name, row in shown.items():
            low, high = row["wer_ci95"]["test"]
            ax.plot([row["bytes"]] * 2, [low, high], color=colour(name), linewidth=1.2, alpha=0.35)
            ax.plot(row["bytes"], row["wer"]["test"], "o", **_mark(name, 10))
            ax.annotate(name, (row["bytes"], row["wer"]["test"]), (9, 0), **_LABEL, va="center")
        for pair in (("direct", "distilled"), ("direct-small", "distilled-small")):
            if all(name in shown for name in pair):
                x, y = shown[pair[0]]["bytes"], [shown[name]["wer"]["test"] for name in pair]
                ax.annotate(
                    "",
                    (x, y[1]),
                    (x, y[0]),
                    arrowprops={"arrowstyle": "->", "color": INK, "alpha": 0.55, "shrinkA": 6, "shrinkB": 6},
                )
        ax.set_xscale("log")
        sizes = sorted({row["bytes"] for row in shown.values()})
        ax.set_xlim(sizes[0] / 1.6, sizes[-1] * 2.2)
        named = [size for k, size in enumerate(sizes) if k == 0 or size > 1.3 * sizes[k - 1]]  # others would overlap
        ax.xaxis.set_major_locator(FixedLocator(named))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: human_bytes(x)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(percents())
        ax.set_xlabel("size of the weights on disk")
        ax.set_ylabel(f"{unit} error rate on test")
        return to_svg(figure, "size", f"Size and {unit} error rate")


def speed(rows: Rows) -> str:
    """Real-time factor of decoding test: seconds of work per second of speech; less is faster."""
    with mpl.rc_context(STYLE):
        names = list(rows)
        figure = Figure(figsize=(9.6, 0.75 + 0.36 * len(names)), layout="constrained")
        ax = figure.subplots()
        for y, name in enumerate(names):
            tone = colour(name)
            face = "none" if is_small(name) else tone
            ax.barh(y, rows[name]["rtf"], height=0.55, facecolor=face, edgecolor=tone, linewidth=1.6)
            ax.annotate(f"{rows[name]['rtf']:.3f}", (rows[name]["rtf"], y), (6, 0), **_LABEL, va="center")
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.set_xlim(0, max(row["rtf"] for row in rows.values()) * 1.12 or 1)
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("real-time factor (net and search) on test")
        return to_svg(figure, "rtf", "Real-time factor")


def soft_targets(example: ExampleFrame, names: Sequence[str]) -> str:
    """One frame's soft targets at each temperature.

    Args:
      names: of example.states.
    """
    with mpl.rc_context(STYLE):
        count = len(example.states)
        figure = Figure(figsize=(9.6, 1.1 + 0.34 * count), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(example.temperatures), sharey=True))
        for ax, temperature, values in zip(axes, example.temperatures, example.probabilities, strict=True):
            tones = [COLOURS["distilled"] if s == example.label else COLOURS["ensemble"] for s in example.states]
            ax.barh(range(count), values, height=0.66, color=tones)
            for y, value in enumerate(values):
                ax.annotate(_percent(value), (value, y), (4, 0), **_LABEL, va="center", fontsize=8.5)
            ax.set_title(f"T = {temperature:g}")
            ax.set_xlim(0, max(values) * 1.35)
            ax.set_xticks([])
            ax.set_xlabel(f"all other states: {max(0.0, 1 - values.sum()):.0%}", fontsize=9)
            ax.grid(visible=False)
            ax.spines["bottom"].set_visible(False)
            ax.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(count), [_short(name) for name in names], fontsize=9)
        axes[0].invert_yaxis()
        return to_svg(figure, "soft-targets", "Soft targets of one frame")


_MANY_EPOCHS = 8  # from as many on the first are left out of a curve
_LABEL: dict[str, Any] = {"textcoords": "offset points"}


def _mark(system: str, size: float) -> dict[str, Any]:
    face = "none" if is_small(system) else colour(system)
    return {"markersize": size, "markerfacecolor": face, "markeredgecolor": colour(system), "markeredgewidth": 2}


def _series(log: list[dict[str, Any]], key: str) -> np.ndarray:
    """(epochs, members)"""
    return np.array([np.atleast_1d(row[key]) for row in log if key in row], np.float64)


def _clip_the_start(ax: Axes, series: list[np.ndarray], *, rising: bool) -> None:
    """The first of many epochs are far off: leaves them out of the range, so that what differs in the end is seen."""
    low, high = min(s.min() for s in series), max(s.max() for s in series)
    many = max(len(s) for s in series) >= _MANY_EPOCHS
    if many and rising:
        low = max(low, min(np.quantile(s.mean(axis=1), 0.25) for s in series) - 0.05 * (high - low))
    elif many:
        high = min(high, max(np.quantile(s.mean(axis=1), 0.75) for s in series) + 0.05 * (high - low))
    margin = 0.06 * (high - low) or 0.01
    ax.set_ylim(low - margin, high + margin)


def _heat(ax: Axes, disagreement: np.ndarray) -> None:
    count = len(disagreement)
    ax.set_title("Members that disagree")
    shown = np.where(np.eye(count, dtype=bool), np.nan, disagreement)
    spread = disagreement[~np.eye(count, dtype=bool)] if count > 1 else np.zeros(1)
    low, high = float(spread.min()), float(spread.max())
    for i in range(count):
        for j in range(count):
            if i == j:
                continue
            depth = 0.15 + 0.5 * (shown[i, j] - low) / (high - low or 1)
            ax.add_patch(
                mpl.patches.Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, color=COLOURS["ensemble"], alpha=depth, lw=0)
            )
            if count <= 10:
                size = 9 if count <= 6 else 6.5
                ax.text(j, i, f"{shown[i, j]:.1%}", ha="center", va="center", fontsize=size)
    ax.set_xlim(-0.5, count - 0.5)
    ax.set_ylim(count - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.set_xticks(range(count), [str(k + 1) for k in range(count)])
    ax.set_yticks(range(count), [str(k + 1) for k in range(count)])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("member")


def _percent(value: float) -> str:
    return f"{value:.0%}" if value >= 0.095 else f"{value:.1%}" if value >= 0.00095 else "<0.1%"


def _short(name: str, limit: int = 42) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"
