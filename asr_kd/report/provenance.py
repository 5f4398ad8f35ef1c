"""What a report is made from: all of it must be there, and of one piece.

So no number is of a model, a teacher or a first pass that is no longer there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asr_kd.distillation.settings import TargetsConfig
from asr_kd.errors import UserError
from asr_kd.io.stamp import identity, read_stamp
from asr_kd.report.systems import is_reused
from asr_kd.workspace.config import DEV, Config
from asr_kd.workspace.sets import prepare_command, scored_sets, speech_sets
from asr_kd.workspace.work import Workspace, require, trained_identity


def inputs(config: Config, work: Workspace) -> dict[str, str]:
    """Digests of all that the report is made from.

    Raises:
      UserError: something is missing (the message names the command that makes it), or was made
        from an artefact that is no longer there.
    """
    digests = {"data": require(work.data, work, "prepare")["digest"]}
    for name in speech_sets(config, work):
        digests[f"{name} cuts"] = require(work.cuts_stamp(name), work, prepare_command(work, name))["digest"]
    sets = scored_sets(config, work)
    for name in sets:
        digests[f"{name} frames"] = require(work.frames(name), work, "features")["digest"]
    digests["alignment"] = require(work.exp("align"), work, "align")["digest"]
    for name in speech_sets(config, work):
        if (stamp := read_stamp(work.exp("align") / name)) is not None:
            digests[f"{name} alignment"] = stamp["digest"]
    if (stamp := read_stamp(work.exp("align_compare"))) is not None:
        digests["compared"] = stamp["digest"]
    for system in config.systems:
        model = _model_digest(config, work, system)
        digests[system] = model
        for name in sets:
            digests[f"{system} {name}"] = _decoded_digest(work, work.decoded(system, name), system, model)
            if config.decodes_phones:
                folder = work.decoded_phones(system, name)
                digests[f"{system} {name} phones"] = _decoded_digest(work, folder, system, model)
    digests |= {
        str(folder.relative_to(work.exp(""))): stamp["digest"] for _, _, folder, stamp in rescored(config, work)
    }
    return digests


def _decoded_digest(work: Workspace, folder: Path, system: str, model: str) -> str:
    """Returns the digest of what a system recognised.

    Raises:
      UserError: it is missing, or the model is another one now.
    """
    stamp = require(folder, work, f"decode --system {system}")
    if model not in stamp["inputs"].values():
        raise UserError(
            f"{folder} was decoded with another {work.exp(system)} than the one there now ({model}); "
            f"decode again: {work.command('decode')}"
        )
    return str(stamp["digest"])


def _model_digest(config: Config, work: Workspace, system: str) -> str:
    stamp = require(work.exp(system), work, f"train {system}")
    settings = config.system(system)
    for source in (*([settings.reuse] if settings.reuse and is_reused(stamp) else []), *settings.parts):
        digest = trained_identity(work, source)
        if digest not in stamp["inputs"].values():
            raise UserError(
                f"{work.exp(system)} was made from another {work.exp(source)} than the one there now; "
                f"make it again: {work.command(f'train {system}')}"
            )
    _check_teachers(config, work, system, stamp)
    return identity(stamp)


def _check_teachers(config: Config, work: Workspace, system: str, stamp: Mapping[str, Any]) -> None:
    """Raises UserError where a distilled system learnt from teachers that were trained again since."""
    if (settings := stamp["settings"].get("targets")) is None:
        return
    targets = TargetsConfig(**settings)
    if targets.imported or not set(targets.source) <= set(config.systems):
        return
    teachers = {name: trained_identity(work, name) for name in targets.source}
    if targets.stamp(teachers, int(stamp["seed"])).digest not in stamp["inputs"].values():
        raise UserError(
            f"{work.exp(system)} was distilled from another {' and '.join(teachers)} than there is now; train again: "
            f"{work.command(f'train {system}')}"
        )


def rescored(config: Config, work: Workspace) -> Iterator[tuple[str, str, Path, dict[str, Any]]]:
    """System, test set, folder and its stamp; those of another first pass are left out."""
    for system in config.systems:
        for name in scored_sets(config, work):
            decoded = read_stamp(work.decoded(system, name))
            if name == DEV or decoded is None:
                continue
            for folder in sorted(work.rescored(system, name, "").glob("*")):
                stamp = read_stamp(folder)
                if stamp is not None and stamp["inputs"]["decoded"] == decoded["digest"]:
                    yield system, name, folder, stamp
