"""Stage 2, features: cuts -> a FrameStore per set, and altered copies (speed, vocal tract) of what is learnt from.

The training set comes first: the other sets are scaled by its variance, and their stamps depend on its stamp.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from asr_kd.corpora.audio import Audio, AudioFormat, BadAudio, Clip, read_clips
from asr_kd.corpora.cuts import cut_audio, read_cuts
from asr_kd.corpora.sources import allowed_pipe
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_LENGTH, FeaturesConfig, check_features, fbank, frame_seconds, resample
from asr_kd.frames.store import FrameStoreWriter, StoredUtterance, copy_name, store_bytes
from asr_kd.io.folders import discard_partial, resuming_folder
from asr_kd.io.formatting import human_bytes, plural
from asr_kd.io.progress import progress_bar
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.kernels.switch import one_thread
from asr_kd.stages.current import features_of, features_settings
from asr_kd.workspace.config import TRAIN, Config
from asr_kd.workspace.executor import on_cluster, parallel_map
from asr_kd.workspace.freshness import check_inputs_unmodified
from asr_kd.workspace.sets import open_frames, prepare_command, speech_sets
from asr_kd.workspace.work import Workspace, require

_SHARD = 50  # utterances that a process works on at a time: seconds of work, a few MB of results
_SEGMENTS = 8 * _SHARD  # of one recording
_SHARD_SECONDS = 3600.0  # of audio; recordings without transcripts may be an hour long each
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
            f"{self.name}: {plural(self.utterances, 'utterance')}, {self.frames:,} frames, {self.minutes:.1f} minutes, "
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
    config: Config,
    work: Workspace,
    nj: int = 1,
    sets: Sequence[str] | None = None,
    allow_pipes: bool = False,
) -> FeaturesResult:
    """Makes data/frames/<set>/ of each set whose stamp does not fit any more.

    Args:
      nj: utterances of a large set are spread over this many processes; the result does not depend on it.
      sets: None: all; the training set must be made before any other.
      allow_pipes: run the commands that cuts name for audio.

    Raises:
      UserError: cuts missing, bad audio, a speed or warp out of range, or too little disk.
    """
    _check_factors("speeds", config.features.speeds, 0.5, 2)
    _check_factors("warps", config.features.warps, 0.8, 1.25)
    check_inputs_unmodified(work)
    names = sorted(speech_sets(config, work), key=lambda name: name != TRAIN) if sets is None else sets
    return FeaturesResult([_make_set(config, work, name, nj, allow_pipes) for name in names])


def _make_set(config: Config, work: Workspace, name: str, nj: int, allow_pipes: bool) -> SetFeatures:
    started = time.monotonic()
    folder, cuts, stamp = work.frames(name), work.cuts(name), _stamp(config, work, name)
    reason = stale_reason(folder, stamp)
    if reason is None:
        discard_partial(folder)
        metadata = require(folder, work, "features")["metadata"]
        return SetFeatures(name, False, seconds=time.monotonic() - started, **metadata)
    training = None if name == TRAIN else open_frames(work, TRAIN).normalisation
    features = features_of(config, name)
    again = _again(work, name)
    durations = {}
    for cut in read_cuts(cuts, again):
        durations[cut["id"]] = cut["duration"]
        for source in cut["recording"]["sources"]:
            if source["type"] == "command":
                allowed_pipe(source["source"], allow_pipes, f"{cuts}: utterance {cut['id']}")
    if not durations:
        raise UserError(f"{cuts} has no cut; {again}.")
    _check_names(durations, features.copies)
    seconds = sum(durations.values()) * sum(1 / speed for speed, _ in features.copies)
    shift = frame_seconds(config.corpus.sampling_rate)
    needed = store_bytes(round(seconds / shift), len(durations) * len(features.copies), features)
    log.info("features of %s: %s; %d cuts, %s of disk needed", name, reason, len(durations), human_bytes(needed))
    check_disk(folder, needed)
    if seconds < _SMALL and not on_cluster():
        nj = 1
    extractor = _Extractor(work.root.resolve(), config.corpus.audio_format, features)
    metadata = {}
    with resuming_folder(folder, stamp, metadata) as temporary:
        with FrameStoreWriter(temporary, features.num_mel_bins, training, features) as writer:
            state = writer.note or {"cuts": 0, "left_out": []}  # a killed run's
            results = _extract(extractor, islice(read_cuts(cuts, again), state["cuts"], None), nj)
            with progress_bar(f"features of {name}", len(durations), "utt", initial=state["cuts"]) as bar:
                _fill(writer, state, results, bar, skip=config.corpus.on_bad_utterance == "skip")
        metadata |= {
            "utterances": writer.num_utterances,
            "frames": writer.num_frames,
            "minutes": round(writer.num_frames * shift / 60, 3),
            "bytes": sum(file.stat().st_size for file in temporary.iterdir()),
            "left_out": state["left_out"],
        }
    for row in state["left_out"]:
        log.warning("left out: %s", row["reason"])
    return SetFeatures(name, True, seconds=time.monotonic() - started, **metadata)


def shard_seconds(config: Config, work: Workspace, utterances: int) -> float:
    """How long one core takes for each second of some training recordings, all copies included.

    Raises:
      UserError: there are no cuts yet, or a recording of them cannot be used.
    """
    require(work.cuts_stamp(TRAIN), work, "prepare")
    extractor = _Extractor(work.root.resolve(), config.corpus.audio_format, features_of(config, TRAIN))
    cuts = list(read_cuts(work.cuts(TRAIN), _again(work, TRAIN)))
    cuts = cuts[:: max(1, len(cuts) // utterances)]
    extractor(cuts[:1])  # loads what it needs
    started = time.perf_counter()
    for extracted in extractor(cuts):
        if extracted.error:
            raise UserError(extracted.error)
    return (time.perf_counter() - started) / sum(cut["duration"] for cut in cuts)


def _check_factors(key: str, factors: Sequence[float], least: float, most: float) -> None:
    if 1.0 not in factors or len(set(factors)) != len(factors) or not all(least <= f <= most for f in factors):
        raise UserError(
            f"features.{key}: {list(factors)} must hold 1.0, no factor twice, and lie within {least:g} to {most:g}."
        )


def _check_names(utterances: Collection[str], copies: Sequence[tuple[float, float]]) -> None:
    for utterance, (speed, warp) in itertools.product(utterances, copies):
        copy = copy_name(utterance, speed, warp)
        if copy != utterance and copy in utterances:
            altered = [f"speed {speed:g}"] if speed != 1.0 else []
            altered += [f"warp {warp:g}"] if warp != 1.0 else []
            key, factor = ("speeds", speed) if speed != 1.0 else ("warps", warp)
            raise UserError(
                f"{copy} is an utterance, and the name of the copy of {utterance} at {' and '.join(altered)}; rename "
                f"one of them in the corpus, or take {factor:g} out of features.{key}."
            )


def _stamp(config: Config, work: Workspace, name: str) -> Stamp:
    """Returns the stamp of a set's feature store.

    It depends on the set's own cuts and, for other sets than training, on the training store, which they are scaled by.
    """
    command = prepare_command(work, name)
    inputs = {"cuts": require(work.cuts_stamp(name), work, command)["digest"]}
    if not work.cuts(name).exists():
        raise UserError(f"{work.cuts(name)} is not there yet; make it first: {work.command(command)}")
    inputs["contents of cuts"] = _content_digest(work.cuts(name), _again(work, name))
    if name != TRAIN:
        inputs["training set"] = require(work.frames(TRAIN), work, "features")["digest"]
    return Stamp("features", features_settings(config, name), inputs)


def _extract(extractor: _Extractor, cuts: Iterator[dict[str, Any]], nj: int) -> Iterator[list[_Extracted]]:
    """What the extractor makes of the cuts, a few at a time, in their order."""
    while block := list(islice(cuts, _BLOCK)):
        # small sets are split finer, so that every process has something to do
        size = max(1, min(_SHARD, len(block) // (4 * max(1, nj))))
        yield from parallel_map(extractor, list(_shards(block, size)), nj=nj)


def _shards(cuts: Sequence[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Cuts that one process works on at once: those of one recording, which may be long, as far as memory allows."""
    shard: list[dict[str, Any]] = []
    seconds = 0.0
    for cut in cuts:
        same = shard and shard[-1]["recording"]["sources"] == cut["recording"]["sources"]
        if len(shard) >= (_SEGMENTS if same else size) or (shard and seconds + cut["duration"] > _SHARD_SECONDS):
            yield shard
            shard, seconds = [], 0.0
        shard.append(cut)
        seconds += cut["duration"]
    yield shard


