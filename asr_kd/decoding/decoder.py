"""What both back ends have in common: the hypothesis, the interface, how one is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from asr_kd.decoding.graph import Graph
from asr_kd.errors import UserError
from asr_kd.workspace.config import DecodingConfig

BACKENDS = ("k2", "kaldi")
Grid = tuple[tuple[tuple[str, ...], ...], ...]  # words of one utterance at [acoustic scale][word penalty]


@dataclass(frozen=True)
class Hypothesis:
    """The best path of one utterance."""

    words: tuple[str, ...]
    score: float  # graph + scale * acoustic + penalty * words, natural log; -inf where no path was found
    retried: bool = False  # nothing was found within the ordinary beam

    @property
    def failed(self) -> bool:
        return self.score == -np.inf


@dataclass(frozen=True)
class NBest:
    """Different word sequences of one utterance that a lattice holds, the likeliest first; none where it failed."""

    words: tuple[tuple[str, ...], ...]
    acoustic: np.ndarray  # (n,) float64: sum of log-likelihoods along each one's best path, unscaled
    graph: np.ndarray  # (n,) float64: log probability of pronunciations, silences and language model along it


class Decoder(Protocol):
    """A search over one graph at fixed scales. Log-likelihoods are (T, C) float32 arrays, natural log."""

    def decode(self, loglikes: Sequence[np.ndarray]) -> list[Hypothesis]:
        """The best path of each utterance; one without any is tried again with wider beams, alone."""

    def decode_grid(
        self, loglikes: Sequence[np.ndarray], scales: Sequence[float], penalties: Sequence[float]
    ) -> list[Grid]:
        """What each utterance's words would be at each acoustic scale and word penalty."""


def make_decoder(
    backend: str, graph: Graph, settings: DecodingConfig, *, acoustic_scale: float, word_penalty: float = 0.0
) -> Decoder:
    """A decoder of the named back end.

    Raises:
      UserError: there is no such back end, or it is not installed.
    """
    if backend == "k2":
        from asr_kd.decoding.k2_decoder import K2Decoder

        return K2Decoder(graph, settings, acoustic_scale=acoustic_scale, word_penalty=word_penalty)
    if backend == "kaldi":
        from asr_kd.decoding.kaldi_decoder import KaldiDecoder

        return KaldiDecoder(graph, settings, acoustic_scale=acoustic_scale, word_penalty=word_penalty)
    raise UserError(f"there is no decoder {backend!r}; --decoder takes {' or '.join(BACKENDS)}.")


def check_loglikes(loglikes: Sequence[np.ndarray], graph: Graph) -> None:
    """Raises UserError where the model has other tied states than the graph, or its output is not finite."""
    for array in loglikes:
        if not len(array):
            raise ValueError("an utterance without frames cannot be decoded")
        if array.ndim != 2 or array.shape[1] != graph.num_senones:
            raise UserError(
                f"the model gives {array.shape[-1]} tied states but the graph has {graph.num_senones}: they were made "
                "from different trees; train the model again, or make the graph of its own tree."
            )
        if not np.isfinite(array).all():
            raise UserError("the model's log-likelihoods are not finite; its weights or the features are damaged.")
