"""Provenance of an artefact: `stamp.json` says what it was made from, and so whether it is up to date."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.errors import UserError
from asr_kd.settings import to_mapping
from asr_kd.version import __version__

STAMP = "stamp.json"
CONTENTS = "contents"  # in the metadata: a digest of the files beside it, where they depend on more than the stamp


@dataclass(frozen=True)
class Stamp:
    """What made an artefact: the settings that matter to it and the stamps of what it was made from.

    Attributes:
      settings: plain data, or settings objects, by name. Settings equal to their defaults, and those that no result
        depends on, do not count: a setting that is added to a class later leaves finished artefacts valid.
      inputs: name -> digest of that input's stamp, or of the file itself.
      version: of the artefact's format, or of the way it is computed; raise it when either changes.
    """

    step: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    seed: int = 0
    version: int = 1

    @property
    def _body(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "version": self.version,
            "settings": to_mapping(self.settings, changed_only=True),
            "inputs": dict(self.inputs),
            "seed": self.seed,
        }

    @property
    def digest(self) -> str:
        """16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self._body, sort_keys=True).encode()).hexdigest()[:16]

    def write(self, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
        """Writes the file `path`.

        Args:
          metadata: what a later reader may want to know (counts, sizes); it does not enter the digest.

        Raises:
          ValueError: a number is not finite: what is stamped is valid, and NaN is no JSON.
        """
        body = {**self._body, "digest": self.digest, "package": __version__, "metadata": dict(metadata or {})}
        path.write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_stamp(path: Path) -> dict[str, Any] | None:
    """The stamp of an artefact's folder, or of a stamp file itself; None where there is none."""
    file = path / STAMP if path.is_dir() else path
    try:
        stamp: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        stamp = {}
    if not isinstance(stamp, dict) or not {"digest", "inputs", "settings"} <= stamp.keys():
        raise UserError(f"{file}: this stamp is damaged; delete it and run the stage again.")
    return stamp


def identity(stamp: Mapping[str, Any]) -> str:
    """What stands for an artefact in the stamps of what is made from it.

    Its digest; where its contents have one too, as weights that were trained again on other cores, both.

    >>> identity({"digest": "ab", "metadata": {}}), identity({"digest": "ab", "metadata": {"contents": "cd"}})
    ('ab', 'ab-cd')
    """
    contents = stamp.get("metadata", {}).get(CONTENTS)
    return f"{stamp['digest']}-{contents}" if contents else str(stamp["digest"])


def another_here(path: Path, here: str | None, expected: str) -> UserError:
    """What to raise where a process sees another artefact than the one that started the work; None: it sees none."""
    return UserError(
        f"{path} is {here or 'not there'} on {platform.node()}, but {expected} where the work was begun; run the "
        "command again when all machines see the same files."
    )


def stale_reason(path: Path, stamp: Stamp) -> str | None:
    """None where the artefact is already what `stamp` would make; otherwise why it must be made."""
    old = read_stamp(path)
    if old is None:
        return "not made yet"
    if old["digest"] == stamp.digest:
        return None
    new = json.loads(json.dumps(stamp._body))
    if old.get("version") != new["version"]:
        return "the way it is made changed"
    if (name := first_difference(old["inputs"], new["inputs"])) is not None:
        return f"its input {name} changed"
    if (name := first_difference(old["settings"], new["settings"])) is not None:
        return f"the setting {name} changed"
    return "it was made with another seed"


def first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """The dotted key of the first entry that differs or is on one side only; None where there is none."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return None if old == new else where
    for key in dict.fromkeys((*new, *old)):
        if key not in old or key not in new:
            return f"{where}.{key}".lstrip(".")
        if (inner := first_difference(old[key], new[key], f"{where}.{key}".lstrip("."))) is not None:
            return inner
    return None
