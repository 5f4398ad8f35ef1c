"""Whether a process sees the artefacts that the command sees: a file system may show another machine old ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from asr_kd.io.stamp import another_here, identity, read_stamp

Shard = TypeVar("Shard")
Result = TypeVar("Result")


class NeedsArtefacts(Protocol):
    """A shard."""

    @property
    def artefacts(self) -> tuple[Path, ...]:
        """What a process must see to work on it."""


def artefacts_of(groups: Iterable[tuple[Path, Sequence[NeedsArtefacts]]]) -> set[Path]:
    """Returns the artefacts of all shards in groups, as `asr_kd.workspace.cached_map.cached_groups` takes them."""
    return {path for _, shards in groups for shard in shards for path in shard.artefacts}


class OnSameFiles(Generic[Shard, Result]):
    """A function of shards; each process that has it looks at the artefacts once, before its first shard.

    Args:
      function: see `asr_kd.workspace.executor.parallel_map`.
      artefacts: folders with stamps, or stamps, as they are now; those without a stamp are not looked at.

    Raises:
      UserError: an artefact is another one here.
    """

    def __init__(self, function: Callable[[Shard], Result], artefacts: Iterable[Path]) -> None:
        self._function, self._looked = function, False
        self._identities = {path: found for path in sorted(set(artefacts)) if (found := _identity(path)) is not None}

    def __call__(self, shard: Shard) -> Result:
        if not self._looked:
            self._look()
        return self._function(shard)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_looked": False}

    def _look(self) -> None:
        for path, expected in self._identities.items():
            if (here := _identity(path)) != expected:
                raise another_here(path, here, expected)
        self._looked = True


def _identity(path: Path) -> str | None:
    stamp = read_stamp(path)
    return None if stamp is None else identity(stamp)
