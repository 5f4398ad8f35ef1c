"""Stage 2, features: cuts -> a FrameStore per set, and altered (faster, slower) copies of the training set.

The training set is made first: the scale of dev and test is its, and so is a part of their stamps.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_LENGTH, FRAME_SHIFT, check_features, fbank, resample
from asr_kd.frames.store import FrameStore, FrameStoreWriter, store_bytes
from asr_kd.io.folders import discard_partial, resuming_folder
from asr_kd.io.formatting import human_bytes
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.kernels.threads import one_thread
from asr_kd.workspace.config import Config
from asr_kd.workspace.executor import parallel_map
from asr_kd.workspace.freshness import check_inputs_unmodified
from asr_kd.workspace.work import Workspace, require

SETS = ("train", "dev", "test")
_PIECE = 50  # utterances that a process works on at a time: seconds of work, a few MB of results
_SMALL = 4 * 3600.0  # seconds of audio that one process does in ten: starting others (import torch) would take longer
_BLOCK = 400 * _PIECE  # utterances whose cuts are in memory at once, and for which one pool of processes is started

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SetFeatures:
    """One set's store, as made now (`made`) or found as it should be."""

    name: str
    made: bool
    utterances: int
    frames: int
    minutes: float
    bytes: int
    seconds: float
    left_out: list[dict[str, str]] = field(default_factory=list)  # {"utterance": id, "reason": text}


@dataclass(frozen=True)
class FeaturesResult:
    """What `asr-kd features` did."""

    sets: list[SetFeatures]

    @property
    def made(self) -> bool:
        return any(one.made for one in self.sets)

    def __str__(self) -> str:
        lines = []
        for one in self.sets:
            how = f"made in {one.seconds:.1f} s" if one.made else "up to date"
            out = f", {len(one.left_out)} left out" if one.left_out else ""
            lines.append(
                f"{one.name}: {one.utterances:,} utterances, {one.frames:,} frames, {one.minutes:.1f} minutes, "
                f"{human_bytes(one.bytes)}{out} ({how})"
            )
        return "\n".join(lines)


def make_features(
    config: Config, work: Workspace, nj: int = 1, executor: str = "processes", sets: tuple[str, ...] = SETS
) -> FeaturesResult:
    """Makes data/frames/<set>/ of each set whose stamp does not fit any more.

    Args:
      nj: utterances of a large set are spread over this many processes; the result does not depend on it.
      executor: see `asr_kd.workspace.executor.parallel_map`.
      sets: the training set ("train") must be made before any other.

    Raises:
      UserError: cuts missing, bad audio, a speed that cannot be had, or too little disk.
    """
    speeds = config.features.speeds
    if 1.0 not in speeds or len(set(speeds)) != len(speeds) or not all(0.5 <= s <= 2 for s in speeds):
        raise UserError(f"features.speeds: {list(speeds)} must hold 1.0, no factor twice, and lie within 0.5 to 2.")
    return FeaturesResult([_make_set(config, work, name, nj, executor) for name in sets])


def _make_set(config: Config, work: Workspace, name: str, nj: int, executor: str) -> SetFeatures:
    started = time.monotonic()
    folder, cuts = work.frames(name), work.cuts(name)
    prepared = require(work.data / "stamp.json", work, "prepare")
    if not cuts.exists():
        raise UserError(f"{cuts} is not there yet; make it first: {work.command('prepare')}")
    inputs = {"corpus": prepared["digest"], "cuts": _content_digest(cuts)}
    speeds: tuple[float, ...] = (1.0,)
    if name == "train":
        speeds = config.features.speeds
    else:
        inputs["training set"] = require(work.frames("train"), work, "features")["digest"]
    settings = {
        "num_mel_bins": config.features.num_mel_bins,
        "speeds": list(speeds),
        "sampling_rate": config.corpus.sampling_rate,
        "on_bad_utterance": config.corpus.on_bad_utterance,
    }
    check_inputs_unmodified(work, [name])
    stamp = Stamp("features", settings, inputs)
    why = stale_reason(folder, stamp)
    if why is None:
        discard_partial(folder)
        return SetFeatures(
            name, False, seconds=time.monotonic() - started, **require(folder, work, "features")["metadata"]
        )
    scale = None if name == "train" else FrameStore.open(work.frames("train")).scale
    count, duration = _count(cuts)
    copies = sum(1 / speed for speed in speeds)
    needed = store_bytes(round(duration * copies / FRAME_SHIFT), count * len(speeds), config.features.num_mel_bins)
    log.info("features of %s: %s; %d cuts, %s of disk needed", name, why, count, human_bytes(needed))
    check_disk(folder, needed)
    metadata: dict[str, Any] = {}
    task = _Task(work.root.resolve(), config.corpus.sampling_rate, config.features.num_mel_bins, speeds)
    skip = config.corpus.on_bad_utterance == "skip"
    if executor == "processes" and duration * copies < _SMALL:
        nj = 1
    with resuming_folder(folder, stamp, metadata) as temporary:
        with FrameStoreWriter(temporary, task.num_mel_bins, scale) as writer:
            left_out = _fill(writer, task, cuts, count, skip, nj, executor, name)
        metadata |= {
            "utterances": writer.num_utterances,
            "frames": writer.num_frames,
            "minutes": round(writer.num_frames * FRAME_SHIFT / 60, 3),
            "bytes": sum(file.stat().st_size for file in temporary.iterdir()),
            "left_out": left_out,
        }
    for row in left_out:
        log.warning("left out: %s", row["reason"])
    return SetFeatures(name, True, seconds=time.monotonic() - started, **metadata)


