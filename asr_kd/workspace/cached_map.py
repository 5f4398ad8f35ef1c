"""Results of decoding's pieces, each kept in a file of its own: a killed run loses only those that it was at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from asr_kd.decoding.decoder import Hypothesis
from asr_kd.io.files import replacing_file
from asr_kd.stages.decode_worker import Piece, decode_piece, score_grid
from asr_kd.workspace.executor import parallel_map

Result = TypeVar("Result")


@dataclass(frozen=True)
class Kind(Generic[Result]):
    """What is done with a piece, and how what it gives is written as plain data."""

    work: Callable[[Piece], Result]
    pack: Callable[[Result], Any]
    unpack: Callable[[Any], Result]


def _unpack_words(data: Any) -> tuple[list[Hypothesis], float]:
    hypotheses, seconds = data
    return [Hypothesis(tuple(words), score, retried) for words, score, retried in hypotheses], seconds


GRIDS: Kind[np.ndarray] = Kind(score_grid, np.ndarray.tolist, lambda data: np.array(data, np.int64))
WORDS: Kind[tuple[list[Hypothesis], float]] = Kind(
    decode_piece, lambda result: [[astuple(hypothesis) for hypothesis in result[0]], result[1]], _unpack_words
)


def cached_parallel_map(
    kind: Kind[Result], pieces: Sequence[Piece], files: Sequence[Path], *, nj: int, progress: str
) -> Iterator[Result]:
    """The results of all pieces in order; those whose file is there are read, the others are made, and kept there."""
    missing = [not file.exists() for file in files]
    todo = [piece for piece, absent in zip(pieces, missing, strict=True) if absent]
    results = parallel_map(kind.work, todo, nj=nj, progress=progress if todo else None)
    for file, absent in zip(files, missing, strict=True):
        if absent:
            result = next(results)
            with replacing_file(file) as temporary:
                temporary.write_text(json.dumps(kind.pack(result)), encoding="utf-8")
            yield result
        else:
            yield kind.unpack(json.loads(file.read_text(encoding="utf-8")))
    for _ in results:  # lets the progress bar and the processes end
        pass
