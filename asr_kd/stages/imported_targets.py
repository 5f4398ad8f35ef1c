"""Soft targets from a folder of posteriors that another toolkit computed, in the same store as our own teachers'."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr_kd.distillation.settings import TargetsConfig
from asr_kd.distillation.soft_target_worker import SAMPLE_FRAMES, SUMS, truncation_sums
from asr_kd.distillation.store import SoftTargetStore, SoftTargetWriter, TopK, cuts_nothing, truncate
from asr_kd.errors import UserError, some_of
from asr_kd.export.posteriors import PosteriorFolder
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import digest_of, write_json
from asr_kd.io.fingerprint import fingerprint, read_fingerprints
from asr_kd.io.folders import resuming_folder
from asr_kd.io.progress import progress_bar
from asr_kd.io.stamp import Stamp

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportTask:
    """Posteriors at T = 1 in a folder, the frames that they are of, and what to store of them."""

    source: Path
    store: FrameStore
    num_senones: int
    settings: TargetsConfig
    seed: int

    def num_frames(self, utterance: int) -> int:
        span = self.store.span(utterance)
        return span.stop - span.start

    def distribution(self, posteriors: PosteriorFolder, utterance: int) -> Tensor | None:
        """(T, C) log distribution at the settings' temperature; None where the folder has none of this utterance.

        Raises:
          UserError: the posteriors are not of these frames or senones.
        """
        store, name = self.store, self.store.ids[utterance]
        if name not in posteriors:
            return None
        values = posteriors.read(name)
        if len(values) != self.num_frames(utterance):
            raise UserError(
                f"{self.source}: {name} has posteriors of {len(values)} frames, but {store.folder} has "
                f"{self.num_frames(utterance)} (one for each 10 ms, also at the edges: snip_edges=False)."
            )
        if values.shape[1] != self.num_senones:
            raise UserError(
                f"{self.source}: {name} has posteriors of {values.shape[1]} senones, but the tree has "
                f"{self.num_senones}."
            )
        return torch.from_numpy(values).div(self.settings.temperature).log_softmax(-1)


def import_targets(folder: Path, stamp: Stamp, task: ImportTask, *, quiet: bool) -> dict[str, Any]:
    """Fills the folder; returns its stamp's metadata.

    An altered copy of an utterance may have no posteriors: its frames then have no soft targets.

    Raises:
      UserError: another utterance has none, or posteriors are not of these frames or senones.
    """
    store, settings, num_senones = task.store, task.settings, task.num_senones
    posteriors = PosteriorFolder(task.source, num_senones)
    _check_complete(task, posteriors)
    mean_distribution = _sample_mean(task, posteriors)
    metadata: dict[str, Any] = {"temperature": settings.temperature, "num_senones": num_senones}
    exact = cuts_nothing(settings.keep_mass, settings.max_entries, num_senones)
    with resuming_folder(folder, stamp, metadata) as temporary:
        writer = SoftTargetWriter(temporary, num_senones, mean_distribution.numpy(), exact=exact)
        sums = {"zeros": 0} | (writer.note or {"utterances": 0, "frames": 0, **dict.fromkeys(SUMS, 0.0)})
        left = range(sums["utterances"], len(store.ids))
        for utterance in progress_bar(None if quiet else "imported targets", unit="utt", items=left):
            full = task.distribution(posteriors, utterance)
            added = dict.fromkeys(SUMS, 0.0)
            if full is None:
                targets = TopK.absent(task.num_frames(utterance))
            else:
                targets = truncate(full, keep_mass=settings.keep_mass, max_entries=settings.max_entries)
                added = truncation_sums(full, targets, mean_distribution)
            writer.append(targets)
            sums = {name: sums[name] + added[name] for name in SUMS} | {
                "frames": sums["frames"] + (0 if full is None else len(full)),
                "utterances": utterance + 1,
                "zeros": sums["zeros"] + (0 if full is None else int(torch.isneginf(full).sum())),
            }
            writer.commit(sums)
        writer.close()
        written = SoftTargetStore(temporary, temperature=settings.temperature, num_frames=store.num_frames)
        metadata |= {name: sums[name] / max(1, sums["frames"]) for name in SUMS}
        metadata |= {"frames": sums["frames"], "zeros": sums["zeros"]}
        metadata |= {"bytes_per_frame": written.bytes_per_frame, "full_bytes_per_frame": 2 * num_senones}
    return metadata


def file_digests(source: Path, folder: Path) -> dict[str, str]:
    """The digest of all files of a folder of posteriors, for a stamp.

    A file is read again where its size or time changed since the last call, whose digests lie beside `folder`.
    """
    notes = folder.with_name(f".{folder.name}.digests.json")
    known = read_fingerprints(notes, "delete it: the posteriors are then read again.")
    files = {os.path.relpath(file, source): file for file in PosteriorFolder(source).files}
    present = {name: fingerprint(file, known.get(name)) for name, file in files.items()}
    if present != known:
        write_json(notes, present)
    return {"posteriors": digest_of([[name, present[name].digest] for name in sorted(present)])[:16]}


def _check_complete(task: ImportTask, posteriors: PosteriorFolder) -> None:
    store = task.store
    absent = [name not in posteriors for name in store.ids]
    originals = [name for name, own, gone in zip(store.ids, store.unaltered, absent, strict=True) if gone and own]
    if originals:
        raise UserError(
            f"{task.source} has no posteriors of {len(originals)} of the utterances of {store.folder}: "
            f"{some_of(originals)}."
        )
    if any(absent):
        log.warning("%s has no posteriors of %d altered copies: they have no soft term", task.source, sum(absent))


def _sample_mean(task: ImportTask, posteriors: PosteriorFolder) -> Tensor:
    """(C,) mean distribution over a random sample of utterances."""
    total, frames = torch.zeros(task.num_senones), 0
    for utterance in np.random.default_rng(task.seed).permutation(len(task.store.ids)).tolist():
        full = task.distribution(posteriors, utterance)
        if full is None:
            continue
        total += full.exp().sum(0)
        frames += len(full)
        if frames >= SAMPLE_FRAMES:
            break
    return total / total.sum()
