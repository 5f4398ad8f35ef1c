"""The folder that a recipe works in, with the names of what lies in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.errors import UserError
from asr_kd.io.stamp import read_stamp


@dataclass(frozen=True)
class Workspace:
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


def require(path: Path, work: Workspace, command: str) -> dict[str, Any]:
    """The stamp of an input; raises UserError that says which command makes it."""
    stamp = read_stamp(path)
    if stamp is None:
        raise UserError(f"{path} is not there yet; make it first: {work.command(command)}")
    return stamp
