"""The figure of phone confusions: a row for each true phone, in shares of its occurrences."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asr_kd.evaluation.confusions import Count, matrix
from asr_kd.report.style import COLOURS
from asr_kd.report.svg import INK, STYLE, to_svg

_SMALLEST = 0.005  # a cell with a smaller share of its row stays empty
_NUMBERED = 0.095  # a cell with at least this share has its number too


def draw(counts: Sequence[Count]) -> str:
    """SVG: correct phones in one colour, confusions in another; deletions in the last column, insertions below."""
    phones, table = matrix(counts)
    size = len(phones)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 9.6), layout="constrained")
        ax = figure.subplots()
        said = np.maximum(table[:size].sum(1), 1)
        shares = np.vstack([table[:size] / said[:, None], table[size:] / max(1, table[size].max())])
        for row, column in zip(*np.nonzero(shares >= _SMALLEST)):
            share = shares[row, column]
            tone = COLOURS["distilled"] if row == column else COLOURS["direct"]
            cell = mpl.patches.Rectangle((column - 0.5, row - 0.5), 1, 1, color=tone, alpha=0.06 + 0.84 * share, lw=0)
            ax.add_patch(cell)
            if share >= _NUMBERED and row < size:
                ax.text(column, row + 0.03, f"{100 * share:.0f}", ha="center", va="center", fontsize=5.5)
        _name_phones(ax, phones)
        return to_svg(figure, "confusions", "Which phone is taken for which")


def _name_phones(ax: Axes, phones: Sequence[str]) -> None:
    size = len(phones)
    names = [phone.lower() for phone in phones]
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
