"""`asr-kd export-posteriors`: a system's log posteriors of a set, for other toolkits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_kd.acoustic.model import FrameModel, pick_device
from asr_kd.acoustic.model_files import load_model
from asr_kd.errors import UserError, some_of
from asr_kd.export.posteriors import ARK, Format, write_posteriors
from asr_kd.frames.store import FrameStore
from asr_kd.io.folders import replacing_folder
from asr_kd.io.progress import progress_bar
from asr_kd.io.stamp import STAMP, Stamp, identity, read_stamp, stale_reason
from asr_kd.workspace.config import Config
from asr_kd.workspace.sets import open_frames, speech_sets
from asr_kd.workspace.work import Workspace, require

log = logging.getLogger(__name__)

_STEP = "export-posteriors"
_FILES = (STAMP, ARK)  # and .npz files


@dataclass(frozen=True)
class ExportResult:
    """What was written."""

    folder: Path
    ran: bool
    utterances: int

    def __str__(self) -> str:
        return f"posteriors of {self.utterances:,} utterances {'in' if self.ran else 'already in'} {self.folder}"


def export_posteriors(
    config: Config, work: Workspace, system: str, folder: Path, *, form: Format, set_name: str, device: str = "auto"
) -> ExportResult:
    """Writes log posteriors at T = 1; of an ensemble the log of the members' mean, of several seeds the first.

    Raises:
      UserError: an earlier stage has not run, or the folder holds other files.
    """
    if set_name not in speech_sets(config, work):
        raise UserError(f"there is no set {set_name!r}; the config has: {', '.join(speech_sets(config, work))}.")
    config.system(system)
    folder = folder.absolute()
    if folder in (Path.cwd(), *Path.cwd().parents):
        raise UserError(f"{folder} is where this command runs; give the name of a new folder.")
    trained = require(work.exp(system), work, f"train {system}")
    store = open_frames(work, set_name)
    stamp = Stamp(_STEP, {"format": form}, {system: identity(trained), f"{set_name} frames": store.digest})
    old = read_stamp(folder)
    files = [path for path in folder.rglob("*") if not path.is_dir()] if folder.is_dir() else [folder]
    written = old is not None and old["step"] == _STEP
    others = [path.name for path in files if not written or (path.name not in _FILES and path.suffix != ".npz")]
    if folder.exists() and others:
        raise UserError(f"{folder} holds other files ({some_of(sorted(others))}); name a new folder.")
    reason = stale_reason(folder, stamp)
    if reason is None:
        return ExportResult(folder, False, len(store.ids))
    log.info("exporting posteriors of %s: %s", system, reason)
    model = answering_model(config, work, system, device)
    with replacing_folder(folder, stamp) as temporary:
        count = write_posteriors(temporary, _log_posteriors(model, store), form)
    return ExportResult(folder, True, count)


def answering_model(config: Config, work: Workspace, system: str, device: str = "cpu") -> FrameModel:
    """A trained system as one model: all members of an ensemble, of several seeds the first."""
    model = load_model(work.exp(system), pick_device(device))
    return model.first_members(sum(config.answering(system).values()))


def _log_posteriors(model: FrameModel, store: FrameStore) -> Iterator[tuple[str, np.ndarray]]:
    for number, name in enumerate(progress_bar("posteriors", unit="utt", items=store.ids)):
        yield name, model.log_posteriors(store.normalised(number)).cpu().numpy()
