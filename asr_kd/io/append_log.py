"""Append-only files with a common commit point, how often to commit, and .npy files whose length is known last."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asr_kd.errors import UserError
from asr_kd.io.files import read_json, replacing_file

log = logging.getLogger(__name__)

_NOTE = "growing.json"
COMMIT_SECONDS = 30.0  # between two commits, at least
_HEADER_BYTES = 128
_LEAST_WORK = 50.0  # between two interruptions, times as long as the last one took


class AppendLog:
    """Several append-only files with a common commit point; bytes after the last commit are dropped on reopening.

    Where a file is missing, or shorter than at the last commit, or the commit was of other files, all start empty.

    Args:
      folder: an existing folder.
      names: of the files in it.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._note = folder / _NOTE
        commit = self._read_commit(folder, names)
        self.note: dict[str, Any] | None = commit["note"] if commit else None  # of the last commit
        self.files: dict[str, BinaryIO] = {}
        for name in names:
            file = (folder / name).open("r+b" if commit else "wb")
            file.truncate(commit["sizes"][name] if commit else 0)
            file.seek(0, 2)
            self.files[name] = file
        self._throttle = Throttle(COMMIT_SECONDS)

    def _read_commit(self, folder: Path, names: Sequence[str]) -> dict[str, Any] | None:
        if not self._note.exists():
            return None
        try:
            commit = read_json(self._note, dict, "starting over")
        except UserError as error:
            log.warning("%s", error)
            self._note.unlink()
            return None
        sizes = {name: (folder / name).stat().st_size if (folder / name).exists() else -1 for name in names}
        if sizes.keys() != commit["sizes"].keys() or any(sizes[name] < commit["sizes"][name] for name in names):
            self._note.unlink()
            return None
        return commit

    def commit_if_due(self, note: Callable[[], dict[str, Any]]) -> None:
        """Commits unless the last commit was less than COMMIT_SECONDS ago."""
        if self._throttle.is_due():
            self.commit(note())

    def commit(self, note: dict[str, Any]) -> None:
        """Makes everything written so far permanent; `note` (plain data) says what it is."""
        with self._throttle.interruption():
            for file in self.files.values():
                file.flush()
            sizes = {name: file.tell() for name, file in self.files.items()}
            with replacing_file(self._note) as temporary:
                temporary.write_text(json.dumps({"sizes": sizes, "note": note}), encoding="utf-8")

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def finish(self) -> None:
        """Closes the files for good and deletes the commit point."""
        self.close()
        self._note.unlink(missing_ok=True)


def reserve_header(file: BinaryIO) -> None:
    """Reserves the bytes that `write_header` fills once the length is known."""
    file.write(bytes(_HEADER_BYTES))


def write_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Turns the bytes written after `reserve_header` into a .npy file."""
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    header = repr(fields).ljust(_HEADER_BYTES - 11) + "\n"
    file.seek(0)
    file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())


class Throttle:
    """Due `seconds` after the last interruption, and not before 50 times as long as that took.

    Args:
      seconds: 0 or less: always due.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due = time.monotonic() + seconds

    def is_due(self) -> bool:
        return time.monotonic() >= self._due

    @contextlib.contextmanager
    def interruption(self) -> Iterator[None]:
        """Times the block, which is the interruption."""
        started = time.monotonic()
        yield
        ended = time.monotonic()
        pause = max(self._seconds, _LEAST_WORK * (ended - started)) if self._seconds > 0 else 0.0
        self._due = ended + pause
