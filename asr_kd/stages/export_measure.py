"""What an exported model is worth: its frames, words, phones and speed on the sets, beside the model it was made from.

Shapes:  T frames of an utterance, C senones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.decoding.decoder import scaled_likelihoods
from asr_kd.export.onnx_run import OnnxModel, open_model
from asr_kd.frames.store import FrameStore
from asr_kd.kernels.switch import one_thread
from asr_kd.stages.decode import shards_of
from asr_kd.stages.decode_worker import DecodeShard, Loaded
from asr_kd.stages.export_search import PHONES, WORDS, Search
from asr_kd.workspace.cached_map import cached_groups, json_codec
from asr_kd.workspace.same_files import OnSameFiles, artefacts_of


@dataclass(frozen=True)
class Figures:
    """The accuracy, the error rates and the speed of a model on a set.

    Attributes:
      frame_accuracy: of the frames that have a senone; None: the set has no alignment.
      wer: the error rate of what the system is scored in, words for most.
      per: of phones beside them; None: these are not decoded.
      net_rtf: seconds of one thread for the net, by seconds of speech.
      cer: of characters beside words; None: these are not counted.
    """

    frame_accuracy: float | None
    wer: float
    per: float | None
    net_rtf: float
    cer: float | None = None


@dataclass(frozen=True)
class _Shard:
    """Utterances that a model is measured on; those of the searches are the same.

    Attributes:
      exported: the file that answers; None: the system's own model.
      labels: name of the store's array of senones.
    """

    exported: Path | None
    words: DecodeShard
    phones: DecodeShard | None
    labels: str

    @property
    def artefacts(self) -> tuple[Path, ...]:
        return self.words.artefacts + (self.phones.artefacts if self.phones else ())


@dataclass
class _Worker:
    """What a process has loaded; a set of its own for each search, so that no graph is loaded twice."""

    words: Loaded = field(default_factory=Loaded)
    phones: Loaded = field(default_factory=Loaded)
    exported: tuple[Path, OnnxModel] | None = None

    def measure(self, shard: _Shard) -> dict[str, Any]:
        store = self.words.store(shard.words.frames)
        log_priors = self.words.log_priors(shard.words.model)  # loads the system's own model too
        answer = self._answer(shard)
        with one_thread():
            started = time.perf_counter()
            posteriors = [answer(store, number) for number in range(shard.words.first, shard.words.end)]
            seconds = time.perf_counter() - started
        result: dict[str, Any] = {"net_seconds": seconds, **_right_frames(store, shard, posteriors)}
        for kind, loaded, part in ((WORDS, self.words, shard.words), (PHONES, self.phones, shard.phones)):
            if part is None:
                continue
            prior_scale = part.search.decoding.prior_scale
            loglikes = [scaled_likelihoods(array, log_priors, prior_scale) for array in posteriors]
            hypotheses = loaded.decoder(part.model.graph, part.search).decode(loglikes)
            result[kind] = [list(hypothesis.words) for hypothesis in hypotheses]
        return result

    def _answer(self, shard: _Shard) -> Callable[[FrameStore, int], np.ndarray]:
        """A function of a store and an utterance: its (T, C) natural-log posteriors."""
        if shard.exported is None:
            model = self.words.model(shard.words.model)
            return lambda store, number: model.log_posteriors(store.normalised(number)).cpu().numpy()
        if self.exported is None or self.exported[0] != shard.exported:
            self.exported = shard.exported, open_model(shard.exported)
        _, exported = self.exported
        return lambda store, number: exported.log_posteriors(store.features[store.span(number)].astype(np.float32))


def _right_frames(store: FrameStore, shard: _Shard, posteriors: Sequence[np.ndarray]) -> dict[str, int]:
    if store.array_stamp(shard.labels) is None:
        return {"right": 0, "labelled": 0}
    labels = store.array(shard.labels)[store.offsets[shard.words.first] : store.offsets[shard.words.end]]
    guesses, known = np.concatenate([array.argmax(1) for array in posteriors]), labels >= 0
    return {"right": int((guesses[known] == labels[known]).sum()), "labelled": int(known.sum())}


def measure(
    models: Sequence[Path | None], searches: dict[str, Search], names: Sequence[str], labels: str, cache: Path
) -> Iterator[dict[str, Figures]]:
    """Yields, for each model in turn, set -> figures.

    Args:
      models: exported files; None: the system's own model.
      searches: WORDS, and PHONES where these are decoded.
      labels: the name of the array of senones.
      cache: the folder of what a killed run has done, or none yet; what is in it must be of the same models.
    """
    groups = [
        (cache / f"{number}-{name}", list(_shards(searches, name, labels, model)))
        for number, model in enumerate(models)
        for name in names
    ]
    measure_shard = OnSameFiles(partial(_Worker.measure, _Worker()), artefacts_of(groups))
    nj = searches[WORDS].context.nj
    results = cached_groups(measure_shard, groups, "shard", json_codec(dict, dict), nj=nj, progress="measuring")
    for _ in models:
        yield {name: _figures(searches, name, list(next(results))) for name in names}
    for _ in results:  # lets the progress bar and the processes end
        pass


def _shards(searches: dict[str, Search], name: str, labels: str, exported: Path | None) -> Iterator[_Shard]:
    parts = {
        kind: shards_of(search.context.stores[name], [search.model], search.settings)
        for kind, search in searches.items()
    }
    phones = parts.get(PHONES, [None] * len(parts[WORDS]))
    for of_words, of_phones in zip(parts[WORDS], phones, strict=True):
        yield _Shard(exported, of_words, of_phones, labels)


def _figures(searches: dict[str, Search], name: str, results: Sequence[dict[str, Any]]) -> Figures:
    hypotheses = {kind: [words for result in results for words in result[kind]] for kind in searches}
    rates = {kind: search.errors(name, hypotheses[kind]) for kind, search in searches.items()}
    of_characters = searches[WORDS].character_errors(name, hypotheses[WORDS])
    right, labelled, seconds = (sum(result[key] for result in results) for key in ("right", "labelled", "net_seconds"))
    audio = float(searches[WORDS].context.stores[name].durations.sum())
    accuracy = right / labelled if labelled else None
    return Figures(accuracy, rates[WORDS], rates.get(PHONES), seconds / audio, of_characters)
