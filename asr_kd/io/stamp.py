"""Provenance of an artefact: `stamp.json` says what made it, and whether it must be made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.errors import UserError
from asr_kd.version import __version__

STAMP = "stamp.json"


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

    def write(self, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
        """`metadata`: what a later reader may want to know (counts, sizes); they do not enter the digest."""
        body = {
            "step": self.step,
            "digest": self.digest,
            "settings": self.settings,
            "inputs": self.inputs,
            "seed": self.seed,
            "version": __version__,
            "metadata": dict(metadata or {}),
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


def stale_reason(path: Path, stamp: Stamp) -> str | None:
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
