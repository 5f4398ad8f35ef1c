"""A file that one process holds at a time; the kernel releases it when that process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from asr_kd.errors import UserError


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """While no other process makes the folder `path`; where the file system has no locks, without that.

    Raises:
      UserError: another process does.
    """
    file = path.with_name(f".{path.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b", buffering=0) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().decode(errors="replace") or "a process"
            raise UserError(f"{holder} is making {path}; wait until it has ended, or stop it.") from None
        except OSError:  # no locks here: the commands have said so
            pass
        with contextlib.suppress(OSError):  # a full disk, which others report
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {platform.node()}".encode())
        yield
