"""Maps whose results are cached in files: a killed run loses only the shards, or the round, that it was working on.

The other way to resume is `asr_kd.io.append_log`, for one long sequence that is written in order.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np

from asr_kd.io.files import replacing_file
from asr_kd.workspace.executor import parallel_map

log = logging.getLogger(__name__)

Shard = TypeVar("Shard")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Codec(Generic[Result]):
    """How a result is written to a file. What `read` reads must equal what `write` wrote."""

    write: Callable[[BinaryIO, Result], None]
    read: Callable[[BinaryIO], Result]

    def save(self, path: Path, result: Result) -> None:
        with replacing_file(path) as temporary, temporary.open("wb") as file:
            self.write(file, result)

    def load(self, path: Path) -> Result | None:
        """None, with a warning, where the file is damaged."""
        try:
            with path.open("rb") as file:
                return self.read(file)
        except Exception as error:  # each codec has its own
            log.warning("%s is damaged (%s): computing it again", path, error)
            return None


def json_codec(to_data: Callable[[Result], Any], from_data: Callable[[Any], Result]) -> Codec[Result]:
    """Returns a codec for results that can be expressed as plain data.

    >>> import io
    >>> codec, file = json_codec(list, tuple), io.BytesIO()
    >>> codec.write(file, (1, "a"))
    >>> codec.read(io.BytesIO(file.getvalue()))
    (1, 'a')
    """

    def write(file: BinaryIO, result: Result) -> None:
        file.write(json.dumps(to_data(result)).encode())

    return Codec(write, lambda file: from_data(json.load(file)))


def _read_arrays(file: BinaryIO) -> Mapping[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


# for results that are arrays of numbers by name; array by array, as they may be large
ARRAYS: Codec[Mapping[str, np.ndarray]] = Codec(lambda file, arrays: np.savez(file, **arrays), _read_arrays)


def cached_map(
    function: Callable[[Shard], Result],
    shards: Sequence[Shard],
    files: Sequence[Path],
    codec: Codec[Result],
    *,
    nj: int = 1,
    progress: str | None = None,
) -> Iterator[Result]:
    """Yields function(shard) for each shard, in order: read where its file is there, else computed and written there.

    A file may be deleted as soon as its result was yielded. Exhaust the iterator: the helper processes end with it.

    Args:
      files: one for each shard; the caller must choose a folder that depends on everything the results depend on
        (`asr_kd.io.folders.partial_folder`).
      function, nj, progress: see `asr_kd.workspace.executor.parallel_map`; the bar counts what is computed.
    """
    cached = [file.exists() for file in files]
    missing = [shard for shard, exists in zip(shards, cached, strict=True) if not exists]
    results = parallel_map(function, missing, nj=nj, progress=progress if missing else None)
    for shard, file, exists in zip(shards, files, cached, strict=True):
        result = codec.load(file) if exists else None
        if result is None:
            result = function(shard) if exists else next(results)
            codec.save(file, result)
        yield result
    for _ in results:  # lets the progress bar and the processes end
        pass


def cached_rounds(
    function: Callable[[int], Result], rounds: Sequence[int], folder: Path, codec: Codec[Result]
) -> Iterator[Result]:
    """Yields function(number) for each round; after a kill, first what the last finished round returned.

    Each round depends on the result of the one before alone, so only the last result is in a file, and in memory.

    Args:
      folder: as those of `cached_map`.
    """
    files = {number: folder / f"round{number}.npz" for number in rounds}
    finished = max((place for place, number in enumerate(rounds) if files[number].exists()), default=-1)
    result = None if finished < 0 else codec.load(files[rounds[finished]])
    left = rounds if result is None else rounds[finished + 1 :]
    if result is not None:
        yield result
    for number in left:
        result = None  # while the next one is computed
        result = function(number)
        codec.save(files[number], result)
        for other in files.keys() - {number}:
            files[other].unlink(missing_ok=True)
        yield result


def cached_groups(
    function: Callable[[Shard], Result],
    groups: Sequence[tuple[Path, Sequence[Shard]]],
    name: str,
    codec: Codec[Result],
    *,
    nj: int,
    progress: str,
) -> Iterator[Iterator[Result]]:
    """Yields the results of each group of shards; take all of a group's before the next group, as of `cached_map`.

    Args:
      groups: (the folder of the group's cache, its shards).
      name: of the files in that folder, before their numbers.
    """
    files = [folder / f"{name}-{number}.json" for folder, shards in groups for number in range(len(shards))]
    shards = [shard for _, of_group in groups for shard in of_group]
    results = cached_map(function, shards, files, codec, nj=nj, progress=progress)
    for _, of_group in groups:
        yield islice(results, len(of_group))
    for _ in results:  # lets the progress bar and the processes end
        pass
