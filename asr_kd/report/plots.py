"""The report's figures. Each system has one colour in all of them; those of further comparisons are hollow."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from asr_kd.evaluation.frames import ExampleFrame
from asr_kd.evaluation.wer import Confusion, confusion_matrix
from asr_kd.io.formatting import human_bytes, isolated
from asr_kd.report.results import Rates, Results, SystemRow
from asr_kd.report.style import COLOURS, Look, looks, mark
from asr_kd.report.svg import INK, LABEL, STYLE, move_apart, percents, to_svg

Logs = Mapping[str, Sequence[Mapping[str, Any]]]  # system -> rows of log.jsonl, one per epoch


@mpl.rc_context(STYLE)
def training_curves(results: Results, logs: Logs) -> str:
    """Frame accuracy and cross-entropy on dev after each epoch: the mean thick, each member or seed thin.

    Each comparison has a row. Where one of its systems saw a part of the training data, the frame accuracy in training
    is drawn too. Systems on untied states are left out: another set of senones is another scale.
    """
    tied = [[row for row in group if row.tree == "tied" and logs.get(row.name)] for group in results.groups]
    groups = [group for group in tied if group]
    panels = [("dev_accuracy", "Frame accuracy on dev"), ("dev_cross_entropy", "Cross-entropy on dev, nats")]
    if any(row.train_fraction < 1 for group in groups for row in group):
        panels.insert(0, ("train_accuracy", "Frame accuracy in training"))
    spaced = ConstrainedLayoutEngine(hspace=0.08, wspace=0.04)
    figure = Figure(figsize=(9.6, 3.5 * max(1, len(groups))), layout=spaced)
    axes = figure.subplots(max(1, len(groups)), len(panels), squeeze=False)
    for row, group in zip(axes, groups):
        for ax, (key, title) in zip(row, panels, strict=True):
            _curves(ax, key, group, logs, looks(results))
            ax.set_title(title)
    return to_svg(figure, "training-curves", "Training curves")


def _curves(ax: Axes, key: str, group: Sequence[SystemRow], logs: Logs, look: Mapping[str, Look]) -> None:
    rising, drawn = key != "dev_cross_entropy", []
    for system in group:
        values = _series(logs[system.name], key)
        if len(values) == 0:
            continue
        epochs, mean, colour = np.arange(1, len(values) + 1), values.mean(axis=1), look[system.name].colour
        ax.plot(epochs, values, color=colour, alpha=0.28, linewidth=0.9)
        label = f"{system.name}, its members" if system.is_ensemble else system.name
        # dashed and on top: direct models that are an ensemble's members are drawn over them
        dash: dict[str, Any] = {"linestyle": (0, (4, 2)), "zorder": 3} if system.role == "direct" else {}
        ax.plot(epochs, mean, color=colour, label=label, **dash)
        best = mean.argmax() if rising else mean.argmin()
        ax.plot(epochs[best], mean[best], "o", color=colour, markersize=5.5)
        drawn.append(values)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if drawn:
        _clip_the_start(ax, drawn, rising=rising)
    if rising:
        ax.yaxis.set_major_formatter(percents())
    if rising and drawn:
        ax.legend(loc="lower right")


@mpl.rc_context(STYLE)
def members(results: Results) -> str:
    """What each further member adds to the ensemble, and how often two members disagree, on the main test set."""
    curves, look = results.members_curve, looks(results)
    ensemble = results.row(results.ensemble or "")
    colour = look[ensemble.name].colour
    figure = Figure(figsize=(9.6, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.65, 1])
    dashes = {results.main_set: "-"} | {results.sets[0]: (0, (4, 2))}
    for name, dash in dashes.items():
        x = [point.members for point in curves[name]]
        low, high = zip(*(point.range for point in curves[name]), strict=True)
        left.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        y = [point.frame_accuracy for point in curves[name]]
        left.plot(x, y, linestyle=dash, marker="o", markersize=4.5, color=colour, label=f"{name} set")
    patterns: list[Any] = [(0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
    for part, pattern in zip(results.parts, itertools.cycle(patterns)):
        points, tone = part.curve[results.main_set], look[part.name].colour
        x, y = [point.members for point in points], [point.frame_accuracy for point in points]
        label = f"{part.name} alone ({results.main_set})"
        left.plot(x, y, linestyle=pattern, linewidth=1.2, marker=".", color=tone, label=label)
    first = results.distillation
    for system in (first.distilled, first.direct) if first and first.teacher == ensemble.name else ():
        value = results.row(system).frame_accuracy[results.main_set]
        tone, dots = look[system].colour, (0, (1.5, 1.5))
        left.axhline(value, color=tone, linewidth=1.4, linestyle=dots)
        left.plot([], [], color=tone, linestyle=dots, label=f"{system}, one model ({results.main_set})")
    left.set_title("Frame accuracy as members are added")
    left.set_xlabel(f"members of {ensemble.name}")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.yaxis.set_major_formatter(percents())
    left.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, handlelength=3.2)
    _heat(right, np.asarray(results.disagreement[results.main_set]), colour)
    for edge in np.cumsum([part.members for part in results.parts])[:-1]:  # between the systems
        right.axhline(edge - 0.5, color=INK, linewidth=1.0)
        right.axvline(edge - 0.5, color=INK, linewidth=1.0)
    return to_svg(figure, "members", "Members of the ensemble")


@mpl.rc_context(STYLE)
def error_rates(results: Results, name: str, *, phones: bool = False) -> str:
    """The rate on a test set with its 95 % interval; small dots are single seeds, diamonds the dev set.

    Args:
      phones: of those that were decoded beside words.
    """
    dev, look = results.sets[0], looks(results)
    unit, figure_name = ("phone", "per") if phones else (results.unit, "wer")
    figure = Figure(figsize=(9.6, 0.85 + 0.52 * len(results.systems)), layout="constrained")
    ax = figure.subplots()
    for y, row in enumerate(results.systems):
        rates, of_seeds = _rates(row, phones=phones)
        tone, rate, each = look[row.name].colour, rates.wer[name], of_seeds[name]
        ax.plot(rates.wer_ci95[name], [y, y], color=tone, linewidth=7, alpha=0.28, solid_capstyle="round")
        ax.plot(each, [y + 0.27] * len(each), ".", color=tone, markersize=5, alpha=0.9)
        ax.plot(rates.wer[dev], y, "D", color=tone, markersize=5, fillstyle="none", markeredgewidth=1.3)
        ax.plot(rate, y, "o", **mark(look[row.name], 9))
        ax.annotate(f"{rate:.1%}", (rate, y), (0, 8), **LABEL, ha="center", va="bottom")
    _name_rows(ax, results)
    ax.set_ylim(len(results.systems) - 0.45, -0.75)
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(percents())
    ax.set_xlabel(f"{unit} error rate on {name}: mean, 95 % interval, single seeds below; open diamond: {dev}")
    return to_svg(
        figure,
        figure_name if name == results.main_set else f"{figure_name}-{name}",
        f"{unit.capitalize()} error rates on {name}",
    )


@mpl.rc_context(STYLE)
def size_and_errors(results: Results, *, phones: bool = False) -> str:
    """What a model's size buys: bytes on disk against the error rate on the main test set."""
    name, look = results.main_set, looks(results)
    unit = "phone" if phones else results.unit
    shown = {row.name: row for row in results.systems if row.role != "control"}
    figure = Figure(figsize=(9.6, 3.7), layout="constrained")
    ax = figure.subplots()
    labels = []
    for row in shown.values():
        rates, _ = _rates(row, phones=phones)
        at = (row.bytes, rates.wer[name])
        ax.plot([row.bytes] * 2, rates.wer_ci95[name], color=look[row.name].colour, linewidth=1.2, alpha=0.35)
        ax.plot(*at, "o", **mark(look[row.name], 10))
        labels.append(ax.annotate(row.name, at, (9, 0), **LABEL, va="center", color=look[row.name].colour))
    for comparison in results.all_comparisons:
        if comparison.direct in shown and comparison.distilled in shown:
            direct, distilled = (shown[each] for each in (comparison.direct, comparison.distilled))
            y, end = (_rates(row, phones=phones)[0].wer[name] for row in (direct, distilled))
            arrow = {"arrowstyle": "->", "color": INK, "alpha": 0.55, "shrinkA": 6, "shrinkB": 6}
            ax.annotate("", (direct.bytes, end), (direct.bytes, y), arrowprops=arrow)
    ax.set_xscale("log")
    sizes = sorted({row.bytes for row in shown.values()})
    if sizes:
        ax.set_xlim(sizes[0] / 1.6, sizes[-1] * 2.2)
    named = [size for k, size in enumerate(sizes) if k == 0 or size > 1.3 * sizes[k - 1]]  # others would overlap
    ax.xaxis.set_major_locator(FixedLocator(named))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: human_bytes(x, ".3g")))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(percents())
    ax.set_xlabel("size of the weights on disk")
    ax.set_ylabel(f"{unit} error rate on {name}")
    move_apart(figure, labels)
    return to_svg(figure, "size-per" if phones else "size", f"Size and {unit} error rate")