def _fill(
    writer: FrameStoreWriter, state: dict[str, Any], results: Iterator[list[_Extracted]], bar: tqdm, *, skip: bool
) -> None:
    """Appends what comes; `state` counts the cuts and lists what was left out."""
    for shard in results:
        for result in shard:
            if result.error and not skip:
                raise UserError(f"{result.error} Or set corpus.on_bad_utterance: skip, which leaves it out.")
            if result.error:
                state["left_out"].append({"utterance": result.id, "reason": result.error})
            for copy, features in result.copies:
                writer.append(copy, features)
        state["cuts"] += len(shard)
        writer.commit(state)
        bar.update(len(shard))


@dataclass(frozen=True)
class _Extracted:
    """The copies of one utterance with their (T, D) features; or what is wrong with it."""

    id: str
    copies: list[tuple[StoredUtterance, np.ndarray]]
    error: str = ""


@dataclass(frozen=True)
class _Extractor:
    """Computes features from cuts as plain data (`read_cuts`); runs in helper processes."""

    root: Path
    audio_format: AudioFormat
    features: FeaturesConfig

    def __call__(self, cuts: Sequence[dict[str, Any]]) -> list[_Extracted]:
        results: dict[int, _Extracted] = {}
        audio: dict[int, Audio] = {}
        for number, cut in enumerate(cuts):
            try:
                audio[number] = cut_audio(cut, self.root, self.audio_format.channel)
            except BadAudio as error:
                results[number] = _Extracted(cut["id"], [], f"utterance {cut['id']}: {error}.")
        numbers = list(audio)
        with one_thread():  # sums must not depend on how many cores there are
            for index, clip in read_clips(list(audio.values()), self.audio_format):
                results[numbers[index]] = self._extract(cuts[numbers[index]], clip)
        return [results[number] for number in range(len(cuts))]

    def _extract(self, cut: dict[str, Any], clip: Clip | BadAudio) -> _Extracted:
        utterance, supervisions = cut["id"], cut["supervisions"]
        copies: list[tuple[StoredUtterance, np.ndarray]] = []
        try:
            samples = self._samples(cut, clip)[None]
            text = " ".join(supervision.get("text") or "" for supervision in supervisions).strip()
            speaker = next((s["speaker"] for s in supervisions if s.get("speaker")), None)
            custom = [supervision.get("custom") or {} for supervision in supervisions]
            reference = next((entries["reference"] for entries in custom if "reference" in entries), None)
            if self.features.mean == "utterance":
                speaker = None
            rate, bins = self.audio_format.sampling_rate, self.features.num_mel_bins
            for speed in self.features.speeds:
                altered = samples if speed == 1.0 else resample(samples, rate, speed)
                for warp in self.features.warps:
                    name = copy_name(utterance, speed, warp)
                    features = fbank(altered, rate, bins, warp).astype(np.float16)
                    check_features(name, features)
                    group = copy_name(f"{speaker}_sp{speed:g}", 1.0, warp) if speaker else name
                    duration = altered.shape[1] / rate
                    copies.append((StoredUtterance(name, group, text, duration, speed, warp, reference), features))
        except UserError as error:
            return _Extracted(utterance, [], str(error))
        return _Extracted(utterance, copies)

    def _samples(self, cut: dict[str, Any], clip: Clip | BadAudio) -> np.ndarray:
        """(n,) float32; UserError names the utterance and what is wrong with its audio."""
        if isinstance(clip, BadAudio):
            raise UserError(f"utterance {cut['id']}: {clip}.")
        expected = cut["recording"]["num_samples"]
        if cut["duration"] == cut["recording"]["duration"] and clip.extent.num_samples != expected:
            raise UserError(
                f"utterance {cut['id']} has {clip.extent.num_samples} samples now, and had {expected} when it was "
                "prepared; run asr-kd prepare again."
            )
        if clip.extent.num_samples < FRAME_LENGTH * clip.extent.rate:
            raise UserError(
                f"utterance {cut['id']} has {clip.extent.num_samples} samples, less than one window of 25 ms; leave it "
                "out."
            )
        return clip.resampled()


def _again(work: Workspace, name: str) -> str:
    """What to do about a damaged list of cuts."""
    return f"delete it, then run {work.command(prepare_command(work, name))}"


def _content_digest(path: Path, fix: str) -> str:
    """SHA-256 of a .gz file's content: its own bytes may have the time of writing in them."""
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}); {fix}.") from None
    return digest.hexdigest()[:16]
