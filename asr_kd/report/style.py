"""What tables and figures have in common: the systems' colours, and how sizes are written."""

from __future__ import annotations

from asr_kd.io import formatting

COLOURS = {"direct": "#e0763a", "ensemble": "#5b78e5", "distilled": "#12a383", "monophone": "#a88bb4"}


def colour(system: str) -> str:
    return COLOURS[system.removesuffix("-small")]


def is_small(system: str) -> bool:
    return system.endswith("-small")


def human_bytes(number: float) -> str:
    """1536000 -> "1.54 MB"."""
    return formatting.human_bytes(number, ".3g")