def _rates(row: SystemRow, *, phones: bool) -> tuple[Rates, dict[str, list[float]]]:
    """The error rates of a system, and those of each seed by set."""
    if not phones or row.phones is None or row.beside is None:
        return Rates(row.wer, row.wer_ci95, row.errors), row.each.wer
    return row.beside, row.phones.per_seed


@mpl.rc_context(STYLE)
def speed(results: Results) -> str:
    """Real-time factor of decoding the main test set: seconds of work per second of speech; less is faster."""
    look = looks(results)
    figure = Figure(figsize=(9.6, 0.75 + 0.36 * len(results.systems)), layout="constrained")
    ax = figure.subplots()
    for y, row in enumerate(results.systems):
        tone = look[row.name].colour
        face = "none" if look[row.name].hollow else tone
        ax.barh(y, row.rtf, height=0.55, facecolor=face, edgecolor=tone, linewidth=1.6)
        ax.annotate(f"{row.rtf:.3f}", (row.rtf, y), (6, 0), **LABEL, va="center")
    _name_rows(ax, results)
    ax.invert_yaxis()
    ax.set_xlim(0, max((row.rtf for row in results.systems), default=0.0) * 1.12 or 1)
    ax.set_xlabel(f"real-time factor (model and search) on {results.main_set}")
    return to_svg(figure, "rtf", "Real-time factor")


