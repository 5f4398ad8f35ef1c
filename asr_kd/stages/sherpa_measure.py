"""What sherpa-onnx answers with a package, beside our own search with kaldi-decoder, from the same recordings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.corpora.audio import Audio, AudioFormat, BadAudio, read_clips
from asr_kd.corpora.cuts import cut_audio, read_cuts
from asr_kd.corpora.sources import allowed_pipe
from asr_kd.errors import UserError, some_of
from asr_kd.export.sherpa_run import SherpaRecogniser, is_of_streams
from asr_kd.frames.features import FRAME_SHIFT, fbank
from asr_kd.frames.normalisation import Normalisation
from asr_kd.frames.store import FrameStore
from asr_kd.kernels.switch import one_thread
from asr_kd.stages.decode_worker import Loaded, SearchSettings, TrainedModel, loglikes_of
from asr_kd.workspace.cached_map import cached_groups, json_codec
from asr_kd.workspace.sets import prepare_command
from asr_kd.workspace.work import Workspace

OWN, OWN_RUNNING = "our own search", "our own search, running mean"  # in place of a model's name
_SECONDS = 120.0  # of speech in a shard


@dataclass(frozen=True)
class Recording:
    """An utterance of a set."""

    name: str
    audio: Audio
    seconds: float


@dataclass(frozen=True)
class Package:
    """A written package, and what it was made from.

    Attributes:
      join: stands between the words of one number in words.txt.
      sign: what the rule for `text` deletes; "": there is none, since words are not made of letters.
      chunk, ahead: frames that a stream takes at once, and that it looks ahead.
      search: back end, beams and scales of our own search. model: its model.
      normalisation: see `Normalisation.for_new_speech`; a process gets it with each of its shards.
      running_seconds: memory of the running mean of streams.
    """

    folder: Path
    audio_format: AudioFormat
    num_mel_bins: int
    join: str
    sign: str
    chunk: int
    ahead: int
    model: TrainedModel
    search: SearchSettings
    normalisation: Normalisation
    running_seconds: float

    def samples(self, recordings: Sequence[Recording]) -> list[np.ndarray]:
        """(n,) float32 of each; UserError names a recording that cannot be read any more."""
        samples: dict[int, np.ndarray] = {}
        for number, clip in read_clips([recording.audio for recording in recordings], self.audio_format):
            if isinstance(clip, BadAudio):
                raise UserError(f"utterance {recordings[number].name}: {clip}; a package is measured on recordings.")
            samples[number] = clip.resampled()
        return [samples[number] for number in range(len(recordings))]

    @property
    def tail(self) -> float:
        """Seconds of silence after which all frames of a stream were heard."""
        return max(0.5, (self.chunk + self.ahead) * FRAME_SHIFT)

    def recogniser(self, model: str) -> SherpaRecogniser:
        """One of the package's models."""
        return SherpaRecogniser(
            self.folder,
            model,
            sampling_rate=self.audio_format.sampling_rate,
            num_mel_bins=self.num_mel_bins,
            max_active=self.search.decoding.max_active,
            tail=self.tail,
        )

    def names(self) -> dict[int, list[str]]:
        """The words of each number."""
        lines = (self.folder / "words.txt").read_text(encoding="utf-8").splitlines()
        pairs = (line.rsplit(maxsplit=1) for line in lines)
        return {int(number): name.split(self.join) if self.join else [name] for name, number in pairs}


@dataclass(frozen=True)
class Answer:
    """The words of each utterance of a set, and the seconds that they took."""

    words: list[list[str]]
    seconds: float


@dataclass(frozen=True)
class _Shard:
    package: Package
    model: str
    recordings: Sequence[Recording]


class _Worker:
    """What a process has loaded: the last model that was asked for."""

    def __init__(self) -> None:
        self._model: str | None = None
        self._recognise: Callable[[np.ndarray], list[str]] | None = None

    def answer(self, shard: _Shard) -> dict[str, Any]:
        package = shard.package
        if self._recognise is None or shard.model != self._model:
            self._recognise = None  # the memory of its graph is free before the next one is loaded
            self._recognise = _recognise_with(package, shard.model)
            self._model = shard.model
        samples = package.samples(shard.recordings)
        with one_thread():
            started = time.perf_counter()
            words = [self._recognise(each) for each in samples]
            return {"words": words, "seconds": time.perf_counter() - started}


def own_search_of(model: str) -> str:
    """Our own search with the mean that one of the package's models subtracts."""
    return OWN_RUNNING if is_of_streams(model) else OWN


