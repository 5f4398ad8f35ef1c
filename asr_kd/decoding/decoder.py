"""What every decoder has in common: scores that go in, hypotheses, the interface, how one is made by its name.

Shapes:  T frames of an utterance, C senones.
"""

from __future__ import annotations

import abc
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr_kd.decoding.graph import Graph
from asr_kd.decoding.settings import DecodingConfig, backend_named
from asr_kd.errors import UserError

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


NO_PATH = Hypothesis((), -np.inf, retried=True)


def empty_grid(scales: Sequence[float], penalties: Sequence[float]) -> Grid:
    """The grid of an utterance for which no path was found."""
    return (((),) * len(penalties),) * len(scales)


@dataclass(frozen=True)
class NBest:
    """Different word sequences of one utterance that a lattice holds, the likeliest first; none where it failed."""

    words: tuple[tuple[str, ...], ...]
    acoustic: np.ndarray  # (n,) float64: sum of log-likelihoods along each one's best path, unscaled
    graph: np.ndarray  # (n,) float64: log probability of pronunciations, silences and language model along it


class Decoder(Protocol):
    """A search over one graph at fixed scales.

    A class of `asr_kd.decoding.settings.BACKENDS` is constructed as `make_decoder` does it: from graph and settings,
    with the keywords `acoustic_scale` and `word_penalty`. Log-likelihoods are (T, C) float32 arrays, natural log.
    """

    def decode(self, loglikes: Sequence[np.ndarray]) -> list[Hypothesis]:
        """The best path of each utterance; one without any is tried again with wider beams, alone."""

    def decode_grid(
        self, loglikes: Sequence[np.ndarray], scales: Sequence[float], penalties: Sequence[float]
    ) -> list[Grid]:
        """Each utterance's words at each acoustic scale and word penalty; the decoder's own word penalty must be 0."""


class LatticeDecoder(Decoder, Protocol):
    """A decoder that keeps lattices: one whose entry in BACKENDS says `lattices`."""

    def nbest(self, loglikes: Sequence[np.ndarray], draws: int, size: int) -> list[NBest]:
        """The best path of each utterance, and the likeliest word sequences among `draws` paths of its lattice.

        At most `size` in all; their scores are those of the best path with just these words. The same input gives the
        same lists. The decoder's word penalty must be 0.
        """


def load_backend(name: str) -> Callable[..., Decoder]:
    """The class of a back end in BACKENDS.

    Raises:
      UserError: there is no such back end, or it cannot be loaded.
    """
    backend = backend_named(name)
    try:
        decoder_class: Callable[..., Decoder] = pkgutil.resolve_name(backend.decoder)
    except Exception as error:  # a wheel that was built for another torch or Python fails in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"the decoder {name} cannot be loaded ({reason}): {backend.hint}.") from None
    return decoder_class


def make_decoder(
    backend: str, graph: Graph, settings: DecodingConfig, *, acoustic_scale: float, word_penalty: float = 0.0
) -> Decoder:
    """A decoder of a back end in BACKENDS; raises as `load_backend`."""
    return load_backend(backend)(graph, settings, acoustic_scale=acoustic_scale, word_penalty=word_penalty)


def scaled_likelihoods(
    log_posteriors: NDArray[np.float32], log_priors: NDArray[np.float32], prior_scale: float
) -> NDArray[np.float32]:
    """(T, C) log-likelihoods up to a constant per frame: log posterior - prior_scale * log prior.

    Raises:
      ValueError: the numbers of senones differ.
    """
    if log_posteriors.shape[-1] != log_priors.shape[-1]:
        raise ValueError(f"{log_posteriors.shape[-1]} posteriors and {log_priors.shape[-1]} priors")
    likelihoods: NDArray[np.float32] = log_posteriors - np.float32(prior_scale) * log_priors
    return likelihoods


def check_loglikes(loglikes: Sequence[np.ndarray], graph: Graph) -> None:
    """Checks what a model gave before it is searched.

    Raises:
      UserError: the model has another number of senones than the graph, or its output is not finite.
      ValueError: an utterance has no frames.
    """
    for array in loglikes:
        if not len(array):
            raise ValueError("an utterance without frames cannot be decoded")
        if array.ndim != 2 or array.shape[1] != graph.num_senones:
            raise UserError(
                f"the model has {array.shape[-1]} senones but the graph has {graph.num_senones}: they come from "
                "different trees; train the model again, or compile the graph of its own tree."
            )
        if not np.isfinite(array).all():
            raise UserError("the model's log-likelihoods are not finite; its weights or the features are damaged.")


def check_no_penalty(word_penalty: float) -> None:
    """Raises ValueError for a decoder whose lattices are needed but have a word penalty in their scores."""
    if word_penalty:
        raise ValueError(f"the scores of a lattice cannot be taken apart at a word penalty of {word_penalty:g}")


class OneByOne(abc.ABC):
    """What decoders share that search one utterance after the other; the arguments are those of `make_decoder`."""

    def __init__(self, graph: Graph, settings: DecodingConfig, acoustic_scale: float, word_penalty: float) -> None:
        self._graph, self._settings = graph, settings
        self._scale, self._penalty = acoustic_scale, word_penalty

    def decode(self, loglikes: Sequence[np.ndarray]) -> list[Hypothesis]:
        """The best path of each utterance."""
        check_loglikes(loglikes, self._graph)
        return [self._decode(array) for array in loglikes]

    def decode_grid(
        self, loglikes: Sequence[np.ndarray], scales: Sequence[float], penalties: Sequence[float]
    ) -> list[Grid]:
        """Returns each utterance's words at each scale and penalty, from one lattice made at this decoder's scale."""
        check_no_penalty(self._penalty)
        check_loglikes(loglikes, self._graph)
        return [self._grid(array, scales, penalties) for array in loglikes]

    @abc.abstractmethod
    def _decode(self, loglike: np.ndarray) -> Hypothesis:
        """The best path of an utterance."""

    @abc.abstractmethod
    def _grid(self, loglike: np.ndarray, scales: Sequence[float], penalties: Sequence[float]) -> Grid:
        """The words of an utterance at each point."""
