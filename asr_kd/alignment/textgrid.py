"""Praat's TextGrid: interval tiers as text, in the long form that Praat writes by default."""

from __future__ import annotations

import re
from pathlib import Path

from asr_kd.alignment.times import Interval, Times
from asr_kd.errors import UserError

_VALUE = re.compile(r'\s*(class|name|xmin|xmax|text)\s*=\s*("?)(.*?)"?\s*$')


def write_textgrid(times: Times) -> str:
    """Praat's long text format, with the tiers `words` and `phones`."""
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {times.duration:.4f}",
        "tiers? <exists>",
        "size = 2",
        "item []:",
    ]
    for number, (name, intervals) in enumerate((("words", times.words), ("phones", times.phones)), start=1):
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f'        name = "{name}"',
            "        xmin = 0",
            f"        xmax = {times.duration:.4f}",
            f"        intervals: size = {len(intervals)}",
        ]
        for k, interval in enumerate(intervals, start=1):
            label = interval.label.replace('"', '""')
            lines += [
                f"        intervals [{k}]:",
                f"            xmin = {interval.start:.4f}",
                f"            xmax = {interval.end:.4f}",
                f'            text = "{label}"',
            ]
    return "\n".join(lines) + "\n"


def read_textgrid(path: Path, words: str = "words", phones: str = "phones") -> Times:
    """Reads the tiers of these names; one that is not there is empty.

    Raises:
      UserError: the file cannot be read, has neither tier, or an interval that ends before it begins.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a TextGrid ({error}); save it as UTF-8 text.") from None
    tiers: dict[str, list[Interval]] = {}
    tier: list[Interval] | None = None
    begin = end = duration = 0.0
    for number, line in enumerate(lines, 1):
        match = _VALUE.match(line)
        if match is None:
            continue
        key, _, value = match.groups()
        if key == "name":
            tier = tiers.setdefault(value, [])
        elif key in ("xmin", "xmax"):
            try:
                begin, end = (float(value), end) if key == "xmin" else (begin, float(value))
            except ValueError:
                raise UserError(f"{path}:{number}: {value!r} is not a time; mend the line.") from None
            duration = max(duration, end)
        elif key == "text" and tier is not None:
            if end < begin:
                raise UserError(f"{path}:{number}: the interval ends at {end} before it begins at {begin}; mend it.")
            tier.append(Interval(begin, end, value.replace('""', '"')))
    if words not in tiers and phones not in tiers:
        raise UserError(f"{path}: there is no tier {words!r} or {phones!r}, only {sorted(tiers)}; rename its tiers.")
    return Times(path.stem, duration, tiers.get(words, []), tiers.get(phones, []))