def _name_rows(ax: Axes, results: Results) -> None:
    ax.set_yticks(range(len(results.systems)), [row.name for row in results.systems])
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


@mpl.rc_context(STYLE)
def soft_targets(example: ExampleFrame, names: Sequence[str]) -> str:
    """One frame's soft targets at each temperature.

    Args:
      names: of example.senones.
    """
    count = len(example.senones)
    figure = Figure(figsize=(9.6, 1.1 + 0.34 * count), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(example.temperatures), sharey=True))
    for ax, temperature, values in zip(axes, example.temperatures, example.probabilities, strict=True):
        tones = [COLOURS["distilled"] if s == example.label else COLOURS["teacher"] for s in example.senones]
        ax.barh(range(count), values, height=0.66, color=tones)
        for y, value in enumerate(values):
            ax.annotate(_percent(value), (value, y), (4, 0), **LABEL, va="center", fontsize=8.5)
        ax.set_title(f"T = {temperature:g}")
        ax.set_xlim(0, max(values) * 1.35)
        ax.set_xticks([])
        ax.set_xlabel(f"all other senones: {max(0.0, 1 - values.sum()):.0%}", fontsize=9)
        ax.grid(visible=False)
        ax.spines["bottom"].set_visible(False)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(count), [isolated(_short(name)) for name in names], fontsize=9)
    axes[0].invert_yaxis()
    return to_svg(figure, "soft-targets", "Soft targets of one frame")


@mpl.rc_context(STYLE)
def confusions(counts: Sequence[Confusion]) -> str:
    """A row for each true phone, in shares of its occurrences: correct phones in one colour, confusions in another.

    Deletions are in the last column, insertions below.
    """
    phones, table = confusion_matrix(counts)
    size = len(phones)
    figure = Figure(figsize=(9.6, 9.6), layout="constrained")
    ax = figure.subplots()
    said = np.maximum(table[:size].sum(1), 1)
    shares = np.vstack([table[:size] / said[:, None], table[size:] / max(1, table[size].max())])
    for row, column in zip(*np.nonzero(shares >= _SMALLEST_SHARE)):
        share = shares[row, column]
        tone = COLOURS["distilled"] if row == column else COLOURS["direct"]
        cell = mpl.patches.Rectangle((column - 0.5, row - 0.5), 1, 1, color=tone, alpha=0.06 + 0.84 * share, lw=0)
        ax.add_patch(cell)
        if share >= _NUMBERED_SHARE and row < size:
            ax.text(column, row + 0.03, f"{100 * share:.0f}", ha="center", va="center", fontsize=5.5)
    _name_phones(ax, phones)
    return to_svg(figure, "confusions", "Which phone is taken for which")


def _name_phones(ax: Axes, phones: Sequence[str]) -> None:
    size = len(phones)
    names = [isolated(phone.lower()) for phone in phones]
    ax.set_xticks(range(size + 1), [*names, "deleted"], rotation=90, fontsize=7.5)
    ax.set_yticks(range(size + 1), [*names, "inserted"], fontsize=7.5)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel("recognised")
    ax.set_ylabel("reference")
    ax.set_xlim(-0.5, size + 0.5)
    ax.set_ylim(size + 0.5, -0.5)
    ax.set_aspect("equal")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for edge in (ax.axhline, ax.axvline):  # between the phones and what was inserted or deleted
        edge(size - 0.5, color=INK, linewidth=0.7, alpha=0.5)


_SMALLEST_SHARE = 0.005  # a cell of the confusions with a smaller share of its row stays empty
_NUMBERED_SHARE = 0.095  # one with at least this share has its number too
_MANY_EPOCHS = 8  # a curve of so many epochs or more is drawn without the first ones


def _series(log: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """(epochs, members)"""
    return np.array([np.atleast_1d(row[key]) for row in log if key in row], np.float64)


def _clip_the_start(ax: Axes, series: list[np.ndarray], *, rising: bool) -> None:
    """Leaves the first of many epochs out of the range, so that the differences at the end show."""
    low, high = min(s.min() for s in series), max(s.max() for s in series)
    many = max(len(s) for s in series) >= _MANY_EPOCHS
    if many and rising:
        low = max(low, min(np.quantile(s.mean(axis=1), 0.25) for s in series) - 0.05 * (high - low))
    elif many:
        high = min(high, max(np.quantile(s.mean(axis=1), 0.75) for s in series) + 0.05 * (high - low))
    margin = 0.06 * (high - low) or 0.01
    ax.set_ylim(low - margin, high + margin)


def _heat(ax: Axes, disagreement: np.ndarray, colour: str) -> None:
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
            ax.add_patch(mpl.patches.Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, color=colour, alpha=depth, lw=0))
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
