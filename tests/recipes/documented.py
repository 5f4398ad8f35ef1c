"""Sections and tables of documents, and the numbers of runs whose results.json is kept, as documents write them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
IN_DETAIL = RECIPES / "librispeech" / "notes" / "2026-11-30-mini-in-detail.md"
SETS = ("dev", "test")

Table = tuple[list[str], list[list[str]]]  # header and rows


@cache
def results_of(name: str) -> dict[str, Any]:
    """Of a run that is kept: "timit/phones48"."""
    recipe, run = name.split("/")
    written: dict[str, Any] = json.loads((RECIPES / recipe / "results" / f"{run}.json").read_text())
    return written


def systems_of(name: str) -> dict[str, dict[str, Any]]:
    return {system["name"]: system for system in results_of(name)["systems"]}


def comparisons_of(name: str, scored: str = "test") -> dict[str, dict[str, Any]]:
    """The distilled system of each comparison -> its metrics on a set."""
    written = results_of(name)
    entries = [written["distillation"], *written["comparisons"]]
    return {entry["distilled"]: entry["sets"][scored]["metrics"] for entry in entries}


def section(document: Path, title: str) -> str:
    """From its heading to the next."""
    text = document.read_text(encoding="utf-8")
    (found,) = re.findall(rf"^#+ {re.escape(title)}$\n(.*?)(?=^#+ |\Z)", text, re.M | re.S)
    return str(found).replace("\xa0", " ")


def prose(text: str) -> str:
    """In one line, to be searched for sentences."""
    return " ".join(text.replace("\n- ", "\n").split())


def tables(text: str) -> Iterator[Table]:
    """In their order."""
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        header, _, *rows = (
            [cell.strip().replace("**", "") for cell in line.strip("|").split("|")] for line in table.splitlines()
        )
        yield header, rows


# --- numbers


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"


def count(number: float) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"


def errors(counts: dict[str, int]) -> str:
    return " / ".join(str(counts[kind]) for kind in ("ins", "del", "sub"))


def interval(ends: Sequence[float]) -> str:
    return " – ".join(map(percent, ends))


def points(difference: dict[str, Any]) -> str:
    low, high = map(percent, difference["ci95"])
    return f"{100 * difference['value']:+.1f} ({low} to {high})"


def saved(difference: dict[str, Any]) -> tuple[str, str]:
    """Of errors: the points, and their interval."""
    low, high = (percent(-end) for end in reversed(difference["ci95"]))
    return percent(-difference["value"]), f"{low} to {high}"


def kept(metrics: dict[str, Any], unit: str = " %") -> str:
    """The share of the teacher's gain."""
    low, high = (percent(end, 0) for end in metrics["share_kept_ci95"])
    return f"{percent(metrics['share_kept'], 0)}{unit} ({low} to {high})"


def probability(value: float, digits: int) -> str:
    """Never a certainty, which a finite number of resamples cannot give."""
    least = 10.0**-digits
    return f"> {1 - least:.{digits}f}" if value > 1 - least / 2 else f"{value:.{digits}f}"
