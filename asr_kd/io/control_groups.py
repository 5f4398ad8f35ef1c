"""The control groups (containers) that this process is in, and what the kernel writes into their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def groups(controller: str, root: Path = Path("/")) -> Iterator[tuple[Path, int]]:
    """The folder of this process's group and of each above it, as far as a controller has any, and the version, 1 or 2.

    Args:
      controller: "cpu" or "memory". root: where proc/ and sys/ are.
    """
    for line in read_lines(root / "proc/self/cgroup"):
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        folder = top / name.strip("/")
        for group in (folder, *folder.parents):
            yield group, version
            if group == top:
                break


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a file that the kernel writes; none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
