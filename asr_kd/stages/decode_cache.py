"""Results of decoding's pieces, each cached in a file of its own (`asr_kd.workspace.cached_map`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from asr_kd.decoding.decoder import Hypothesis
from asr_kd.stages.decode_worker import Piece, decode_piece, score_grid
from asr_kd.workspace.cached_map import Codec, cached_map, json_codec

Result = TypeVar("Result")


@dataclass(frozen=True)
class Kind(Generic[Result]):
    """What is done with a piece, and how its result is cached."""

    work: Callable[[Piece], Result]
    codec: Codec[Result]


def _unpack_words(data: Any) -> tuple[list[Hypothesis], float]:
    hypotheses, seconds = data
    return [Hypothesis(tuple(words), score, retried) for words, score, retried in hypotheses], seconds


GRIDS: Kind[np.ndarray] = Kind(score_grid, json_codec(np.ndarray.tolist, lambda data: np.array(data, np.int64)))
WORDS: Kind[tuple[list[Hypothesis], float]] = Kind(
    decode_piece,
    json_codec(lambda result: [[astuple(hypothesis) for hypothesis in result[0]], result[1]], _unpack_words),
)


def cached_parallel_map(
    kind: Kind[Result], pieces: Sequence[Piece], files: Sequence[Path], *, nj: int, progress: str
) -> Iterator[Result]:
    """See `cached_map`."""
    return cached_map(kind.work, pieces, files, kind.codec, nj=nj, progress=progress)
