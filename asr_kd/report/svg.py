"""matplotlib figures as SVG text that reads on light and on dark ground and is the same on every run.

Text and axes take the colour of the page around them (`currentColor`), and the ground is left out. Text stays text, so
that letters of every script are drawn in the reader's fonts.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Bbox

INK = "#010203"  # replaced by currentColor
LABEL: dict[str, Any] = {"textcoords": "offset points"}  # of an annotation
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
STYLE = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # a wide font: what fits in it fits in the others
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.14,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "lines.linewidth": 2.0,
}


def percents() -> FuncFormatter:
    """Ticks of fractions in percent, with the decimals that tell them apart."""
    return FuncFormatter(lambda value, _: f"{100 * value:.4g}%")


def move_apart(figure: Figure, labels: Sequence[Annotation]) -> None:
    """Moves labels up that would be drawn over a lower one, as those of points that coincide would."""
    figure.draw_without_rendering()  # sets the layout
    placed: list[Bbox] = []
    for label in sorted(labels, key=lambda label: label.get_window_extent().y0):
        box = label.get_window_extent()
        for other in placed:  # from the lowest up
            if box.overlaps(other):
                x, y = label.xyann
                label.xyann = x, y + (other.y1 - box.y0) * 72 / figure.dpi
                box = label.get_window_extent()
        placed = sorted([*placed, box], key=lambda box: float(box.y0))


def to_svg(figure: Figure, name: str, title: str) -> str:
    """Self-contained SVG text; its ids depend on `name` alone, so that several fit into one page.

    Args:
      title: what it shows, for who cannot see it.
    """
    title = html.escape(title)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # of scripts that matplotlib cannot draw; here it only measures them
        warnings.filterwarnings("ignore", "Glyph .* missing from font|Matplotlib currently does not support")
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor").replace("'DejaVu Sans'", _FONT)
    # the white sheets behind the figure and the axes
    text = re.sub(r'(<g id="patch_1">\s*<path d="[^"]*" style=")[^"]*', r"\1fill: none", text)
    text = re.sub(r"fill: #ffffff", "fill: none", text)
    text = re.sub(r'\bid="(?!p[0-9a-f]{10}|m[0-9a-f]{10})([^"]+)"', rf'id="{name}-\1"', text)
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{title}" viewBox="0 0 {width} {height}" class="figure">'
    )
    return head + f"<title>{title}</title>" + text[text.index(">") + 1 :]
