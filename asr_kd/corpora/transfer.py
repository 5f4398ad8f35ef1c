"""Downloads large files over HTTP: resumed where a connection or a run broke off, and checked by their sum.

A file grows as <file>.part and takes its name once its sum is right.
"""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asr_kd.errors import UserError
from asr_kd.io.progress import progress_bar

_SECONDS = 60  # without an answer
_TRIES = 5  # connections in a row that bring nothing, after one that did
_PAUSE = 5.0  # seconds before the next of them
_BLOCK = 1 << 18  # bytes


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, with what identifies it."""

    url: str
    size: int  # bytes
    checksum: str  # algorithm:hexadecimal digits
    option: str  # the recipe's option that takes a copy of it instead

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]

    def bytes_in(self, target: Path) -> int:
        """How much of it is there, whole or partial."""
        return size_of(target / self.name) or size_of(target / f"{self.name}.part")


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def fetch(file: RemoteFile, target: Path) -> Path:
    """The file in `target`, its sum right; a partial download is resumed."""
    path, partial = target / file.name, target / f"{file.name}.part"
    if path.exists():
        if wrong := _wrong(path, file):
            raise UserError(
                f"{path}: {wrong}; delete it to have it fetched again, or give asr-kd prepare a copy with "
                f"{file.option}."
            )
        return path
    _transfer(file, partial)
    if wrong := _wrong(partial, file):
        partial.unlink()  # nothing says which bytes are bad
        raise UserError(
            f"{file.url}: {wrong}; the download was deleted: run the same command again, "
            f"or give asr-kd prepare a copy with {file.option}."
        )
    partial.rename(path)
    return path


def _wrong(path: Path, file: RemoteFile) -> str | None:
    """What is wrong with it, None where nothing is."""
    algorithm, expected = file.checksum.split(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)  # MD5 is there to find damage, which it does
    size = size_of(path)
    with path.open("rb") as data, progress_bar(f"checking {file.name}", size, "B", unit_scale=True, delay=2.0) as bar:
        while block := data.read(1 << 20):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() == expected:
        return None
    lengths = "" if size == file.size else f", it has {size:,} bytes and not {file.size:,}"
    return f"its {algorithm.upper()} sum is {digest.hexdigest()}, not {expected}{lengths}"


class _BrokenOffError(Exception):
    """The connection, or the server, failed; another try may succeed."""


def _transfer(file: RemoteFile, partial: Path) -> None:
    """Fetches what `partial` lacks, over as many connections as it takes."""
    tries = 0  # where not even the first connection brings anything, waiting will not help
    partial.touch()
    with progress_bar(file.name, file.size, "B", unit_scale=True, initial=size_of(partial)) as bar:
        while (before := size_of(partial)) != file.size:
            try:
                with partial.open("r+b") as out:
                    for position, block in _blocks(file, before):
                        out.seek(position)
                        out.truncate()
                        out.write(block)
                        bar.update(out.tell() - bar.n)
                return  # all that the server has: where that is not the file, its sum is wrong
            except _BrokenOffError as error:
                tries = _TRIES if size_of(partial) > before else tries - 1
                if tries < 0:
                    raise UserError(
                        f"{file.url} cannot be fetched ({error}); run the same command again to continue, "
                        f"or give asr-kd prepare a copy with {file.option}."
                    ) from None
            time.sleep(_PAUSE)


def _blocks(file: RemoteFile, have: int) -> Iterator[tuple[int, bytes]]:
    """The bytes that one connection brings, each block with its place in the file; asks for those from `have` on.

    Raises:
      _BrokenOffError: the connection ended before the file did.
    """
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            position = have if answer.status == 206 else 0  # 200: the server ignores Range and sends all of it
            first = answer.headers.get("Content-Range", f"bytes {position}-").removeprefix("bytes ").partition("-")[0]
            if first != str(position):
                raise _BrokenOffError(f"the server answers from byte {first}, not from {position:,}")
            total = position + int(answer.headers.get("Content-Length") or file.size - position)
            while block := answer.read(_BLOCK):
                yield position, block
                position += len(block)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # there is more than the server has, so it is no beginning of the file
            yield from _blocks(file, 0)
            return
        raise _BrokenOffError(f"{error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(getattr(error, "reason", error)) or type(error).__name__) from None
    if position < total:
        raise _BrokenOffError(f"the connection ended after {position:,} of {total:,} bytes")
