"""Stage 2, features: cuts -> a FrameStore per set, and altered (faster, slower) copies of the training set.

The training set comes first: the other sets are scaled by its variance, and their stamps depend on its stamp.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_LENGTH, FRAME_SHIFT, check_features, fbank, resample
from asr_kd.frames.store import FrameStoreWriter, store_bytes
from asr_kd.io.folders import discard_partial, resuming_folder
from asr_kd.io.formatting import human_bytes
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.kernels.threads import one_thread
from asr_kd.workspace.config import TRAIN, Config
from asr_kd.workspace.executor import parallel_map
from asr_kd.workspace.frames import open_frames
from asr_kd.workspace.freshness import check_inputs_unmodified
from asr_kd.workspace.sets import all_sets
from asr_kd.workspace.work import Workspace, require

_SHARD = 50  # utterances that a process works on at a time: seconds of work, a few MB of results
_SMALL = 4 * 3600.0  # seconds of audio that one process does in ten: starting others (import torch) would take longer
_BLOCK = 400 * _SHARD  # utterances whose cuts are in memory at once, and for which one pool of processes is started

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SetFeatures:
    """One set's store; `ran`: computed by this call, or it was up to date."""

    name: str
    ran: bool
    utterances: int
    frames: int
    minutes: float
    bytes: int
    seconds: float
    left_out: list[dict[str, str]] = field(default_factory=list)  # {"utterance": id, "reason": text}

    def __str__(self) -> str:
        state = f"made in {self.seconds:.1f} s" if self.ran else "up to date"
        left_out = f", {len(self.left_out)} left out" if self.left_out else ""
        return (
            f"{self.name}: {self.utterances:,} utterances, {self.frames:,} frames, {self.minutes:.1f} minutes, "
            f"{human_bytes(self.bytes)}{left_out} ({state})"
        )


@dataclass(frozen=True)
class FeaturesResult:
    """What `asr-kd features` did."""

    sets: list[SetFeatures]

    @property
    def ran(self) -> bool:
        return any(features.ran for features in self.sets)

    def __str__(self) -> str:
        return "\n".join(map(str, self.sets))


def make_features(
    config: Config, work: Workspace, nj: int = 1, executor: str = "processes", sets: Sequence[str] | None = None
) -> FeaturesResult:
    """Makes data/frames/<set>/ of each set whose stamp does not fit any more.

    Args:
      nj: utterances of a large set are spread over this many processes; the result does not depend on it.
      executor: see `asr_kd.workspace.executor.parallel_map`.
      sets: None: all; the training set must be made before any other.

    Raises:
      UserError: cuts missing, bad audio, a speed out of range, or too little disk.
    """
    speeds = config.features.speeds
    if 1.0 not in speeds or len(set(speeds)) != len(speeds) or not all(0.5 <= s <= 2 for s in speeds):
        raise UserError(f"features.speeds: {list(speeds)} must hold 1.0, no factor twice, and lie within 0.5 to 2.")
    names = sorted(all_sets(config, work), key=lambda name: name != TRAIN) if sets is None else sets
    return FeaturesResult([_make_set(config, work, name, nj, executor) for name in names])


@dataclass(frozen=True)
class _Extraction:
    """What is the same for all cuts of a set."""

    root: Path
    sampling_rate: int
    num_mel_bins: int
    speeds: tuple[float, ...]


@dataclass(frozen=True)
class _Shard:
    extraction: _Extraction
    cuts: tuple[Any, ...]


@dataclass(frozen=True)
class _SetTask:
    """How the store of one set is filled."""

    name: str
    cuts: Path
    count: int
    extraction: _Extraction
    skip: bool  # leave bad utterances out
    nj: int
    executor: str


def _make_set(config: Config, work: Workspace, name: str, nj: int, executor: str) -> SetFeatures:
    started = time.monotonic()
    folder, cuts, stamp = work.frames(name), work.cuts(name), _stamp(config, work, name)
    check_inputs_unmodified(work, [name])
    reason = stale_reason(folder, stamp)
    if reason is None:
        discard_partial(folder)
        metadata = require(folder, work, "features")["metadata"]
        return SetFeatures(name, False, seconds=time.monotonic() - started, **metadata)
    scale = None if name == TRAIN else open_frames(work, TRAIN).scale
    num_mel_bins, speeds = config.features.num_mel_bins, _speeds(config, name)
    count, duration = _count(cuts)
    copies = sum(1 / speed for speed in speeds)
    needed = store_bytes(round(duration * copies / FRAME_SHIFT), count * len(speeds), num_mel_bins)
    log.info("features of %s: %s; %d cuts, %s of disk needed", name, reason, count, human_bytes(needed))
    check_disk(folder, needed)
    if executor == "processes" and duration * copies < _SMALL:
        nj = 1
    extraction = _Extraction(work.root.resolve(), config.corpus.sampling_rate, num_mel_bins, speeds)
    task = _SetTask(name, cuts, count, extraction, config.corpus.on_bad_utterance == "skip", nj, executor)
    metadata = {}
    with resuming_folder(folder, stamp, metadata) as temporary:
        with FrameStoreWriter(temporary, num_mel_bins, scale) as writer:
            left_out = _fill(writer, task)
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


