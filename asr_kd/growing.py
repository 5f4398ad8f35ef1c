"""Large artefacts that grow for hours: what a killed run had finished is kept, and gone on from."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from asr_kd.artifacts import Stamp, full_disk_is_an_error, put_in_place, replacing_file
from asr_kd.errors import UserError

_NOTE, _MADE_BY = "growing.json", "made_by"
MARK_SECONDS = 30.0  # between two marks


class GrowingFiles:
    """Files that are appended to together, with a mark up to which they belong together.

    What stands in them beyond the last mark is cut off when they are opened again.

    Args:
      folder: an existing folder.
      names: of the files in it.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._note = folder / _NOTE
        marked = json.loads(self._note.read_text(encoding="utf-8")) if self._note.exists() else None
        self.note: dict[str, Any] | None = marked["note"] if marked else None  # what the last mark said
        self.files: dict[str, BinaryIO] = {}
        for name in names:
            file = (folder / name).open("r+b" if marked else "wb")
            file.truncate(marked["sizes"][name] if marked else 0)
            file.seek(0, 2)
            self.files[name] = file
        self._marked = time.monotonic()

    @property
    def mark_is_due(self) -> bool:
        return time.monotonic() - self._marked > MARK_SECONDS

    def mark(self, note: dict[str, Any]) -> None:
        """All that was written so far is good; `note` (plain data) says what it is."""
        for file in self.files.values():
            file.flush()
        sizes = {name: file.tell() for name, file in self.files.items()}
        with replacing_file(self._note) as temporary:
            temporary.write_text(json.dumps({"sizes": sizes, "note": note}), encoding="utf-8")
        self._marked = time.monotonic()

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def finish(self) -> None:
        """Closes them for good: the mark goes."""
        self.close()
        self._note.unlink(missing_ok=True)


def partial_folder(path: Path, stamp: Stamp) -> Path:
    """Where a killed run that was to make `path` left what it had; empty where there was none with this stamp."""
    partial = path.with_name(f".{path.name}.partial")
    mark = partial / _MADE_BY
    if not mark.exists() or mark.read_text(encoding="utf-8") != stamp.digest:
        shutil.rmtree(partial, ignore_errors=True)
        with full_disk_is_an_error(path):
            partial.mkdir(parents=True)
            with replacing_file(mark) as temporary:
                temporary.write_text(stamp.digest, encoding="utf-8")
    return partial


@contextlib.contextmanager
def resuming_folder(path: Path, stamp: Stamp, facts: dict[str, Any] | None = None) -> Iterator[Path]:
    """As `replacing_folder`, but what a killed run with the same stamp has left is there again.

    Where the body raises UserError it is deleted: the input has to be mended first.
    """
    partial = partial_folder(path, stamp)
    with full_disk_is_an_error(path):
        try:
            yield partial
        except UserError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        put_in_place(partial, path, stamp, facts)
    (path / _MADE_BY).unlink(missing_ok=True)
