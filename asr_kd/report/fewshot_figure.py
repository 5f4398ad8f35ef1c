"""The figure of `asr-kd fewshot`: frame accuracy after each epoch, in training and on dev."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from asr_kd.report.style import COLOURS
from asr_kd.report.svg import STYLE, to_svg


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """SVG: training left, dev right; the mean thick, each seed thin, a dot where early stopping would stop.

    Args:
      rows: of `asr_kd.stages.fewshot`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, key, title in zip(axes, ("train_accuracy", "dev_accuracy"), ("training frames", "dev"), strict=True):
            for row in rows:
                values = 100 * np.asarray(row[key])  # (epochs, seeds)
                epochs, mean = np.arange(1, len(values) + 1), values.mean(1)
                look = _look(row)
                ax.plot(epochs, values, color=look["color"], alpha=0.25, linewidth=0.9)
                ax.plot(epochs, mean, **look, label=f"{100 * row['share']:g} %, {row['targets']} targets")
                if key == "dev_accuracy":
                    ax.plot(epochs[mean.argmax()], mean.max(), "o", color=look["color"], markersize=5.5)
            ax.set_title(f"Frame accuracy on {title}")
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.yaxis.set_major_formatter(PercentFormatter(100, decimals=0))
        axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        return to_svg(figure, "fewshot", "Few data, hard and soft targets")


def _look(row: dict[str, Any]) -> dict[str, Any]:
    tone = COLOURS["distilled"] if row["targets"] == "soft" else COLOURS["direct"]
    return {"color": tone, "linestyle": "-" if row["share"] < 1 else "--"}
