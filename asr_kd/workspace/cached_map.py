"""A map over shards whose results are cached in files: a killed run loses only the shards that it was working on.

The other way to resume is `asr_kd.io.append_log`, for one long sequence that is written in order.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from asr_kd.io.files import replacing_file
from asr_kd.workspace.executor import parallel_map

log = logging.getLogger(__name__)

Shard = TypeVar("Shard")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Codec(Generic[Result]):
    """How a result is written to a file. `unpack(pack(result))` must equal `result`."""

    pack: Callable[[Result], bytes]
    unpack: Callable[[bytes], Result]


def json_codec(to_data: Callable[[Result], Any], from_data: Callable[[Any], Result]) -> Codec[Result]:
    """For results that can be expressed as plain data.

    >>> codec = json_codec(list, tuple)
    >>> codec.unpack(codec.pack((1, "a")))
    (1, 'a')
    """
    return Codec(lambda result: json.dumps(to_data(result)).encode(), lambda data: from_data(json.loads(data)))


def _pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _unpack_arrays(data: bytes) -> Mapping[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


# for results that are arrays of numbers by name
ARRAYS: Codec[Mapping[str, np.ndarray]] = Codec(_pack_arrays, _unpack_arrays)


def cached_map(
    function: Callable[[Shard], Result],
    shards: Sequence[Shard],
    files: Sequence[Path],
    codec: Codec[Result],
    *,
    nj: int = 1,
    executor: str = "processes",
    progress: str | None = None,
) -> Iterator[Result]:
    """Yields function(shard) for each shard, in order: read where its file is there, else computed and written there.

    With `nj` 1 a shard is computed after the caller took all results before it, so it may depend on them, as the rounds
    of a flat start do. Otherwise a file may be deleted as soon as its result was yielded. Exhaust the iterator: the
    helper processes end with it.

    Args:
      files: one for each shard; the caller must choose a folder that depends on everything the results depend on
        (`asr_kd.io.folders.partial_folder`).
      function, nj, executor, progress: see `asr_kd.workspace.executor.parallel_map`; the bar counts what is computed.
    """
    cached = [file.exists() for file in files]
    missing = [shard for shard, exists in zip(shards, cached, strict=True) if not exists]
    results = parallel_map(function, missing, nj=nj, executor=executor, progress=progress if missing else None)
    for shard, file, exists in zip(shards, files, cached, strict=True):
        if exists:
            try:
                result = codec.unpack(file.read_bytes())
            except Exception as error:  # each codec has its own
                log.warning("%s is damaged (%s): computing it again", file, error)
            else:
                yield result
                continue
        result = function(shard) if exists else next(results)
        with replacing_file(file) as temporary:
            temporary.write_bytes(codec.pack(result))
        yield result
    for _ in results:  # lets the progress bar and the processes end
        pass


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
