"""The sets of a work folder: those of the config, and those that were added to it for scoring later."""

from __future__ import annotations

import json

from asr_kd.errors import UserError
from asr_kd.io.files import replacing_file
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.work import Workspace

_ADDED = "added_sets.json"


def all_sets(config: Config, work: Workspace) -> dict[str, tuple[str, ...]]:
    """Set -> the corpus's parts: the config's, then those that `add_set` noted."""
    return config.sets | _added(work)


def scored_sets(config: Config, work: Workspace) -> tuple[str, ...]:
    """dev, on which scales are chosen, and every test set, added ones included."""
    return (DEV, *(name for name in all_sets(config, work) if name not in (TRAIN, DEV)))


def add_set(work: Workspace, name: str, parts: tuple[str, ...]) -> None:
    """Notes a test set that is scored beside those of the config."""
    with replacing_file(work.data / _ADDED) as temporary:
        temporary.write_text(json.dumps(_added(work) | {name: parts}, indent=1) + "\n", encoding="utf-8")


def _added(work: Workspace) -> dict[str, tuple[str, ...]]:
    path = work.data / _ADDED
    if not path.exists():
        return {}
    try:
        return {name: tuple(parts) for name, parts in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{path} is damaged; delete it and add the sets again (asr-kd prepare --add-set).") from None
