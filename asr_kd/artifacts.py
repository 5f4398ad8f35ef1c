"""Artefacts on disk: where each lies, what made it (`stamp.json`), and how it is replaced all at once or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asr_kd
from asr_kd.errors import FullDiskError, UserError

STAMP = "stamp.json"


@dataclass(frozen=True)
class Work:
    """The folder a recipe works in, with the names of what lies in it."""

    root: Path
    config_path: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def lang(self) -> Path:
        return self.data / "lang"

    @property
    def lm(self) -> Path:
        return self.data / "lm"

    def cuts(self, name: str) -> Path:
        return self.data / f"cuts_{name}.jsonl.gz"

    def frames(self, name: str) -> Path:
        return self.data / "frames" / name

    def exp(self, name: str) -> Path:
        return self.root / "exp" / name

    def command(self, name: str) -> str:
        """The command that makes a missing artefact, for error messages."""
        elsewhere = self.root.absolute() != default_root(self.config_path).absolute()
        return f"asr-kd {name} --config {self.config_path}" + (f" --work-dir {self.root}" if elsewhere else "")


def default_root(config_path: Path) -> Path:
    """Where a recipe works unless told otherwise: the folder above the config's conf/, else the current one."""
    folder = config_path.absolute().parent
    return folder.parent if folder.name == "conf" else Path.cwd()


@dataclass(frozen=True)
class Stamp:
    """What made an artefact: the settings that matter to it and the stamps of what it was made from."""

    step: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]  # name -> digest of that input's stamp, or of the file itself
    seed: int = 0

    @property
    def digest(self) -> str:
        body = {"step": self.step, "settings": self.settings, "inputs": self.inputs, "seed": self.seed}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]

    def write(self, path: Path, facts: Mapping[str, Any] | None = None) -> None:
        """`facts`: what a later reader may want to know (counts, sizes); they do not enter the digest."""
        body = {
            "step": self.step,
            "digest": self.digest,
            "settings": self.settings,
            "inputs": self.inputs,
            "seed": self.seed,
            "version": asr_kd.__version__,
            "facts": dict(facts or {}),
        }
        path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def read_stamp(path: Path) -> dict[str, Any] | None:
    """The stamp of an artefact's folder, or of a stamp file itself; None where there is none."""
    file = path / STAMP if path.is_dir() else path
    try:
        stamp: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise UserError(f"{file}: this stamp is damaged; delete {file.parent} and run the stage again.") from None
    return stamp


def require(path: Path, work: Work, command: str) -> dict[str, Any]:
    """The stamp of an input; raises UserError that says which command makes it."""
    stamp = read_stamp(path)
    if stamp is None:
        raise UserError(f"{path} is not there yet; make it first: {work.command(command)}")
    return stamp


def reason_to_make(path: Path, stamp: Stamp) -> str | None:
    """None where the artefact is already what `stamp` would make; otherwise why it must be made."""
    old = read_stamp(path)
    if old is None:
        return "it is not there yet"
    if old["digest"] == stamp.digest:
        return None
    for name, digest in stamp.inputs.items():
        if old["inputs"].get(name) != digest:
            return f"its input {name} changed"
    for key, value in stamp.settings.items():
        before = old["settings"].get(key)
        if json.dumps(before, sort_keys=True) != json.dumps(value, sort_keys=True):
            return f"the setting {key} changed"
    return "it was made with another seed or by another version of the step"


@contextlib.contextmanager
def replacing_folder(path: Path, stamp: Stamp, facts: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; when the body ends well it gets the stamp and takes `path`'s place.

    `facts` may be filled by the body. A killed run leaves only the temporary folder, which the next run removes.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with full_disk_is_an_error(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            put_in_place(temporary, path, stamp, facts)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def put_in_place(temporary: Path, path: Path, stamp: Stamp, facts: dict[str, Any] | None = None) -> None:
    """A finished folder gets its stamp and takes the place of `path`, whatever was there."""
    stamp.write(temporary / STAMP, facts)
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` (same suffix); when the body ends well it takes `path`'s place."""
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
        raise FullDiskError(f"{path}: the disk is full; make room, then run the same command again.") from None


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
