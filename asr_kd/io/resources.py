"""Free disk and memory of this machine, control groups included."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from asr_kd.errors import UserError
from asr_kd.io.formatting import human_bytes


def check_disk(path: Path, needed: float) -> None:
    """Raises UserError where `path` will need more bytes than its disk has free.

    What a killed run has left (`asr_kd.io.folders.partial_folder`) is subtracted.
    """
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(existing).free
    partial = path.with_name(f".{path.name}.partial")
    needed -= sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
    if free < needed:
        raise UserError(
            f"{path} needs {human_bytes(needed)} of disk, but {human_bytes(free)} are free; "
            f"free some space, then run the same command again."
        )


def available_memory(root: Path = Path("/")) -> float | None:
    """Bytes available without swapping: of the machine, or of this process's control groups (containers) if less.

    None where the system does not say.

    Args:
      root: where proc/ and sys/ are.
    """
    machine = _lines(root / "proc/meminfo")
    sizes = [1024.0 * int(line.split()[1]) for line in machine if line.startswith("MemAvailable:")]
    return min([*sizes, *_left_in_control_groups(root)], default=None)


def _left_in_control_groups(root: Path) -> Iterator[float]:
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, name = line.split(":", 2)
        if not controllers:  # version 2
            top, limit, usage, total = root / "sys/fs/cgroup", "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            top, limit, usage = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            total = "total_"  # with those of the groups below
        else:
            continue
        folder = top / name.strip("/")
        for group in (folder, *folder.parents):
            most, used = (_lines(group / file) for file in (limit, usage))
            if most and used and most[0].isdigit():  # version 2 says "max" where there is no limit
                counts = dict(row.split()[:2] for row in _lines(group / "memory.stat"))
                # pages of files can be given up
                files = sum(float(counts.get(f"{total}{kind}_file", 0)) for kind in ("active", "inactive"))
                yield max(0.0, float(most[0]) - float(used[0]) + files)
            if group == top:
                break


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
