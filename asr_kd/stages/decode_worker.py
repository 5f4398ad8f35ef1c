"""One piece of decoding: some utterances of a set, by one member of a system, in a process of its own.

Loading is cached per process and not timed; the net's forward pass and the search are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from asr_kd.acoustic.inference import log_posteriors
from asr_kd.acoustic.model import AcousticModel, load_model
from asr_kd.alignment.tree import read_tree
from asr_kd.decoding.decoder import Decoder, Hypothesis, NBest, make_decoder
from asr_kd.decoding.graph import Graph, read_graph
from asr_kd.decoding.likelihoods import scaled_likelihoods
from asr_kd.decoding.scales import grid_errors
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import WORDS, Scoring
from asr_kd.frames.store import FrameStore
from asr_kd.workspace.config import DecodingConfig


@dataclass(frozen=True)
class Net:
    """One net, or the mean of a folder's nets, and the graph it speaks to."""

    model: Path  # exp/baseline, ...
    tree: Path
    graph: Path
    member: int | None  # None: the arithmetic mean of all members


@dataclass(frozen=True)
class Piece:
    """Utterances first to end (exclusive) of a store."""

    net: Net
    frames: Path
    first: int
    end: int
    settings: DecodingConfig
    backend: str
    acoustic_scale: float
    word_penalty: float = 0.0
    scoring: Scoring = WORDS  # of a grid


def decode_piece(piece: Piece) -> tuple[list[Hypothesis], float]:
    """The best paths at the piece's scales, and the seconds that one thread took for forward pass and search."""
    decoder = _decoder(piece.net.graph, piece.settings, piece.backend, piece.acoustic_scale, piece.word_penalty)
    loglikes, seconds = _timed_loglikes(piece)
    started = time.perf_counter()
    return decoder.decode(loglikes), seconds + time.perf_counter() - started


def score_grid(piece: Piece) -> np.ndarray:
    """(scales, penalties) int64: errors at every acoustic scale and word penalty of the settings."""
    decoder = _decoder(piece.net.graph, piece.settings, piece.backend, piece.acoustic_scale, 0.0)
    loglikes, _ = _timed_loglikes(piece)
    references = [text.split() for text in _store(piece.frames).references[piece.first : piece.end]]
    settings = piece.settings
    grids = decoder.decode_grid(loglikes, settings.acoustic_scales, settings.word_penalties)
    return grid_errors(references, grids, piece.scoring)


def list_hypotheses(piece: Piece, draws: int, most: int) -> list[NBest]:
    """The hypotheses of each utterance's lattice at the piece's scale; the back end is k2."""
    from asr_kd.decoding.k2_decoder import K2Decoder

    decoder = _decoder(piece.net.graph, piece.settings, "k2", piece.acoustic_scale, 0.0)
    assert isinstance(decoder, K2Decoder)
    return decoder.nbest(_timed_loglikes(piece)[0], draws, most)


def loglikes_of(
    net: Net, store: FrameStore, utterance: int, prior_scale: float, model: AcousticModel | None = None
) -> np.ndarray:
    """(T, C) float32: log posterior - prior_scale * log prior.

    Args:
      model: the net of `net`, where it is at hand already.

    Raises:
      UserError: the model has other tied states than the tree.
    """
    model = model or _model(net.model, net.member)
    log_priors = _log_priors(net.tree)
    if len(log_priors) != model.num_states:
        raise UserError(
            f"{net.model} gives {model.num_states} tied states but {net.tree} has {len(log_priors)}: the model was "
            "trained with another tree; train it again."
        )
    posteriors = log_posteriors(model, store, utterance, 0 if net.member is not None else None)
    return scaled_likelihoods(posteriors, log_priors, prior_scale)


def _timed_loglikes(piece: Piece) -> tuple[list[np.ndarray], float]:
    store, model = _store(piece.frames), _model(piece.net.model, piece.net.member)
    _log_priors(piece.net.tree)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # speed is reported for one core
    try:
        started = time.perf_counter()
        loglikes = [
            loglikes_of(piece.net, store, u, piece.settings.prior_scale, model) for u in range(piece.first, piece.end)
        ]
        return loglikes, time.perf_counter() - started
    finally:
        torch.set_num_threads(threads)


def clear_caches() -> None:
    """Forgets what was loaded: after an artefact was replaced in this process."""
    for cached in (_decoder, _graph, _model, _store, _log_priors):
        cached.cache_clear()


@lru_cache(maxsize=2)
def _decoder(
    graph: Path, settings: DecodingConfig, backend: str, acoustic_scale: float, word_penalty: float
) -> Decoder:
    return make_decoder(backend, _graph(graph), settings, acoustic_scale=acoustic_scale, word_penalty=word_penalty)


@lru_cache(maxsize=1)
def _graph(folder: Path) -> Graph:
    return read_graph(folder)


@lru_cache(maxsize=1)
def _model(folder: Path, member: int | None) -> AcousticModel:
    model = load_model(folder)
    return model if member is None else model.some([member])


@lru_cache(maxsize=2)
def _store(folder: Path) -> FrameStore:
    return FrameStore.open(folder)


@lru_cache(maxsize=2)
def _log_priors(folder: Path) -> np.ndarray:
    return read_tree(folder).log_priors()
