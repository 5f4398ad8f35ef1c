"""A finished model, with all that recognising speech with it needs.

Shapes:  n samples, T frames of an utterance, D mel bins, C senones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as settings_dataclass

from asr_kd.acoustic.model import FrameModel
from asr_kd.alignment.context_graph import compile_in_context
from asr_kd.alignment.topology import NUM_HMM_STATES, SIL, path_segments
from asr_kd.alignment.tree import Tree
from asr_kd.alignment.viterbi import viterbi
from asr_kd.corpora.audio import Audio, AudioFormat, BadAudio, read_clips
from asr_kd.decoding.confidence import word_confidences
from asr_kd.decoding.decoder import Hypothesis, scaled_likelihoods
from asr_kd.decoding.fst_io import Lattice
from asr_kd.decoding.graph import Graph
from asr_kd.decoding.native_decoder import NativeDecoder
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.errors import UserError, some_of
from asr_kd.frames.features import FRAME_LENGTH, fbank, frame_seconds, num_frames
from asr_kd.frames.normalisation import Normalisation
from asr_kd.lang.lexicon import Lang
from asr_kd.runtime.pieces import pieces
from asr_kd.runtime.stream import Stream, StreamSettings
from asr_kd.runtime.transcript import Transcript, Word, joined
from asr_kd.settings import STRICT, Count, Natural, NotNegative, Positive

log = logging.getLogger(__name__)


@settings_dataclass(frozen=True, config=STRICT)
class RecogniserSettings:
    """What is not in a file of its own.

    Attributes:
      acoustic_scale, word_penalty: as dev chose them.
      running_seconds: memory of the running mean of a stream.
      channel: of recordings with several, from 0; None: it must be said with each.
    """

    sampling_rate: Count
    num_mel_bins: Count
    acoustic_scale: NotNegative
    word_penalty: float
    running_seconds: Positive
    decoding: DecodingConfig
    channel: Natural | None = None


@dataclass(frozen=True)
class Parts:
    """What a recogniser is made of.

    Attributes:
      tree: its senones are those of the model and of the graph.
      lang: the pronunciations of all words of the graph.
      normalisation: see `Normalisation.for_new_speech`.
    """

    model: FrameModel
    tree: Tree
    graph: Graph
    lang: Lang
    normalisation: Normalisation
    settings: RecogniserSettings

    def check(self) -> None:
        """Raises UserError where they are not of one system: one sentence without its end."""
        senones = [self.model.num_senones, self.tree.num_senones, self.graph.num_senones]
        if len(set(senones)) > 1:
            raise UserError("the model has {} senones, the tree {} and the graph {}".format(*senones))
        if self.model.num_dims != self.settings.num_mel_bins:
            raise UserError(
                f"the model takes {self.model.num_dims} mel bins, and the settings say {self.settings.num_mel_bins}"
            )
        if self.tree.phones != self.lang.phones:
            raise UserError("tree and lexicon have other phones")
        if missing := [word for word in self.graph.words if word not in self.lang.pronunciations]:
            raise UserError(f"the lexicon has no pronunciation of {some_of(missing)}, which the graph has")


class Recogniser:
    """Recognises recordings and streams, on the CPU, at the scales that dev chose.

    `asr_kd.load` opens one that `asr-kd export --format recogniser` has written.

    Raises:
      UserError: the parts do not fit together.
    """

    def __init__(self, parts: Parts) -> None:
        parts.check()
        self.parts, self.settings = parts, parts.settings
        self._log_priors = parts.tree.log_priors()
        self.decoder = NativeDecoder(
            parts.graph,
            self.settings.decoding,
            acoustic_scale=self.settings.acoustic_scale,
            word_penalty=self.settings.word_penalty,
        )

    @property
    def sampling_rate(self) -> int:
        """Hz of the samples that it takes."""
        return self.settings.sampling_rate

    @property
    def frame_seconds(self) -> float:
        """The seconds from one frame to the next."""
        return frame_seconds(self.sampling_rate)

    @cached_property
    def silences(self) -> NDArray[np.bool_]:
        """(C,) which senones are those of silence."""
        silent = np.zeros(self.parts.tree.num_senones, bool)
        silent[self.parts.tree.tables[SIL].ravel()] = True
        return silent

    def transcribe(
        self, audio: str | Path | NDArray[np.float32], *, channel: int | None = None, confidence: bool = False
    ) -> Transcript:
        """The words of a whole recording, whose own mean is subtracted.

        Args:
          audio: a file that libsndfile reads, at any rate; or (n,) float32 samples in [-1, 1] at `sampling_rate`.
          channel: of a file with several, from 0.
          confidence: also say how sure the search is of each word, which takes about as long again as the words.

        Raises:
          BadAudio: the recording cannot be used; what is wrong with it.
          ValueError: samples are not float32, or have two axes.

        >>> def times(folder, path):
        ...     import asr_kd
        ...     for word in asr_kd.load(folder).transcribe(path).words:
        ...         print(f"{word.start:.2f} {word.word}")
        """
        samples = audio if isinstance(audio, np.ndarray) else self.read(Path(audio), channel)
        return self.transcribe_group([samples], confidence=confidence)[0]

    def transcribe_group(
        self, recordings: Iterable[NDArray[np.float32]], *, confidence: bool = False
    ) -> list[Transcript]:
        """The words of recordings of one speaker, whose common mean is subtracted.

        Args:
          recordings: (n,) samples of each; in memory are those of one, and the features of all.
          confidence: see `transcribe`.

        Raises:
          BadAudio, ValueError: as `transcribe`.
        """
        cut: list[list[range]] = []
        features: list[NDArray[np.float16]] = []
        for samples in recordings:
            of_recording, features_of_it = self._cut(samples)
            cut.append(of_recording)
            features.append(features_of_it)
        if not features:
            return []
        normalisation = self.parts.normalisation.of_new_group(features)
        return [
            joined(list(self._of_recording(normalisation, of_recording, features_of_it, confidence)))
            for of_recording, features_of_it in zip(cut, features, strict=True)
        ]

    def transcribe_pieces(self, samples: NDArray[np.float32], *, confidence: bool = False) -> Iterator[Transcript]:
        """Yields the words of each piece of a recording, of up to 30 s, where `transcribe` returns them all at once.

        The caller can do other things between the pieces.
        """
        cut, features = self._cut(samples)
        yield from self._of_recording(self.parts.normalisation.of_new_group([features]), cut, features, confidence)

    def _cut(self, samples: NDArray[np.float32]) -> tuple[list[range], NDArray[np.float16]]:
        """The pieces of a recording, and (T, D) their features, one after the other; raises as `transcribe`."""
        self._check(samples)
        cut = list(pieces(samples, self.sampling_rate))
        return cut, np.concatenate([self.features(samples[piece.start : piece.stop]) for piece in cut])

    def _of_recording(
        self, normalisation: Normalisation, cut: Sequence[range], features: NDArray[np.float16], confidence: bool
    ) -> Iterator[Transcript]:
        """Yields the transcript of each piece of a recording.

        The features are those of all pieces, one after the other: a running mean runs through them.
        """
        normalised = features.astype(np.float32)
        normalisation.apply(normalised, 0)
        first = 0
        for piece in cut:
            end = first + num_frames(len(piece), self.sampling_rate)
            loglikes = self.loglikes(normalised[first:end])
            lattice = None
            if confidence:
                hypothesis, lattice = self.decoder.decode_with_lattice(loglikes)
            else:
                (hypothesis,) = self.decoder.decode([loglikes])
            yield self.timed(hypothesis, loglikes, piece.start / self.sampling_rate, lattice)
            first = end

    def stream(self, settings: StreamSettings | None = None) -> Stream:
        """A stream of speech: feed it samples, and it answers with words; see `Stream`."""
        return Stream(self, settings or StreamSettings())

    def read(self, path: Path, channel: int | None = None) -> NDArray[np.float32]:
        """(n,) float32 samples of a file at `sampling_rate`; of another rate they are resampled, which is logged.

        Raises:
          BadAudio: the recording cannot be used; what is wrong with it.
        """
        channel = self.settings.channel if channel is None else channel
        form = AudioFormat(self.sampling_rate, resample=True, channel=channel, channel_key="--channel", silent=True)
        ((_, clip),) = read_clips([Audio(Path("/dev/stdin") if path == Path("-") else path)], form)
        if isinstance(clip, BadAudio):
            raise clip
        if (rate := clip.extent.recording.rate) != self.sampling_rate:
            log.warning("%s has %d Hz and is resampled to %d", path, rate, self.sampling_rate)
        samples = clip.resampled()
        if len(samples) < FRAME_LENGTH * self.sampling_rate:
            raise BadAudio(f"{path} lasts less than 25 ms; there is nothing to recognise in it")
        return samples

    def _check(self, samples: NDArray[np.float32]) -> None:
        if samples.ndim != 1 or samples.dtype != np.float32:
            raise ValueError(f"samples are {samples.dtype} {samples.shape}, not float32 (n,)")
        if len(samples) < FRAME_LENGTH * self.sampling_rate:
            raise BadAudio("the recording lasts less than 25 ms; there is nothing to recognise in it")
        if not np.isfinite(samples).all():
            raise BadAudio("the recording has samples that are not finite; record it again")

    def features(self, samples: NDArray[np.float32]) -> NDArray[np.float16]:
        """(n,) -> (T, D) log-mel energies, as in a FrameStore."""
        whole = np.ascontiguousarray(samples)[None]
        return fbank(whole, self.sampling_rate, self.settings.num_mel_bins).astype(np.float16)

    def loglikes(self, normalised: NDArray[np.float32]) -> NDArray[np.float32]:
        """(T, D) -> (T, C) log-likelihoods up to a constant per frame, not scaled yet."""
        return self.without_priors(self.parts.model.log_posteriors(torch.from_numpy(normalised)))

    def without_priors(self, log_posteriors: torch.Tensor) -> NDArray[np.float32]:
        """(T, C) log posteriors -> log-likelihoods."""
        return scaled_likelihoods(log_posteriors.cpu().numpy(), self._log_priors, self.settings.decoding.prior_scale)

    def timed(
        self, hypothesis: Hypothesis, loglikes: NDArray[np.float32], start: float, lattice: Lattice | None = None
    ) -> Transcript:
        """Returns when each word of a hypothesis was said, and how sure the search is of it.

        Args:
          loglikes: (T, C) of the stretch that it is of.
          start: seconds of this stretch from the recording's beginning.
          lattice: of the search that gave the hypothesis; None: the words get no confidence.
        """
        seconds, words = self.frame_seconds, hypothesis.words
        end = start + len(loglikes) * seconds
        if not words:
            lost = hypothesis.failed and len(loglikes) >= NUM_HMM_STATES  # no path is shorter
            return Transcript((), start, end, lost=((start, end),) if lost else ())
        graph = compile_in_context(words, self.parts.lang, self.parts.tree)
        states, _ = viterbi(loglikes, graph)
        confidences: Sequence[float | None] = [None] * len(words)
        if lattice is not None:
            confidences = word_confidences(lattice, self.parts.graph, words).tolist()
        timed = (
            Word(words[number], start + first * seconds, start + last * seconds, confidences[number])
            for number, first, last in path_segments(graph, states).words()
        )
        return Transcript(tuple(timed), start, end)
