"""Files that are replaced all at once or not at all, digests, JSON, and text that a user brings.

Of such text only \\n, \\r\\n and \\r end a line; for `str.splitlines` U+2028, form feeds and others do too.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeVar

from asr_kd.errors import FullDiskError, UserError

T = TypeVar("T")
# what reading a damaged .npz raises: numpy's errors, zipfile's (it takes changed bytes for features it lacks), zlib's
DAMAGED_ARRAYS = (
    OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, TypeError,
    RuntimeError, AttributeError,
)  # fmt: skip
_UTF8 = "utf-8-sig"  # of text that a user brings: a byte-order mark is dropped


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` (same suffix); when the body succeeds it replaces `path`."""
    temporary = path.with_name(f".tmp.{path.name}")
    with full_disk_is_an_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk_is_an_error(*places: Path) -> Iterator[None]:
    """Turns 'no space left' into one sentence.

    Args:
      places: the file or folder that is written; then others that may be written to on the way. The sentence names the
        one that has no space left, or else the first.
    """
    try:
        yield
    except Exception as error:
        if not _means_full_disk(error):
            raise
        full = next(filter(_is_full, places), places[0])
        raise FullDiskError(f"{full}: the disk is full; free some space, then run the same command again.") from None


def _is_full(path: Path) -> bool:
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    disk = os.statvfs(existing)
    return disk.f_bavail == 0 or (disk.f_files > 0 and disk.f_favail == 0)


# safetensors and numpy say it in words alone where they write files themselves
_FULL_DISK = re.compile(r"No space left|requested and \d+ written")


def _means_full_disk(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return bool(_FULL_DISK.search(str(error)))


def digest_of(data: Any) -> str:
    """SHA-256 of plain data, hexadecimal; the order of lists counts."""
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: Path, kind: type[T], advice: str) -> T:
    """The list or mapping that a small file holds.

    Raises:
      UserError: it is missing or damaged; the sentence ends in the advice.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {advice}") from None
    except ValueError:
        data = None
    if not isinstance(data, kind):
        raise UserError(f"{path} is damaged; {advice}")
    return data


def write_json(path: Path, data: Any) -> None:
    """Replaces the file all at once."""
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def write_json_lines(path: Path, rows: Iterator[Mapping[str, Any]] | list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@contextlib.contextmanager
def open_text(path: Path, what: str, remedy: str) -> Iterator[TextIO]:
    """UTF-8 text, unpacked on the way where the name ends in .gz.

    Args:
      what: the file's part in the run, for messages: "the language model".
      remedy: what to do about a file that cannot be read.

    Raises:
      UserError: the file is missing, cut short, damaged or not UTF-8; on opening it or anywhere within the block.
    """
    try:
        with gzip.open(path, "rt", encoding=_UTF8) if path.suffix == ".gz" else path.open(encoding=_UTF8) as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = "it is cut short" if isinstance(error, EOFError) else f"it is no whole gzip file ({error})"
        raise UserError(f"{path}: {what} cannot be read: {reason}; {remedy}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: {what} cannot be read: it is not UTF-8 text; {remedy}.") from None
    except OSError as error:
        raise UserError(f"{path}: {what} cannot be read: {error.strerror or error}; {remedy}.") from None


def read_lines(path: Path, fix: str) -> list[tuple[int, str]]:
    """The lines of a text file with their numbers, blank ones left out.

    Raises:
      UserError: it cannot be read; `fix` ends the sentence.
    """
    try:
        lines = path.read_text(encoding=_UTF8).split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {fix}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: this is not UTF-8 text; save it as UTF-8.") from None
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise UserError(
                f"{path}:{number}: the line has a NUL character, so this is no UTF-8 text; save it as UTF-8."
            )
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
