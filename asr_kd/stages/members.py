"""Members of a system that are trained apart, one after the other or on several machines, and then put together.

Each has a folder of its own, exp/SYSTEM.members/K, until all are there. A member is a function of its seed and of the
order of the frames, which all members of a system share: apart they get the weights that they get side by side.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asr_kd.acoustic.model_files import merge_members, weights_digest
from asr_kd.acoustic.training import read_log, write_log
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import CONTENTS, Stamp, stale_reason
from asr_kd.stages.training_run import TrainResult, checkpoint_of, results_of

log = logging.getLogger(__name__)

_LISTS = ("dev_accuracy", "best_epoch", "train_accuracy")


def member_folder(path: Path, member: int) -> Path:
    """Returns the folder of a member, counted from 0, of the system whose folder is `path`."""
    return path.with_name(f"{path.name}.members") / str(member)


def member_stamp(stamp: Stamp, member: int) -> Stamp:
    """Returns the stamp of a member, made from that of the whole system."""
    return Stamp("train a member", {**stamp.settings, "member": member}, stamp.inputs, stamp.seed, stamp.version)


def missing_members(path: Path, stamp: Stamp, count: int) -> list[int]:
    """Which of the system's members are not trained, apart, with what its stamp says."""
    return [k for k in range(count) if stale_reason(member_folder(path, k), member_stamp(stamp, k)) is not None]


def begun_apart(path: Path, count: int) -> bool:
    """Whether a training of some member alone was stopped, or has ended."""
    folders = [member_folder(path, member) for member in range(count)]
    return any(folder.exists() or checkpoint_of(folder).exists() for folder in folders)


def put_together(path: Path, stamp: Stamp, count: int, metadata: dict[str, Any]) -> TrainResult:
    """Makes the system of its members, all of which are trained, and deletes their folders.

    Args:
      metadata: further entries of the stamp's metadata.

    Raises:
      UserError: the files of one are damaged.
    """
    folders = [member_folder(path, member) for member in range(count)]
    known = [results_of(folder) for folder in folders]
    results = {"members": count, "parameters": known[0]["parameters"]}
    results |= {key: [value for member in known for value in member[key]] for key in _LISTS}
    log.info("putting the %d members of %s together", count, path.name)
    notes = results | metadata
    with replacing_folder(path, stamp, notes) as temporary:
        merge_members(folders, temporary)
        notes[CONTENTS] = weights_digest(temporary)
        write_log(temporary, _joined_rows([read_log(folder) for folder in folders]))
    discard_members(path)
    return TrainResult(path, True, **results)


def discard_members(path: Path) -> None:
    """Deletes what was trained apart, for when the system is there, and a checkpoint of all members together."""
    shutil.rmtree(member_folder(path, 0).parent, ignore_errors=True)
    checkpoint_of(path).unlink(missing_ok=True)


def _joined_rows(logs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of epochs: lists have a number for each member; of other numbers, those of the slowest member."""
    rows = []
    for of_members in zip(*logs, strict=True):
        row: dict[str, Any] = {}
        for key, first in of_members[0].items():
            if isinstance(first, list):
                row[key] = [number for member in of_members for number in member[key]]
            else:
                row[key] = max(of_members, key=lambda member: member["seconds"])[key]
        rows.append(row)
    return rows