def _recognise_with(package: Package, model: str) -> Callable[[np.ndarray], list[str]]:
    """(n,) samples -> words, by one of the package's models or our own search."""
    if model == OWN:
        return _own_search(package, package.normalisation)
    if model == OWN_RUNNING:
        running = package.normalisation.running_mean(package.running_seconds)
        return _own_search(package, replace(package.normalisation, scales=None, running=running))
    return _sherpa(package, model)


def _sherpa(package: Package, model: str) -> Callable[[np.ndarray], list[str]]:
    recogniser, names = package.recogniser(model), package.names()
    return lambda samples: [word for number in recogniser.recognise(samples).words for word in names[number]]


def _own_search(package: Package, normalisation: Normalisation) -> Callable[[np.ndarray], list[str]]:
    """Returns our own search with kaldi-decoder, as a function from (n,) samples to words."""
    loaded, search = Loaded(), replace(package.search, backend="kaldi")
    rate, bins = package.audio_format.sampling_rate, package.num_mel_bins
    decoder = loaded.decoder(package.model.graph, search)
    loaded.log_priors(package.model)  # and the model: neither is timed
    loaded.model(package.model).precision = "float32"  # as sherpa-onnx computes: bfloat16 rounds some words away
    fbank(np.zeros((1, rate), np.float32), rate, bins)

    def recognise(samples: np.ndarray) -> list[str]:
        normalised = normalisation.of_unknown_speaker(fbank(samples[None], rate, bins))
        loglikes = loglikes_of(loaded, package.model, normalised, search.decoding.prior_scale)
        return list(decoder.decode([loglikes])[0].words)

    return recognise


def recordings_of(
    work: Workspace, store: FrameStore, name: str, audio_format: AudioFormat, *, allow_pipes: bool
) -> list[Recording]:
    """The utterances of a set's store, in its order.

    Args:
      allow_pipes: run the commands that cuts name for audio.

    Raises:
      UserError: a cut is damaged, or needs a command that is not allowed.
    """
    path, fix = work.cuts(name), f"prepare again: {work.command(prepare_command(work, name))}"
    expected, root, recordings = set(store.ids), work.root.resolve(), {}
    for cut in read_cuts(path, fix):
        if cut["id"] not in expected:  # features left it out
            continue
        for source in cut["recording"]["sources"]:
            if source["type"] == "command":
                allowed_pipe(source["source"], allow_pipes, f"{path}: utterance {cut['id']}")
        try:
            audio = cut_audio(cut, root, audio_format.channel)
        except BadAudio as error:
            raise UserError(f"utterance {cut['id']}: {error}; {fix}.") from None
        recordings[cut["id"]] = Recording(cut["id"], audio, float(cut["duration"]))
    if missing := [utterance for utterance in store.ids if utterance not in recordings]:
        raise UserError(f"{path} lacks {some_of(missing)}, which the features have; {fix}.")
    return [recordings[utterance] for utterance in store.ids]


def measure(
    package: Package, sets: dict[str, list[Recording]], models: Sequence[str], cache: Path, nj: int
) -> Iterator[dict[str, Answer]]:
    """Yields, for each model in turn, set -> its answer.

    Args:
      models: names of files in the package, OWN or OWN_RUNNING.
      cache: an existing folder for what a killed run has done.
    """
    groups = []
    for number, model in enumerate(models):
        for name, recordings in sets.items():
            folder = cache / f"{number}-{name}"
            folder.mkdir(exist_ok=True)
            groups.append((folder, [_Shard(package, model, part) for part in _portions(recordings)]))
    codec = json_codec(lambda result: result, lambda data: dict(data))
    results = cached_groups(partial(_Worker.answer, _Worker()), groups, "shard", codec, nj=nj, progress="measuring")
    for _ in models:
        answers = {}
        for name in sets:
            parts = list(next(results))
            words = [words for part in parts for words in part["words"]]
            answers[name] = Answer(words, sum(part["seconds"] for part in parts))
        yield answers
    for _ in results:  # lets the progress bar and the processes end
        pass


def _portions(recordings: Sequence[Recording]) -> Iterator[list[Recording]]:
    """Runs of about _SECONDS."""
    portion: list[Recording] = []
    for recording in recordings:
        portion.append(recording)
        if sum(each.seconds for each in portion) >= _SECONDS:
            yield portion
            portion = []
    if portion:
        yield portion
