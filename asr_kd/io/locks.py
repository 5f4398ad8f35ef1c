"""Files that one process holds at a time; the kernel releases them when that process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from asr_kd.errors import UserError

log = logging.getLogger(__name__)

_PATIENCE = 2.0  # seconds for a process that was killed to be gone, with its memory


@contextlib.contextmanager
def locked(file: Path, name: str, refusal: Callable[[str], str], *, shared: bool = False) -> Iterator[None]:
    """Holds a lock. No process that is started inherits it. Where the file system has no locks, there is none.

    One that is taken is waited for, a moment only.

    Args:
      name: of what holds it, for others to read.
      refusal: who has it -> the sentence where it is taken.
      shared: with others that share it.

    Raises:
      UserError: it is taken.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b", buffering=0) as lock:
        try:
            _take(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().decode(errors="replace") or "asr-kd"
            raise UserError(refusal(holder)) from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): run one command at a time in this folder", file, error.strerror)
        with contextlib.suppress(OSError):  # a full disk, which others report
            lock.truncate(0)
            lock.write(f"{name}, process {os.getpid()} on {platform.node()}".encode())
        yield


def _take(lock: BinaryIO, kind: int) -> None:
    """Raises BlockingIOError."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
