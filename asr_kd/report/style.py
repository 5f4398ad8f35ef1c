"""Colours: each system has one in all tables and figures, by what it is in the comparisons; and those of dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asr_kd.report.results import Results, Role

COLOURS: Mapping[Role, str] = {
    "direct": "#e0763a",
    "teacher": "#5b78e5",
    "distilled": "#12a383",
    "control": "#a88bb4",
    "other": "#7d8a94",
}
OTHERS = ("#c2a227", "#b5568c", "#4f9bb0", "#8a6d4b", "#7d8a94")  # of systems that no comparison names, in turn
_DARK = "<style>@media (prefers-color-scheme: dark) { svg { color: #e6edf3 } }</style>"


@dataclass(frozen=True)
class Look:
    """How a system is drawn."""

    colour: str
    hollow: bool  # it is a model of a comparison that is not the first


def mark(look: Look, size: float) -> dict[str, Any]:
    """How matplotlib draws a system's point."""
    face = "none" if look.hollow else look.colour
    return {"markersize": size, "markerfacecolor": face, "markeredgecolor": look.colour, "markeredgewidth": 2}


def looks(results: Results) -> dict[str, Look]:
    """System -> its look."""
    first = results.distillation
    main = {first.direct, first.distilled, first.teacher} if first else set()
    others = [row.name for row in results.systems if row.role == "other"]
    return {
        row.name: Look(
            OTHERS[others.index(row.name) % len(OTHERS)] if row.role == "other" else COLOURS[row.role],
            hollow=row.role in ("direct", "distilled", "teacher") and row.name not in main,
        )
        for row in results.systems
    }


def as_image(svg: str) -> str:
    """A figure that takes the text colour of the page around it, for a file of its own, which has no such page.

    >>> as_image("<svg class='figure'><path/></svg>").partition("<style>")[::2]
    ("<svg class='figure'>", '@media (prefers-color-scheme: dark) { svg { color: #e6edf3 } }</style><path/></svg>')
    """
    end = svg.index(">") + 1
    return f"{svg[:end]}{_DARK}{svg[end:]}"
