"""A figure of one utterance: its log-mel spectrogram, the reference's phones and words above, ours below.

Shapes:  T frames, D mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from asr_kd.alignment.times import Interval, Times
from asr_kd.report.svg import STYLE, to_svg

OURS, REFERENCE = "#d95f02", "#1f78b4"  # two colours that also differ for the colour-blind
_INCHES_PER_SECOND = 4.0


@mpl.rc_context(STYLE | {"axes.grid": False})
def boundary_figure(features: np.ndarray, ours: Times, reference: Times, *, frame_seconds: float) -> str:
    """SVG, for words and phones may be of any script.

    Args:
      features: (T, D) log-mel energies, the lowest band first.
      frame_seconds: from one frame to the next.
    """
    width = float(np.clip(_INCHES_PER_SECOND * ours.duration, 8, 40))
    figure = Figure(figsize=(width, 5.4), layout=ConstrainedLayoutEngine(hspace=0, h_pad=0.02))
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=[1, 3.2, 1])
    end = len(features) * frame_seconds
    middle.imshow(
        np.asarray(features, np.float32).T, origin="lower", aspect="auto", cmap="Greys", extent=(0, end, 0, 1)
    )
    for times, colour, low, high in ((reference, REFERENCE, 0.5, 1.0), (ours, OURS, 0.0, 0.5)):
        middle.vlines(
            [interval.start for interval in times.phones or times.words][1:], low, high, color=colour, linewidth=1.1
        )
    middle.axhline(0.5, color="white", linewidth=0.8)
    middle.set_yticks([])
    middle.set_ylabel("log-mel")
    _tiers(above, reference, REFERENCE, "reference")
    _tiers(below, ours, OURS, "ours")
    above.set_title(ours.utterance, loc="left", fontsize=10)
    below.set_xlabel("seconds")
    below.set_xlim(0, max(ours.duration, reference.duration))
    svg = to_svg(figure, "boundaries", "Boundaries of one utterance")
    return svg.replace(" viewBox", f' width="{width}in" viewBox', 1)  # a long one is wider than a window


def _tiers(ax: Axes, times: Times, colour: str, name: str) -> None:
    """Words over phones; phones alone where each is a word."""
    tiers: list[Sequence[Interval]] = [times.phones, times.words]
    shown = [tier for k, tier in enumerate(tiers) if tier and tier not in tiers[:k]]
    for y, tier in enumerate(shown):
        ax.vlines([interval.start for interval in tier][1:], y, y + 1, color=colour, linewidth=1.1)
        for interval in tier:
            middle = (interval.start + interval.end) / 2
            ax.text(middle, y + 0.5, interval.label, ha="center", va="center", fontsize=7, clip_on=True)
    ax.set_ylim(0, max(1, len(shown)))
    ax.set_yticks([])
    ax.set_ylabel(name, color=colour)
