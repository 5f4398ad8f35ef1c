"""A finished model, with all that recognising speech with it needs.

Shapes:  n samples, T frames of an utterance, D mel bins, C senones.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as settings_dataclass

from asr_kd.acoustic.model import FrameModel
from asr_kd.alignment.context_graph import compile_in_context
from asr_kd.alignment.topology import SIL, path_segments
from asr_kd.alignment.tree import Tree
from asr_kd.alignment.viterbi import viterbi
from asr_kd.corpora.audio import Audio, AudioFormat, BadAudio, read_clips
from asr_kd.decoding.confidence import word_confidences
from asr_kd.decoding.decoder import Hypothesis, scaled_likelihoods
from asr_kd.decoding.graph import Graph
from asr_kd.decoding.kaldi_decoder import KaldiDecoder
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_LENGTH, FRAME_SHIFT, fbank
from asr_kd.frames.normalisation import Normalisation
from asr_kd.lang.lexicon import Lang
from asr_kd.runtime.pieces import pieces
from asr_kd.runtime.transcript import Transcript, Word, joined
from asr_kd.settings import STRICT, Count, NotNegative, Positive

if TYPE_CHECKING:
    from asr_kd.runtime.stream import Stream, StreamSettings

log = logging.getLogger(__name__)

_CONFIDENCE_BEAM = 10.0  # on a large graph: half the time of 11, and on LibriSpeech as good at telling errors


@settings_dataclass(frozen=True, config=STRICT)
class RecogniserSettings:
    """What is not in a file of its own.

    Attributes:
      acoustic_scale, word_penalty: as dev chose them.
      running_seconds: memory of the running mean of a stream.
    """

    sampling_rate: Count
    num_mel_bins: Count
    acoustic_scale: NotNegative
    word_penalty: float
    running_seconds: Positive
    decoding: DecodingConfig


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


class Recogniser:
    """Recognises recordings and streams, on the CPU, by kaldi-decoder at the scales that dev chose.

    `asr_kd.load` opens one that `asr-kd export --format recogniser` has written.

    Raises:
      UserError: the parts do not fit together.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts, self.settings = parts, parts.settings
        senones = {parts.model.num_senones, parts.tree.num_senones, parts.graph.num_senones}
        if len(senones) > 1:
            raise UserError(
                f"the model has {parts.model.num_senones} senones, the tree {parts.tree.num_senones} and the graph "
                f"{parts.graph.num_senones}: they are not of one system; export it again."
            )
        if parts.model.num_dims != self.settings.num_mel_bins:
            raise UserError(
                f"the model takes {parts.model.num_dims} mel bins, and the settings say {self.settings.num_mel_bins}; "
                "export it again."
            )
        self._log_priors = parts.tree.log_priors()
        self._decoder = KaldiDecoder(
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
    def decoder(self) -> KaldiDecoder:
        return self._decoder

    @cached_property
    def silences(self) -> NDArray[np.bool_]:
        """(C,) which senones are those of silence."""
        silent = np.zeros(self.parts.tree.num_senones, bool)
        silent[self.parts.tree.tables[SIL].ravel()] = True
        return silent

    def transcribe(
        self, audio: str | Path | NDArray[np.float32], *, channel: int | None = None, confidence: bool = True
    ) -> Transcript:
        """The words of a whole recording, whose own mean is subtracted.

        Args:
          audio: a file that libsndfile reads, at any rate; or (n,) float32 samples in [-1, 1] at `sampling_rate`.
          channel: of a file with several, from 0.
          confidence: also say how sure the search is of each word, which takes longer than the words.

        Raises:
          BadAudio: the recording cannot be used; what is wrong with it.

        >>> def times(folder, path):
        ...     import asr_kd
        ...     for word in asr_kd.load(folder).transcribe(path).words:
        ...         print(f"{word.start:.2f} {word.word} {word.confidence:.2f}")
        """
        samples = audio if isinstance(audio, np.ndarray) else self.read(Path(audio), channel)
        return self.transcribe_group([samples], confidence=confidence)[0]

    def transcribe_group(
        self, recordings: Sequence[NDArray[np.float32]], *, confidence: bool = True
    ) -> list[Transcript]:
        """The words of recordings of one speaker, whose common mean is subtracted.

        Args:
          recordings: (n,) samples of each.
          confidence: see `transcribe`.

        Raises:
          BadAudio: one has other samples than finite ones, or less than 25 ms of them.
        """
        for samples in recordings:
            self._check(samples)
        cut = [list(pieces(samples, self.sampling_rate)) for samples in recordings]
        features = [
            self.features(samples[piece.start : piece.stop])
            for samples, of_recording in zip(recordings, cut, strict=True)
            for piece in of_recording
        ]
        normalised = iter(self.parts.normalisation.of_new_group(features))

        def recognised(piece: range) -> Transcript:
            loglikes = self.loglikes(next(normalised))
            (hypothesis,) = self._decoder.decode([loglikes])
            return self.timed(hypothesis, loglikes, piece.start / self.sampling_rate, confidence=confidence)

        return [joined([recognised(piece) for piece in of_recording]) for of_recording in cut]

    def stream(self, settings: StreamSettings | None = None) -> Stream:
        """A stream of speech: feed it samples, and it answers with words; see `Stream`."""
        from asr_kd.runtime.stream import Stream, StreamSettings

        return Stream(self, settings or StreamSettings())

    def read(self, path: Path, channel: int | None = None) -> NDArray[np.float32]:
        """(n,) float32 samples of a file at `sampling_rate`; of another rate they are resampled, which is logged.

        Raises:
          BadAudio: the recording cannot be used; what is wrong with it.
        """
        audio = Audio(Path("/dev/stdin") if path == Path("-") else path, channel=channel)
        ((_, clip),) = read_clips([audio], AudioFormat(self.sampling_rate, resample=True, channel_key="--channel"))
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
        return fbank(samples[None], self.sampling_rate, self.settings.num_mel_bins).astype(np.float16)

    def loglikes(self, normalised: NDArray[np.float32]) -> NDArray[np.float32]:
        """(T, D) -> (T, C) log-likelihoods up to a constant per frame, not scaled yet."""
        return self.without_priors(self.parts.model.log_posteriors(torch.from_numpy(normalised)))

    def without_priors(self, log_posteriors: torch.Tensor) -> NDArray[np.float32]:
        """(T, C) log posteriors -> log-likelihoods."""
        return scaled_likelihoods(log_posteriors.cpu().numpy(), self._log_priors, self.settings.decoding.prior_scale)

    def timed(
        self, hypothesis: Hypothesis, loglikes: NDArray[np.float32], start: float, *, confidence: bool
    ) -> Transcript:
        """When each word of a hypothesis was said, and how sure the search is of it.

        Args:
          loglikes: (T, C) of the stretch that it is of.
          start: seconds of this stretch from the recording's beginning.
        """
        end, words = start + len(loglikes) * FRAME_SHIFT, hypothesis.words
        if not words:
            return Transcript((), start, end, lost=((start, end),) if hypothesis.failed else ())
        graph = compile_in_context(words, self.parts.lang, self.parts.tree)
        states, _ = viterbi(loglikes, graph)
        spans = path_segments(graph, states).words()
        lattice = self._decoder.lattice(loglikes, _CONFIDENCE_BEAM) if confidence else None
        sure: Sequence[float | None] = [None] * len(words)
        if confidence:
            sure = (
                [0.0] * len(words) if lattice is None else word_confidences(lattice, self.parts.graph, words).tolist()
            )
        timed = (
            Word(words[number], start + first * FRAME_SHIFT, start + last * FRAME_SHIFT, sure[number])
            for number, first, last in spans
        )
        return Transcript(tuple(timed), start, end)
