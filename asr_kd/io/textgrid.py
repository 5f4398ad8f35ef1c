"""Praat's TextGrids as text, in the long and the short form alike.

As in Praat's own reader, only what stands free in a file counts: numbers, texts in quotation marks and flags like
<exists>; the words around them in the long form are for people. praatio writes our TextGrids but does not read them:
it loses the last interval where a file does not end with a newline, and takes a file that is cut short for whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"|(?<![^\s=])(?P<number>[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)(?!\S)'
    r"|(?<!\S)(?P<flag><\w+>)(?!\S)|![^\n\r]*"
)
_INTERVALS, _POINTS = "IntervalTier", "TextTier"


@dataclass(frozen=True)
class IntervalTier:
    """A tier of intervals: start and end in seconds, and the label without white space around it."""

    name: str
    intervals: list[tuple[float, float, str]]


def parse_textgrid(content: str) -> tuple[float, list[IntervalTier]]:
    """Returns where a TextGrid ends, in seconds, and its tiers of intervals; leaves out tiers of points.

    Raises:
      ValueError: this is no TextGrid, or it is cut short; the message says what is wrong.
    """
    tokens = _tokens(content)
    header = [_next(tokens, "text", "its header") for _ in range(2)]
    if not header[0].startswith("ooTextFile") or header[1] != "TextGrid":
        raise ValueError("its first lines are not those of a TextGrid")
    _number(tokens, "its header")
    end = _number(tokens, "its header")
    if _next(tokens, "flag", "its header") != "<exists>":
        return end, []
    tiers = []
    for number in range(1, _count(tokens, "its header") + 1):
        where = f"tier {number}"
        kind, name = (_next(tokens, "text", where) for _ in range(2))
        if kind not in (_INTERVALS, _POINTS):
            raise ValueError(f"{where} is of no known class: {kind!r}")
        where = f"tier {name!r}"
        _number(tokens, where)
        _number(tokens, where)
        width = 2 if kind == _INTERVALS else 1  # numbers before each label
        entries = [
            (*(_number(tokens, where) for _ in range(width)), _next(tokens, "text", where).strip())
            for _ in range(_count(tokens, where))
        ]
        if kind == _INTERVALS:
            tiers.append(IntervalTier(name, entries))  # type: ignore[arg-type]
    return end, tiers


def _tokens(content: str) -> Iterator[tuple[str, str]]:
    """(kind, value) of all that stands free; comments are left out."""
    for match in _TOKEN.finditer(content):
        if match.lastgroup is not None:
            yield match.lastgroup, match[match.lastgroup].replace('""', '"')


def _next(tokens: Iterator[tuple[str, str]], kind: str, where: str) -> str:
    actual, value = next(tokens, ("end", ""))
    if actual == "end":
        raise ValueError(f"it ends within {where}")
    if actual != kind:
        raise ValueError(f"{where}: expected a {kind}, found {value[:30]!r}")
    return value


def _number(tokens: Iterator[tuple[str, str]], where: str) -> float:
    return float(_next(tokens, "number", where))


def _count(tokens: Iterator[tuple[str, str]], where: str) -> int:
    value = _next(tokens, "number", where)
    if not value.isdigit():
        raise ValueError(f"{where}: {value} cannot be a number of entries")
    return int(value)
