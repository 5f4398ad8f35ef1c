"""Files that one process holds at a time; the kernel releases them when that process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from asr_kd.errors import UserError

log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(file: Path, name: str, refusal: Callable[[str], str], *, shared: bool = False) -> Iterator[None]:
    """Holds a lock. No process that is started inherits it. Where the file system has no locks, there is none.

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
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