def _fill(
    writer: FrameStoreWriter, task: _Task, cuts: Path, count: int, skip: bool, nj: int, executor: str, name: str
) -> list[dict[str, str]]:
    """Appends every cut of the file, in its order, from where a killed run was; returns what was left out."""
    marked = writer.note or {"cuts": 0, "left_out": []}
    done, left_out = marked["cuts"], marked["left_out"]
    reader = islice(_read_cuts(cuts), done, None)
    with tqdm(
        total=count, initial=done, desc=f"features of {name}", unit="utt", mininterval=0.5, dynamic_ncols=True
    ) as bar:
        while block := list(islice(reader, _BLOCK)):
            # small sets are cut finer, so that every process has something to do
            size = max(1, min(_PIECE, len(block) // (4 * max(1, nj))))
            pieces = [_Piece(task, tuple(block[i : i + size])) for i in range(0, len(block), size)]
            for results in parallel_map(_extract_piece, pieces, nj=nj, executor=executor):
                for result in results:
                    if result.error and not skip:
                        raise UserError(f"{result.error} Or run with --on-bad-utterance skip.")
                    if result.error:
                        left_out.append({"utterance": result.id, "reason": result.error})
                    for copy in result.copies:
                        writer.append(**copy)
                done += len(results)
                writer.commit({"cuts": done, "left_out": left_out})
                bar.update(len(results))
    return left_out


@dataclass(frozen=True)
class _Task:
    """What is the same for all cuts."""

    root: Path
    sampling_rate: int
    num_mel_bins: int
    speeds: tuple[float, ...]


@dataclass(frozen=True)
class _Piece:
    task: _Task
    cuts: tuple[Any, ...]


@dataclass(frozen=True)
class _Extracted:
    """The copies of one utterance, as FrameStoreWriter.append takes them; or what is wrong with it."""

    id: str
    copies: list[dict[str, Any]]
    error: str = ""


def _extract_piece(piece: _Piece) -> list[_Extracted]:
    with one_thread():  # sums must not depend on how many cores there are
        return [_extract(cut, piece.task) for cut in piece.cuts]


def _extract(cut: Any, task: _Task) -> _Extracted:
    try:
        samples = _samples(cut, task)
        text = " ".join(supervision.text or "" for supervision in cut.supervisions).strip()
        speaker = next((s.speaker for s in cut.supervisions if s.speaker), None)
        reference = next((s.custom["reference"] for s in cut.supervisions if "reference" in (s.custom or {})), None)
        copies = []
        for speed in task.speeds:
            name = cut.id if speed == 1.0 else f"{cut.id}_sp{speed:g}"
            altered = samples if speed == 1.0 else resample(samples, task.sampling_rate, speed)
            features = fbank(altered, task.sampling_rate, task.num_mel_bins).astype(np.float16)
            check_features(name, features)
            copies.append(
                {
                    "utterance_id": name,
                    "features": features,
                    "group": f"{speaker}_sp{speed:g}" if speaker else name,
                    "text": text,
                    "duration": altered.shape[1] / task.sampling_rate,
                    "speed": speed,
                    "reference": reference,
                }
            )
    except UserError as error:
        return _Extracted(cut.id, [], str(error))
    return _Extracted(cut.id, copies)


def _samples(cut: Any, task: _Task) -> np.ndarray:
    """(1, n) float32; UserError names the utterance and what is wrong with its audio."""
    if not cut.has_recording:
        raise UserError(f"utterance {cut.id} has no recording; mend it or leave it out.")
    files = ", ".join(str(source.source) for source in cut.recording.sources if source.type == "file")
    where = f"utterance {cut.id} ({files})" if files else f"utterance {cut.id}"
    if cut.sampling_rate != task.sampling_rate:
        raise UserError(
            f"{where} is sampled at {cut.sampling_rate} Hz, not at {task.sampling_rate}; convert it, or set "
            f"corpus.sampling_rate."
        )
    if cut.num_channels != 1:
        raise UserError(f"{where} has {cut.num_channels} channels, not 1; convert it to mono.")
    try:
        # an absolute path stays as it is
        samples: np.ndarray = cut.with_recording_path_prefix(task.root).load_audio()
    except Exception as error:  # each of lhotse's back ends raises what it likes: for the user it is a bad file
        reason = (str(error).strip() or repr(error)).splitlines()[0][:200]
        raise UserError(f"{where} cannot be read: {reason}; is the file missing or truncated?") from None
    if samples.shape[1] < FRAME_LENGTH * task.sampling_rate:
        raise UserError(f"{where} has {samples.shape[1]} samples, less than one window of 25 ms; leave it out.")
    if not np.isfinite(samples).all():
        raise UserError(f"{where} holds NaN or infinite samples; mend it or leave it out.")
    if samples.min() == samples.max():
        raise UserError(f"{where} is digital silence; mend it or leave it out.")
    return samples.astype(np.float32, copy=False)


def _read_cuts(path: Path) -> Iterator[Any]:
    """Lazily, in the file's order."""
    from lhotse import load_manifest_lazy

    try:
        yield from load_manifest_lazy(path)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); make it again with asr-kd prepare.") from None


def _count(path: Path) -> tuple[int, float]:
    """Cuts, and their seconds in all."""
    count, duration = 0, 0.0
    for cut in _read_cuts(path):
        count, duration = count + 1, duration + cut.duration
    if count == 0:
        raise UserError(f"{path} has no cut; make it again with asr-kd prepare.")
    return count, duration


def _content_digest(path: Path) -> str:
    """SHA-256 of what a .gz file holds: its own bytes have the time of writing in them."""
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}); make it again with asr-kd prepare.") from None
    return digest.hexdigest()[:16]
