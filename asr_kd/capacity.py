"""What a machine has room for, and sizes in words."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from asr_kd.errors import UserError


def human_bytes(number: float, form: str = ".1f") -> str:
    """1536000 -> "1.5 MB"; `form` is the number's from a kilobyte on."""
    power = min(4, int(math.log10(max(number, 1)) // 3))
    return f"{number / 1000**power:{form if power else '.0f'}} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def check_disk(path: Path, needed: float) -> None:
    """Raises UserError where what will be written as `path` does not fit onto its disk.

    What a killed run has left to go on from (see `growing.partial_folder`) is counted as there.
    """
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(existing).free
    partial = path.with_name(f".{path.name}.partial")
    needed -= sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
    if free < needed:
        raise UserError(
            f"{path} needs {human_bytes(needed)} of disk, but {human_bytes(free)} are free; "
            f"make room, then run the same command again."
        )
