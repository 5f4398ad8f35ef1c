"""Numbers as text: sizes in bytes."""

from __future__ import annotations

import math


def human_bytes(number: float, form: str = ".1f") -> str:
    """1536000 -> "1.5 MB"; `form` is the number's from a kilobyte on."""
    power = min(4, int(math.log10(max(number, 1)) // 3))
    return f"{number / 1000**power:{form if power else '.0f'}} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
