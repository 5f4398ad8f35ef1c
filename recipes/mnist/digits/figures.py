"""The figures of the MNIST report, drawn as the speech report's are."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from asr_kd.report.svg import INK, STYLE, to_svg
from digits.data import SIDE

COLOURS = {"direct": "#e0763a", "teacher": "#5b78e5", "distilled": "#12a383"}
WIDTH_COLOURS = ("#12a383", "#5b78e5", "#e0763a", "#a88bb4")
Result = dict[str, Any]


def draw(results: dict[str, Result]) -> dict[str, str]:
    """Name -> SVG, of the experiments that were run."""
    figures = {}
    with mpl.rc_context(STYLE):
        if "temperatures" in results:
            figures["temperatures"] = _temperatures(results["temperatures"], results.get("hard"))
        biased = [name for name in ("no3s", "only7s8s") if name in results]
        if biased:
            figures["biases"] = _biases([results[name] for name in biased])
        if "few" in results:
            figures["few"] = _few(results["few"])
        if "knowledge" in results and results["knowledge"]["examples"]:
            figures["knowledge"] = _knowledge(results["knowledge"]["examples"])
    return figures


def _temperatures(result: Result, hard: Result | None) -> str:
    """Errors against the temperature, one panel per width: the scales differ too much for one."""
    widths = list(dict.fromkeys(row["width"] for row in result["rows"]))
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    for axes, width, colour in zip(figure.subplots(1, len(widths), squeeze=False)[0], widths, WIDTH_COLOURS):
        rows = [row for row in result["rows"] if row["width"] == width]
        x = [row["temperature"] for row in rows]
        mean = np.array([np.mean(row["errors"]) for row in rows])
        low = [min(row["errors"]) for row in rows]
        high = [max(row["errors"]) for row in rows]
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, mean, marker="o", markersize=4.5, color=colour)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(x))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.tick_params(axis="x", labelsize=8.5)
        if hard is not None and width == max(widths):
            axes.axhline(np.mean(hard["errors"]), color=INK, linewidth=1.2, linestyle=(0, (1.5, 1.5)), alpha=0.6)
        axes.set_title(f"{width} units a layer")
        axes.set_xlabel("temperature")
    figure.axes[0].set_ylabel("errors")
    return to_svg(figure, "temperatures", "Errors against temperature")


def _biases(results: list[Result]) -> str:
    """Errors before and after each correction; paler: those on the missing (or only) digits."""
    kinds = {
        "before": "before",
        "one_offset": "one offset,\nno labels",
        "all_offsets": "ten offsets,\nno labels",
        "from_targets": "from the\ntargets alone",
        "tuned_on_test": "one offset,\ntuned on these",
    }
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    for axes, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        means = [np.mean(result[kind]["errors"]) for kind in kinds]
        of_digits = [np.mean(result[kind]["of_digits"]) for kind in kinds]
        x = np.arange(len(kinds))
        axes.bar(x, means, 0.62, color=COLOURS["distilled"], alpha=0.35)
        axes.bar(x, of_digits, 0.62, color=COLOURS["distilled"])
        for place, mean in zip(x, means, strict=True):
            axes.annotate(f"{mean:.0f}", (place, mean), (0, 3), textcoords="offset points", ha="center", fontsize=9)
        axes.set_xticks(x, list(kinds.values()), fontsize=8)
        digits = " and ".join(f"{digit}s" for digit in result["digits"])
        axes.set_title(f"never saw {digits}" if len(result["digits"]) == 1 else f"saw only {digits}")
        axes.grid(axis="x", visible=False)
    figure.axes[0].set_ylabel("errors")
    return to_svg(figure, "biases", "Errors before and after correcting biases")


def _few(result: Result) -> str:
    """Accuracy on the few images and on watched ones, epoch by epoch."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for axes, key, title in (
        (panels[0], "train_accuracy", f"On the {result['images']:,} labelled images"),
        (panels[1], "watched_accuracy", f"On {result['watched']:,} others"),
    ):
        for row in result["rows"]:
            if row["stopped"]:
                colour = COLOURS["direct" if row["targets"] == "hard" else "distilled"]
                values = row[key]
                axes.plot(range(1, len(values) + 1), values, color=colour, label=f"{row['targets']} targets")
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    panels[0].legend(loc="lower right")
    return to_svg(figure, "few", "Few labels")


def _knowledge(examples: list[Result]) -> str:
    """Images, and below each what the teacher says of it at three temperatures."""
    temperatures = list(examples[0]["targets"])
    figure = Figure(figsize=(9.6, 1.5 + 1.15 * len(temperatures)), layout="constrained")
    grid = figure.subplots(1 + len(temperatures), len(examples), squeeze=False)
    for column, example in enumerate(examples):
        axes = grid[0, column]
        axes.imshow(np.array(example["pixels"]).reshape(SIDE, SIDE), cmap="gray_r")
        axes.set_title(f"a {example['label']}", fontsize=10)
        axes.axis("off")
        for row, temperature in enumerate(temperatures, 1):
            axes = grid[row, column]
            values = example["targets"][temperature]
            colours = [COLOURS["distilled"] if k == example["label"] else COLOURS["teacher"] for k in range(10)]
            axes.bar(range(10), values, color=colours)
            axes.set_xticks(range(10), [str(k) for k in range(10)], fontsize=7)
            axes.yaxis.set_major_locator(NullLocator())
            axes.grid(visible=False)
            if column == 0:
                axes.set_ylabel(f"T = {temperature}", fontsize=9)
    return to_svg(figure, "knowledge", "What the soft targets know")
