"""Lists of hypotheses: what each lattice holds beside its best path, one gzipped JSON line for each utterance."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from asr_kd.decoding.decoder import NBest, load_backend
from asr_kd.errors import UserError
from asr_kd.io.folders import discard_partial, partial_folder, replacing_folder
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.stages.decode import shards_of
from asr_kd.stages.decode_context import DecodeContext, DecodeTask
from asr_kd.stages.decode_results import read_summary
from asr_kd.stages.decode_worker import DecodeShard, Loaded, list_hypotheses
from asr_kd.workspace.cached_map import Codec, cached_groups, json_codec
from asr_kd.workspace.config import DEV
from asr_kd.workspace.same_files import OnSameFiles, artefacts_of

DRAWS = 500  # paths drawn from each lattice
LIST_SIZE = 100  # hypotheses at most, the likeliest
_VERSION = 3
_FILE = "nbest.jsonl.gz"

Rows = list[tuple[str, float, float]]  # the words of each hypothesis, its acoustic score and its graph score


@dataclass(frozen=True)
class ListedUtterance:
    """One utterance's hypotheses by one seed of a system."""

    utterance: str
    seed: int
    hypotheses: NBest


def make_lists(context: DecodeContext, tasks: Sequence[DecodeTask]) -> dict[tuple[str, str], Path]:
    """(system, set) -> its folder, written where its stamp is stale; from lattices at the scale that dev chose.

    Raises:
      UserError: a system was not decoded on dev, or the back end cannot be loaded.
    """
    work, folders = context.work, {}
    stale: list[tuple[DecodeTask, str, Stamp, list[DecodeShard]]] = []
    for task in tasks:
        scale = read_summary(work, task.system, DEV)["acoustic_scale"]
        for name, store in context.stores.items():
            settings = {
                "decoding": context.decoding,
                "decoder": context.backend,
                "draws": DRAWS,
                "size": LIST_SIZE,
                "scale": scale,
            }
            stamp = Stamp("nbest", settings, task.inputs | {"frames": store.digest}, version=_VERSION)
            folder = folders[task.system, name] = work.nbest(task.system, name)
            if stale_reason(folder, stamp) is None:
                discard_partial(folder)
            else:
                stale.append((task, name, stamp, shards_of(store, task.models, context.search(scale))))
    if stale:
        load_backend(context.backend)  # fails before any process is started
    groups = [(partial_folder(folders[task.system, name], stamp), shards) for task, name, stamp, shards in stale]
    list_one = OnSameFiles(partial(_list_shard, Loaded()), artefacts_of(groups))
    listed = cached_groups(list_one, groups, "lists", _LISTS, nj=context.nj, progress="lists of hypotheses")
    for (task, name, stamp, shards), of_group in zip(stale, listed, strict=True):
        folder, ids = folders[task.system, name], context.stores[name].ids
        with (
            replacing_folder(folder, stamp) as temporary,
            gzip.open(temporary / _FILE, "wt", encoding="utf-8", compresslevel=5) as file,
        ):
            for shard, lists in zip(shards, of_group, strict=True):
                seed = task.models.index(shard.model)
                for utterance, rows in zip(ids[shard.first : shard.end], lists, strict=True):
                    file.write(json.dumps({"utterance": utterance, "seed": seed, "hyps": rows}) + "\n")
        discard_partial(folder)
    return folders


def _list_shard(loaded: Loaded, shard: DecodeShard) -> list[Rows]:
    return [_rows(hypotheses) for hypotheses in list_hypotheses(loaded, DRAWS, LIST_SIZE, shard)]


def _rows(hypotheses: NBest) -> Rows:
    rows = zip(hypotheses.words, hypotheses.acoustic.tolist(), hypotheses.graph.tolist(), strict=True)
    return [(" ".join(words), round(acoustic, 4), round(graph, 4)) for words, acoustic, graph in rows]


_LISTS: Codec[list[Rows]] = json_codec(lambda lists: lists, lambda data: data)


def read_lists(folder: Path) -> Iterator[ListedUtterance]:
    """Reads the lists of hypotheses: seed by seed, in the order of the set.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        with gzip.open(folder / _FILE, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                words = tuple(tuple(hypothesis[0].split()) for hypothesis in row["hyps"])
                scores = np.array([hypothesis[1:] for hypothesis in row["hyps"]], np.float64).reshape(-1, 2)
                yield ListedUtterance(row["utterance"], row["seed"], NBest(words, scores[:, 0], scores[:, 1]))
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder / _FILE} is missing or damaged ({error}); delete {folder} and decode again."
        ) from None