def _speeds(config: Config, name: str) -> tuple[float, ...]:
    return config.features.speeds if name == TRAIN else (1.0,)


def _stamp(config: Config, work: Workspace, name: str) -> Stamp:
    """Of a set's store: its own cuts, and for other sets than training the training store, which they are scaled by."""
    inputs = {"cuts": require(work.cuts_stamp(name), work, "prepare")["digest"]}
    if not work.cuts(name).exists():
        raise UserError(f"{work.cuts(name)} is not there yet; make it first: {work.command('prepare')}")
    inputs["contents of cuts"] = _content_digest(work.cuts(name))
    if name != TRAIN:
        inputs["training set"] = require(work.frames(TRAIN), work, "features")["digest"]
    settings = {
        "features": dataclasses.replace(config.features, speeds=_speeds(config, name)),
        "sampling_rate": config.corpus.sampling_rate,
        "on_bad_utterance": config.corpus.on_bad_utterance,
    }
    return Stamp("features", settings, inputs)


def _fill(writer: FrameStoreWriter, task: _SetTask) -> list[dict[str, str]]:
    """Appends every cut of the file, in its order, from where a killed run was; returns what was left out."""
    state = writer.note or {"cuts": 0, "left_out": []}
    done, left_out = state["cuts"], state["left_out"]
    reader = islice(_read_cuts(task.cuts), done, None)
    with tqdm(
        total=task.count, initial=done, desc=f"features of {task.name}", unit="utt", mininterval=0.5, dynamic_ncols=True
    ) as bar:
        while block := list(islice(reader, _BLOCK)):
            # small sets are split finer, so that every process has something to do
            size = max(1, min(_SHARD, len(block) // (4 * max(1, task.nj))))
            shards = [_Shard(task.extraction, tuple(block[i : i + size])) for i in range(0, len(block), size)]
            for results in parallel_map(_extract_shard, shards, nj=task.nj, executor=task.executor):
                for result in results:
                    if result.error and not task.skip:
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
class _Extracted:
    """The copies of one utterance, as FrameStoreWriter.append takes them; or what is wrong with it."""

    id: str
    copies: list[dict[str, Any]]
    error: str = ""


def _extract_shard(shard: _Shard) -> list[_Extracted]:
    with one_thread():  # sums must not depend on how many cores there are
        return [_extract(cut, shard.extraction) for cut in shard.cuts]


def _extract(cut: Any, task: _Extraction) -> _Extracted:
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


def _samples(cut: Any, task: _Extraction) -> np.ndarray:
    """(1, n) float32; UserError names the utterance and what is wrong with its audio."""
    if not cut.has_recording:
        raise UserError(f"utterance {cut.id} has no recording; give it one or leave it out.")
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
    except Exception as error:  # lhotse's back ends raise errors of any class; for the user it is a bad file
        reason = (str(error).strip() or repr(error)).splitlines()[0][:200]
        raise UserError(f"{where} cannot be read: {reason}; is the file missing or truncated?") from None
    if samples.shape[1] < FRAME_LENGTH * task.sampling_rate:
        raise UserError(f"{where} has {samples.shape[1]} samples, less than one window of 25 ms; leave it out.")
    if not np.isfinite(samples).all():
        raise UserError(f"{where} holds NaN or infinite samples; replace it or leave it out.")
    if samples.min() == samples.max():
        raise UserError(f"{where} is digital silence; replace it or leave it out.")
    return samples.astype(np.float32, copy=False)


def _read_cuts(path: Path) -> Iterator[Any]:
    """Lazily, in the file's order."""
    from lhotse import load_manifest_lazy

    try:
        yield from load_manifest_lazy(path)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); run asr-kd prepare again.") from None


def _count(path: Path) -> tuple[int, float]:
    """Cuts, and their seconds in all."""
    count, duration = 0, 0.0
    for cut in _read_cuts(path):
        count, duration = count + 1, duration + cut.duration
    if count == 0:
        raise UserError(f"{path} has no cut; run asr-kd prepare again.")
    return count, duration


def _content_digest(path: Path) -> str:
    """SHA-256 of a .gz file's content: its own bytes may have the time of writing in them."""
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}); run asr-kd prepare again.") from None
    return digest.hexdigest()[:16]
