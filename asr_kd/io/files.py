"""Files that are replaced all at once or not at all, digests, and JSON lines."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asr_kd.errors import FullDiskError


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
def full_disk_is_an_error(path: Path) -> Iterator[None]:
    """Turns 'no space left' into one sentence."""
    try:
        yield
    except Exception as error:
        if not _means_full_disk(error):
            raise
        raise FullDiskError(f"{path}: the disk is full; free some space, then run the same command again.") from None


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


def write_json_lines(path: Path, rows: Iterator[Mapping[str, Any]] | list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
