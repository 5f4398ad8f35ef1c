"""Artefact folders: replaced all at once, or resumed after a kill and then put in place."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr_kd.errors import ResumableError, UserError
from asr_kd.io.files import full_disk_is_an_error, replacing_file
from asr_kd.io.stamp import STAMP, Stamp

_MADE_BY = "made_by"


@contextlib.contextmanager
def replacing_folder(path: Path, stamp: Stamp, metadata: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; when the body succeeds it gets the stamp and replaces `path`.

    `metadata` may be filled by the body. A killed run leaves only the temporary folder, which the next run removes.
    """
    temporary = _beside(path, "tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with full_disk_is_an_error(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            put_in_place(temporary, path, stamp, metadata)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def put_in_place(temporary: Path, path: Path, stamp: Stamp, metadata: dict[str, Any] | None = None) -> None:
    """Writes the stamp into a finished folder and moves it to `path`, replacing what was there.

    Where `path` is a link, as to another disk, it stays one, and the folder that it names is replaced.
    """
    stamp.write(temporary / STAMP, metadata)
    path, old = _place(path), _beside(path, "old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def partial_folder(path: Path, stamp: Stamp) -> Path:
    """The folder that a killed run for `path` with this stamp has left, or an empty one."""
    partial = _beside(path, "partial")
    mark = partial / _MADE_BY
    if not mark.exists() or mark.read_text(encoding="utf-8") != stamp.digest:
        shutil.rmtree(partial, ignore_errors=True)
        with full_disk_is_an_error(path):
            partial.mkdir(parents=True)
            with replacing_file(mark) as temporary:
                temporary.write_text(stamp.digest, encoding="utf-8")
    return partial


def discard_partial(path: Path) -> None:
    """Deletes what a killed run for `path` has left; for when `path` is up to date."""
    shutil.rmtree(_beside(path, "partial"), ignore_errors=True)


def _place(path: Path) -> Path:
    return path.resolve() if path.is_symlink() else path


def _beside(path: Path, what: str) -> Path:
    place = _place(path)
    return place.with_name(f".{place.name}.{what}")


@contextlib.contextmanager
def resuming_folder(path: Path, stamp: Stamp, metadata: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yields a folder as `replacing_folder` does, with what a killed run with the same stamp has left in it.

    It is deleted where the body raises UserError, because the input has to be fixed first, unless only disk or memory
    ran out (`ResumableError`).
    """
    partial = partial_folder(path, stamp)
    with full_disk_is_an_error(path):
        try:
            yield partial
        except ResumableError:
            raise
        except UserError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        put_in_place(partial, path, stamp, metadata)
    (path / _MADE_BY).unlink(missing_ok=True)
