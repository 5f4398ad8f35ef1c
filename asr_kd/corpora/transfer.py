"""Downloads large files over HTTP: resumed where a connection or a run broke off, and checked by their sum.

A file grows as <file>.part and takes its name once its sum is right.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from asr_kd.errors import UserError

_SECONDS = 60  # without an answer
_TRIES = 5  # connections in a row that bring nothing, after one that did
_PAUSE = 5.0  # seconds before the next of them
_BLOCK = 1 << 18  # bytes


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, with what identifies it."""

    url: str
    size: int  # bytes; for planning, the sum decides
    checksum: str  # algorithm:hexadecimal digits
    option: str  # the recipe's option that takes a copy of it instead

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


def partial_file(target: Path, file: RemoteFile) -> Path:
    return target / f"{file.name}.part"


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def fetch(file: RemoteFile, target: Path) -> Path:
    """The file in `target`, its sum right; a partial download is resumed."""
    path, partial = target / file.name, partial_file(target, file)
    if path.exists():
        if wrong := _wrong(path, file):
            raise UserError(f"{path}: {wrong}; delete it to have it fetched again, or give a copy with {file.option}.")
        return path
    _transfer(file, partial)
    if wrong := _wrong(partial, file):
        partial.unlink()  # nothing says which bytes are bad
        raise UserError(
            f"{file.url}: {wrong}; the download was deleted: run the same command again, "
            f"or give a copy with {file.option}."
        )
    partial.rename(path)
    return path


def _wrong(path: Path, file: RemoteFile) -> str | None:
    """What is wrong with it, None where nothing is."""
    algorithm, expected = file.checksum.split(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)  # MD5 is there to find damage, which it does
    with path.open("rb") as data, byte_bar(f"checking {file.name}", size_of(path), delay=2.0) as bar:
        while block := data.read(1 << 20):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() == expected:
        return None
    size = size_of(path)
    lengths = "" if size == file.size else f", it has {size:,} bytes and not {file.size:,}"
    return f"its {algorithm.upper()} sum is {digest.hexdigest()}, not {expected}{lengths}"


def byte_bar(description: str, total: int, *, initial: int = 0, delay: float = 0.0) -> tqdm:
    return tqdm(
        desc=description, total=total, initial=initial, delay=delay, unit="B", unit_scale=True,
        mininterval=0.5, dynamic_ncols=True,
    )  # fmt: skip


class _BrokenOffError(Exception):
    """The connection, or the server, failed; another try may succeed."""


def _transfer(file: RemoteFile, partial: Path) -> None:
    """Downloads until the server says that the file is complete; reconnects where a connection breaks."""
    tries = 0  # where not even the first connection brings anything, waiting will not help
    with byte_bar(file.name, file.size, initial=size_of(partial)) as bar:
        while True:
            before = size_of(partial)
            try:
                return _receive(file, partial, bar)
            except _BrokenOffError as error:
                tries = _TRIES if size_of(partial) > before else tries - 1
                if tries < 0:
                    raise UserError(
                        f"{file.url} cannot be fetched ({error}); run the same command again to continue, "
                        f"or give a copy with {file.option}."
                    ) from None
            time.sleep(_PAUSE)


def _receive(file: RemoteFile, partial: Path, bar: tqdm) -> None:
    """One connection: asks for what `partial` lacks and appends it.

    Raises:
      _BrokenOffError: it ended before the file did.
    """
    have = size_of(partial)
    answer = _ask(file.url, have)
    if answer is None:  # the file is complete
        return
    with answer, partial.open("r+b" if have else "wb") as out:
        start, total = _extent(answer, file)
        if start > have:
            raise _BrokenOffError(f"the server answers from byte {start:,}, not from {have:,}")
        out.seek(start)
        out.truncate()
        bar.total, bar.n = total, start
        while block := _read(answer):
            out.write(block)
            bar.update(len(block))
        if out.tell() < total:
            raise _BrokenOffError(f"the connection ended after {out.tell():,} of {total:,} bytes")


def _ask(url: str, have: int) -> http.client.HTTPResponse | None:
    """The answer to a request for all bytes from `have` on; None where there are exactly that many."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_SECONDS)
        return answer
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416 or not have:
                raise _BrokenOffError(f"{error.code} {error.reason}") from None
            if error.headers.get("Content-Range", "").strip() == f"bytes */{have}":
                return None
        return _ask(url, 0)  # what is there is longer than the server's file, so it is no beginning of it
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(getattr(error, "reason", error)) or type(error).__name__) from None


def _extent(answer: http.client.HTTPResponse, file: RemoteFile) -> tuple[int, int]:
    """Where the answer begins in the file, and the file's size, in bytes."""
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", "").strip())
        if match is None:
            raise _BrokenOffError("the server does not say which bytes it sends")
        return int(match[1]), int(match[2])
    return 0, int(answer.headers.get("Content-Length") or file.size)  # all of it: the server ignores Range


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(error) or type(error).__name__) from None
