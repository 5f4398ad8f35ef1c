"""`asr-kd export --format recogniser`: a folder from which this package recognises speech, without the work folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from asr_kd.io.folders import replacing_folder
from asr_kd.io.formatting import human_bytes
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.runtime.folder import write_recogniser
from asr_kd.settings import to_mapping
from asr_kd.stages.export_folder import RECOGNISER, STEP, export_folder
from asr_kd.stages.new_speech import inputs_of
from asr_kd.stages.transcribe import recogniser_files
from asr_kd.workspace.config import TRAIN, Config
from asr_kd.workspace.sets import open_frames
from asr_kd.workspace.work import Workspace, require, trained_identity

log = logging.getLogger(__name__)

_VERSION = 2  # raise it when the same parts give another folder


@dataclass(frozen=True)
class RecogniserResult:
    """What was written."""

    folder: Path
    ran: bool
    size: int  # bytes

    def __str__(self) -> str:
        first = f"{'exported to' if self.ran else 'already in'} {self.folder} ({human_bytes(self.size)})"
        return f"{first}\ntry it: asr-kd transcribe --model {self.folder} RECORDING"


def export_recogniser(config: Config, work: Workspace, system: str, folder: Path) -> RecogniserResult:
    """Writes net, tree, graph, lexicon, normalisation and scales.

    Raises:
      UserError: an earlier stage has not run, or the folder holds other files.
    """
    config.system(system)
    folder = export_folder(folder)
    files = recogniser_files(config, work, system)
    settings = {
        "form": RECOGNISER,
        "system": system,
        "members": files.members,
        "recogniser": to_mapping(files.settings),
    }
    inputs = {
        "model": trained_identity(work, system),
        "train frames": open_frames(work, TRAIN).digest,
        "graph": require(files.graph, work, "decode")["digest"],
    }
    stamp = Stamp(STEP, settings, inputs | inputs_of(config, work, system), version=_VERSION)
    reason = stale_reason(folder, stamp)
    if reason is not None:
        log.info("exporting %s: %s", system, reason)
        parts = files.parts()
        with replacing_folder(folder, stamp) as temporary:
            write_recogniser(parts, temporary)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return RecogniserResult(folder, reason is not None, size)
