"""Text files that a user brings, plain or gzipped: UTF-8, with or without a byte-order mark.

Only \\n, \\r\\n and \\r end a line, unlike in `str.splitlines`, for which U+2028, form feeds and others do too.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from asr_kd.errors import UserError

_UTF8 = "utf-8-sig"  # drops a byte-order mark


@contextmanager
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
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
