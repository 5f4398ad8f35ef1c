"""Which process of torchrun's this is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from asr_kd.errors import UserError


class Torchrun(NamedTuple):
    """A process of torchrun: its number among all processes, how many they are, and the same on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def torchrun(environment: Mapping[str, str] = os.environ) -> Torchrun:
    """Reads which process this is from the variables that torchrun sets; without torchrun it is the only one.

    Raises:
      UserError: they are not as torchrun sets them.
    """
    if environment.get("WORLD_SIZE", "1") == "1":
        return Torchrun()  # a job script may have set RANK for its own ends
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    try:
        this = Torchrun(*(int(environment[name]) for name in names))
    except (KeyError, ValueError):
        this = Torchrun(-1)
    if not (0 <= this.rank < this.world and 0 <= this.local_rank < this.local_world):
        raise UserError(f"{', '.join(names)} are not as torchrun sets them; start with torchrun, or unset them.")
    return this
