"""What a file was when it was read: its size, its time and the digest of its content; and whether it still is that.

No two clocks are compared. A file of the same size and time is the same; where only the time differs, the content
decides.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from asr_kd.errors import UserError
from asr_kd.io.files import file_digest, read_json


class Fingerprint(NamedTuple):
    """The size, the time and the digest of one file; a list of three in JSON."""

    size: int  # bytes
    time: int  # of the last change, ns
    digest: str = ""  # SHA-256 of the content, hexadecimal; "": not computed

    def matches(self, path: Path) -> bool:
        """Whether the file still is this one. Without a digest another time is another file.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "text"
        ...     _ = path.write_text("hello")
        ...     Fingerprint(5, 0, file_digest(path)).matches(path), Fingerprint(5, 0).matches(path)
        (True, False)
        """
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) == (self.size, self.time):
            return True
        return status.st_size == self.size and self.digest != "" and file_digest(path) == self.digest


def fingerprint(path: Path, known: Fingerprint | None = None, *, hashed: bool = True) -> Fingerprint:
    """Returns the fingerprint of a file that exists.

    Args:
      known: an earlier one; where size and time are still the same its digest is taken, and nothing is read.
      hashed: False: without the digest, as of a file that may not be read.
    """
    status = path.stat()
    size, time = status.st_size, status.st_mtime_ns
    if not hashed:
        return Fingerprint(size, time)
    if known is not None and known[:2] == (size, time) and known.digest:
        return known
    try:
        return Fingerprint(size, time, file_digest(path))
    except PermissionError:  # whoever reads the file says so
        return Fingerprint(size, time)


def read_fingerprints(path: Path, advice: str) -> dict[str, Fingerprint]:
    """What `asr_kd.io.files.write_json` wrote of a mapping from names to fingerprints; of a missing file, nothing.

    Raises:
      UserError: the file is damaged; the sentence ends in the advice.
    """
    if not path.exists():
        return {}
    try:
        return {name: Fingerprint(*entry) for name, entry in read_json(path, dict, advice).items()}
    except TypeError:
        raise UserError(f"{path} is damaged; {advice}") from None
