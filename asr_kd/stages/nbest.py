"""Lists of hypotheses: what each lattice holds beside its best path, one gzipped JSON line for each utterance."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_kd.decoding.decoder import NBest
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.io.folders import discard_partial, partial_folder, replacing_folder
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.stages.decode import Task, chunks_of
from asr_kd.stages.decode_results import read_summary
from asr_kd.stages.decode_worker import Piece, clear_caches, list_hypotheses
from asr_kd.workspace.cached_map import Codec, cached_map, json_codec
from asr_kd.workspace.config import Config, to_mapping
from asr_kd.workspace.work import Workspace

DRAWS = 500  # paths drawn from each lattice
KEPT = 100  # hypotheses at most, the likeliest
_FORM = 2  # 1: scores were those of the drawn paths, not of the words' best ones
_FILE = "nbest.jsonl.gz"


@dataclass(frozen=True)
class ListedUtterance:
    """One utterance's hypotheses by one seed of a system."""

    utterance: str
    seed: int
    hypotheses: NBest


def make_lists(
    config: Config, work: Workspace, tasks: Sequence[Task], stores: Mapping[str, FrameStore], nj: int
) -> dict[tuple[str, str], Path]:
    """(system, set) -> its folder, made where its stamp does not fit; from lattices at the scale that dev chose."""
    from asr_kd.decoding.k2_decoder import import_k2

    folders = {
        (task.system.name, name): work.exp(f"nbest_{task.system.name}_{name}") for task in tasks for name in stores
    }
    scales = {task.system.name: read_summary(work, task.system.name, "dev")["acoustic_scale"] for task in tasks}
    stamps = {}
    for task in tasks:
        for name, store in stores.items():
            settings = {"decoding": to_mapping(config.decoding), "draws": DRAWS, "kept": KEPT, "form": _FORM}
            settings["scale"] = scales[task.system.name]
            stamps[task.system.name, name] = Stamp("nbest", settings, task.inputs | {"frames": store.digest})
    reasons = {key: stale_reason(folders[key], stamps[key]) for key in folders}
    for key, why in reasons.items():
        if why is None:
            discard_partial(folders[key])
    todo = [(task, name) for task in tasks for name in stores if reasons[task.system.name, name] is not None]
    if not todo:
        return folders
    import_k2()  # before any process is started
    clear_caches()
    kept = {key: partial_folder(folders[key], stamps[key]) for key, why in reasons.items() if why is not None}
    pieces = [
        Piece(net, stores[name].folder, first, end, config.decoding, "k2", scales[task.system.name])
        for task, name in todo
        for net in task.nets
        for first, end in chunks_of(stores[name])
    ]
    files = [
        kept[task.system.name, name] / f"{seed}-{first}.json"
        for task, name in todo
        for seed in range(len(task.nets))
        for first, _ in chunks_of(stores[name])
    ]
    results = cached_map(_list_piece, pieces, files, _LISTS, nj=nj, progress="lists of hypotheses")
    for task, name in todo:
        key = task.system.name, name
        with (
            replacing_folder(folders[key], stamps[key]) as temporary,
            gzip.open(temporary / _FILE, "wt", encoding="utf-8", compresslevel=5) as file,
        ):
            for seed in range(len(task.nets)):
                for first, end in chunks_of(stores[name]):
                    for utterance, rows in zip(stores[name].ids[first:end], next(results), strict=True):
                        file.write(json.dumps({"utterance": utterance, "seed": seed, "hyps": rows}) + "\n")
        discard_partial(folders[key])
    for _ in results:  # lets the progress bar and the processes end
        pass
    return folders


Rows = list[tuple[str, float, float]]  # the words of each hypothesis, its acoustic score and its graph score


def _list_piece(piece: Piece) -> list[Rows]:
    return [_rows(found) for found in list_hypotheses(piece, DRAWS, KEPT)]


def _rows(found: NBest) -> Rows:
    rows = zip(found.words, found.acoustic.tolist(), found.graph.tolist(), strict=True)
    return [(" ".join(words), round(acoustic, 4), round(graph, 4)) for words, acoustic, graph in rows]


_LISTS: Codec[list[Rows]] = json_codec(lambda lists: lists, lambda data: data)


def read_lists(folder: Path) -> Iterator[ListedUtterance]:
    """Seed by seed, in the order of the set.

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
