"""`asr-kd export-posteriors`: a system's log posteriors of a set, for other toolkits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from asr_kd.acoustic.model import FrameModel, pick_device
from asr_kd.acoustic.model_files import load_model
from asr_kd.errors import UserError
from asr_kd.export.posteriors import Format, write_posteriors
from asr_kd.frames.store import FrameStore
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp, identity, read_stamp, stale_reason
from asr_kd.workspace.config import Config
from asr_kd.workspace.sets import open_frames, speech_sets
from asr_kd.workspace.work import Workspace, require

log = logging.getLogger(__name__)

_STEP = "export-posteriors"


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
    trained = require(work.exp(system), work, f"train {system}")
    store = open_frames(work, set_name)
    stamp = Stamp(_STEP, {"format": form}, {system: identity(trained), f"{set_name} frames": store.digest})
    old = read_stamp(folder)
    if folder.exists() and (old is None or old["step"] != _STEP) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds other files; name a new folder.")
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
    for number, name in enumerate(tqdm(store.ids, "posteriors", mininterval=1.0)):
        yield name, model.log_posteriors(store.normalised(number)).cpu().numpy()
