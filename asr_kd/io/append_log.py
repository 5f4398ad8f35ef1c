"""Several append-only files with a common commit point, and .npy files whose length is known last."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asr_kd.io.files import replacing_file
from asr_kd.io.throttle import Throttle

_NOTE = "growing.json"
COMMIT_SECONDS = 30.0  # between two marks, at least
_HEADER_BYTES = 128


class AppendLog:
    """Files that are appended to together, with a mark up to which they belong together.

    What stands in them beyond the last mark is cut off when they are opened again; where a file is missing, or shorter
    than the mark says, they begin anew.

    Args:
      folder: an existing folder.
      names: of the files in it.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._note = folder / _NOTE
        marked = self._read_mark(folder)
        self.note: dict[str, Any] | None = marked["note"] if marked else None  # what the last mark said
        self.files: dict[str, BinaryIO] = {}
        for name in names:
            file = (folder / name).open("r+b" if marked else "wb")
            file.truncate(marked["sizes"][name] if marked else 0)
            file.seek(0, 2)
            self.files[name] = file
        self._pace = Throttle(COMMIT_SECONDS)

    def _read_mark(self, folder: Path) -> dict[str, Any] | None:
        if not self._note.exists():
            return None
        marked: dict[str, Any] = json.loads(self._note.read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size if (folder / name).exists() else -1 for name in marked["sizes"]}
        if any(sizes[name] < size for name, size in marked["sizes"].items()):
            self._note.unlink()
            return None
        return marked

    def commit_if_due(self, note: Callable[[], dict[str, Any]]) -> None:
        """As `mark`, where it was not done for a while."""
        if self._pace.is_due():
            self.commit(note())

    def commit(self, note: dict[str, Any]) -> None:
        """All that was written so far is good; `note` (plain data) says what it is."""
        with self._pace.interruption():
            for file in self.files.values():
                file.flush()
            sizes = {name: file.tell() for name, file in self.files.items()}
            with replacing_file(self._note) as temporary:
                temporary.write_text(json.dumps({"sizes": sizes, "note": note}), encoding="utf-8")

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def finish(self) -> None:
        """Closes them for good: the mark goes."""
        self.close()
        self._note.unlink(missing_ok=True)


def reserve_header(file: BinaryIO) -> None:
    """Leaves room for what `write_header` writes once the length is known."""
    file.write(bytes(_HEADER_BYTES))


def write_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Makes the bytes that were written after `reserve_header` a .npy file."""
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    header = repr(fields).ljust(_HEADER_BYTES - 11) + "\n"
    file.seek(0)
    file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
