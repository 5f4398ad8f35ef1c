"""Numbers and tables as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import regex

_RIGHT_TO_LEFT = regex.compile(r"[\p{Bidi_Class=R}\p{Bidi_Class=AL}][\p{Bidi_Class=R}\p{Bidi_Class=AL}\p{M}]*")


def human_bytes(number: float, form: str = ".1f") -> str:
    """1536000 -> "1.5 MB"; `form` is the number's from a kilobyte on."""
    power = min(4, int(math.log10(max(number, 1)) // 3))
    return f"{number / 1000**power:{form if power else '.0f'}} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def human_count(number: float) -> str:
    """1234567 -> "1.23 M"."""
    for unit in ("", " k", " M", " G"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T"


def human_seconds(seconds: float) -> str:
    """75.2 -> "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(fraction: float | None, digits: int = 1) -> str:
    """0.2345 -> "23.4 %", with a no-break space; None -> a dash."""
    return "–" if fraction is None else f"{signed(100 * fraction, digits, plus=False)}\N{NO-BREAK SPACE}%"


def signed(number: float, digits: int, *, plus: bool = True) -> str:
    """-0.5 -> "−0.5", with a minus sign; 0.5 -> "+0.5"."""
    return f"{number:{'+' if plus else ''}.{digits}f}".replace("-", "−")


def plural(number: int, noun: str) -> str:
    """1, "seed" -> "1 seed"; 2 -> "2 seeds"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def isolated(text: str) -> str:
    """Text in which what is written from right to left does not change the order of what stands beside it.

    Each such run of letters is put between Unicode's marks of an isolate (UAX 9).

    >>> isolated("ש.2 (left BA)")
    '\u2068ש\u2069.2 (left BA)'
    """
    return _RIGHT_TO_LEFT.sub("\u2068\\g<0>\u2069", text)


def text_table(rows: Sequence[Sequence[str]], *, head: int = 1) -> str:
    """Aligned columns for the terminal: the first column to the left, the others to the right.

    Args:
      rows: all of one length.
      head: how many of the first rows are the head, under which there is a line; 0: no line.

    >>> print(text_table([["system", "WER"], ["direct", "12.3"]]))
    system   WER
    ------------
    direct  12.3
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) if k else cell.ljust(width) for k, (cell, width) in enumerate(zip(row, widths)))
        for row in rows
    ]
    if head:
        lines.insert(head, "-" * max(map(len, lines)))
    return "\n".join(line.rstrip() for line in lines)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown: the first column to the left, the others to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
