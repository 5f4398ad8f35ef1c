"""What one process of stage 7 does: some utterances of a set, recognised by one model of a system.

Loading is not timed; the model's forward pass and the search are.

Shapes:  T frames of an utterance, C senones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from asr_kd.acoustic.model import FrameModel
from asr_kd.acoustic.model_files import load_model
from asr_kd.alignment.tree import read_tree
from asr_kd.decoding.decoder import Decoder, Hypothesis, LatticeDecoder, NBest, make_decoder, scaled_likelihoods
from asr_kd.decoding.graph import Graph, read_graph
from asr_kd.decoding.scales import grid_errors
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import Scoring
from asr_kd.frames.store import FrameStore
from asr_kd.kernels.switch import one_thread
from asr_kd.stages.decode_results import Reference

T = TypeVar("T")


@dataclass(frozen=True)
class TrainedModel:
    """A model of a system, and the tree and graph that it is decoded with."""

    folder: Path  # exp/<system>
    tree: Path
    graph: Path
    member: int | None  # None: all members answer together

    @property
    def artefacts(self) -> tuple[Path, ...]:
        return self.folder, self.tree, self.graph


@dataclass(frozen=True)
class SearchSettings:
    """A back end, its beams, and the scales of a search."""

    decoding: DecodingConfig
    backend: str
    acoustic_scale: float
    word_penalty: float = 0.0


@dataclass(frozen=True)
class DecodeShard:
    """Utterances first to end (exclusive) of a store.

    Attributes:
      references: one for each, where they are scored.
    """

    model: TrainedModel
    frames: Path
    first: int
    end: int
    search: SearchSettings
    references: Sequence[Reference] = ()

    @property
    def artefacts(self) -> tuple[Path, ...]:
        """What a process must see for it."""
        return self.frames, *self.model.artefacts


class Loaded:
    """What a process has loaded: of each kind the last one that was asked for.

    Each map over shards has an object of its own, so that an artefact that is replaced afterwards is read again.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Hashable, Any]] = {}

    def _get(self, kind: str, key: Hashable, load: Callable[[], T]) -> T:
        if kind not in self._last or self._last[kind][0] != key:
            self._last.pop(kind, None)  # its memory is free before the next one is loaded
            self._last[kind] = key, load()
        entry: T = self._last[kind][1]
        return entry

    def store(self, folder: Path) -> FrameStore:
        return self._get("store", folder, lambda: FrameStore.open(folder))

    def graph(self, folder: Path) -> Graph:
        return self._get("graph", folder, lambda: read_graph(folder))

    def decoder(self, graph: Path, search: SearchSettings) -> Decoder:
        def load() -> Decoder:
            scales = {"acoustic_scale": search.acoustic_scale, "word_penalty": search.word_penalty}
            return make_decoder(search.backend, self.graph(graph), search.decoding, **scales)

        return self._get("decoder", (graph, search), load)

    def model(self, model: TrainedModel) -> FrameModel:
        def load() -> FrameModel:
            whole = load_model(model.folder)
            return whole if model.member is None else whole.select_members([model.member])

        return self._get("model", (model.folder, model.member), load)

    def log_priors(self, model: TrainedModel) -> NDArray[np.float32]:
        """(C,) of the model's senones.

        Raises:
          UserError: the model has other senones than the tree.
        """
        log_priors = self._get("priors", model.tree, lambda: read_tree(model.tree).log_priors())
        num_senones = self.model(model).num_senones
        if len(log_priors) != num_senones:
            raise UserError(
                f"{model.folder} has {num_senones} senones but {model.tree} has {len(log_priors)}: the model was "
                "trained with another tree; train it again."
            )
        return log_priors


def decode_shard(loaded: Loaded, shard: DecodeShard) -> tuple[list[Hypothesis], float]:
    """The best paths at the shard's scales, and the seconds that one thread took for forward pass and search."""
    decoder = loaded.decoder(shard.model.graph, shard.search)
    loglikes, seconds = timed_loglikes(loaded, shard)
    started = time.perf_counter()
    return decoder.decode(loglikes), seconds + time.perf_counter() - started


def score_grid(loaded: Loaded, scoring: Scoring, shard: DecodeShard) -> NDArray[np.int64]:
    """(scales, penalties) errors at every acoustic scale and word penalty of the settings."""
    settings = shard.search.decoding
    loglikes, _ = timed_loglikes(loaded, shard)
    scored = [(r, array) for r, array in zip(shard.references, loglikes, strict=True) if r is not None]
    if not scored:
        return np.zeros((len(settings.acoustic_scales), len(settings.word_penalties)), np.int64)
    decoder = loaded.decoder(shard.model.graph, shard.search)
    arrays = [array for _, array in scored]
    grids = decoder.decode_grid(arrays, settings.acoustic_scales, settings.word_penalties)
    return grid_errors([reference for reference, _ in scored], grids, scoring)


def list_hypotheses(loaded: Loaded, draws: int, size: int, shard: DecodeShard) -> list[NBest]:
    """The likeliest hypotheses of each utterance's lattice at the shard's acoustic scale; see `LatticeDecoder`."""
    decoder: LatticeDecoder = loaded.decoder(shard.model.graph, shard.search)  # type: ignore[assignment]
    return decoder.nbest(timed_loglikes(loaded, shard)[0], draws, size)


def loglikes_of(
    loaded: Loaded, model: TrainedModel, features: NDArray[np.float32], prior_scale: float
) -> NDArray[np.float32]:
    """(T, D) normalised features -> (T, C) scaled log-likelihoods."""
    posteriors = loaded.model(model).log_posteriors(torch.from_numpy(features))
    return scaled_likelihoods(posteriors.cpu().numpy(), loaded.log_priors(model), prior_scale)


def timed_loglikes(loaded: Loaded, shard: DecodeShard) -> tuple[list[NDArray[np.float32]], float]:
    store, prior_scale = loaded.store(shard.frames), shard.search.decoding.prior_scale
    loaded.log_priors(shard.model)  # loads the model too
    with one_thread():  # speed is reported for one core
        started = time.perf_counter()
        loglikes = [
            loglikes_of(loaded, shard.model, store.normalised(utterance), prior_scale)
            for utterance in range(shard.first, shard.end)
        ]
        return loglikes, time.perf_counter() - started
