"""`asr-kd export`: a trained system as ONNX files that need nothing of this package, each measured on dev and tests."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.acoustic.model import FrameModel
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import rate_name
from asr_kd.export import PRECISIONS
from asr_kd.export.onnx_acoustic import Description, streaming_model, utterance_model
from asr_kd.export.onnx_graph import OPSET, Weights, save
from asr_kd.export.onnx_models import check_writers
from asr_kd.export.onnx_run import CHUNK, open_model
from asr_kd.export.quantise import quantise_dynamic, quantise_static
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import read_json, write_json
from asr_kd.io.folders import resuming_folder
from asr_kd.io.formatting import text_table
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.stages.decode import decode_stamp
from asr_kd.stages.decode_context import chosen_sets, decode_context
from asr_kd.stages.export_folder import RESULT, STEP, export_folder
from asr_kd.stages.export_measure import Figures, measure
from asr_kd.stages.export_posteriors import answering_model
from asr_kd.stages.export_search import PHONES, WORDS, Search, searches_of
from asr_kd.stages.new_speech import inputs_of, normalisation_of
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.sets import open_frames
from asr_kd.workspace.work import Workspace, labels_of, require, trained_identity

log = logging.getLogger(__name__)

_CALIBRATION = 50  # utterances of dev, spread over the set, that static scales are from
_COSTLY = 0.002  # of an error rate, above that of float32
_VERSION = 2  # raise it when the same parts give other files
_CHARACTERS = "characters"  # a rate beside WORDS and PHONES


@dataclass(frozen=True)
class ExportOptions:
    """What is written and measured.

    Attributes:
      precisions: of PRECISIONS; empty: all that there are for this form.
      streaming: models that take speech as it comes, with a running mean; else whole utterances.
      sets: that are measured beside dev; empty: all that are scored. measured: False: none.
      backend: of BACKENDS; None: the first installed one.
    """

    precisions: tuple[str, ...] = ()
    streaming: bool = False
    sets: tuple[str, ...] = ()
    measured: bool = True
    backend: str | None = None
    nj: int = 1

    @property
    def chosen(self) -> list[str]:
        """The precisions, in the order of PRECISIONS.

        Raises:
          UserError: a stream was asked for with static scales.
        """
        static = "int8-static"
        if self.streaming and static in self.precisions:
            raise UserError(f"{static} takes its scales from whole utterances; with --streaming there is int8.")
        possible = [name for name in PRECISIONS if not (self.streaming and name == static)]
        return [name for name in possible if not self.precisions or name in self.precisions]


@dataclass(frozen=True)
class Row:
    """A model: its name, the bytes of its file (of torch's: of its numbers), and its figures, set by set."""

    name: str
    bytes: int
    sets: dict[str, Figures]
    costly: bool = False  # an error rate in words is more than 0.2 points above that of float32 on some set


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
      result: what export.json has.
    """

    folder: Path
    ran: bool
    result: dict[str, Any]

    @property
    def rows(self) -> list[Row]:
        """The rows of the table, one for each model; none where nothing was measured."""
        return [
            Row(row["name"], row["bytes"], {name: Figures(**each) for name, each in row["sets"].items()}, row["costly"])
            for row in self.result["models"]
        ]

    def __str__(self) -> str:
        first = f"{'exported to' if self.ran else 'already in'} {self.folder}"
        if not self.rows:
            return first
        rates, processes = list(self.result["rates"].values()), self.result["processes"]
        names = list(self.rows[0].sets)
        head = ["model", "MB", *(f"{name} {figure}" for name in names for figure in ("frames", *rates)), "speed"]
        lines = [first, "", text_table([head, *(_cells(row, names, list(self.result["rates"])) for row in self.rows)])]
        beside = f", {processes} processes side by side" if processes > 1 else ""
        lines += ["", f"speed: of the net alone, times real time on one thread{beside}"]
        if any(row.costly for row in self.rows):
            lines.append(f"! costs more than 0.2 points of the {rates[0]} on some set, against float32")
        return "\n".join(lines)


def _cells(row: Row, names: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """Args: kinds: of rates, in their order."""
    cells = [row.name + (" !" if row.costly else ""), f"{row.bytes / 1e6:.2f}"]
    for figures in (row.sets[name] for name in names):
        rates = {WORDS: figures.wer, PHONES: figures.per, _CHARACTERS: figures.cer}
        cells += [_percent(share) for share in (figures.frame_accuracy, *(rates[kind] for kind in kinds))]
    return [*cells, f"{len(names) / sum(row.sets[name].net_rtf for name in names):.0f}"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def export_onnx(config: Config, work: Workspace, system: str, folder: Path, options: ExportOptions) -> ExportResult:
    """Writes model.onnx (streaming.onnx), and model.<precision>.onnx for each other precision, with export.json.

    Of a system with several seeds it is the first model; an ensemble is one model. Figures are taken at the scales that
    dev chose for the system. An older export in the folder is replaced as a whole.

    Raises:
      UserError: an earlier stage has not run, the folder holds other files, or the extra `export` is not installed.
    """
    check_writers(config.system(name).model.kind for name in config.answering(system))
    folder = export_folder(folder)
    searches: dict[str, Search] = {}
    if options.measured:
        names = tuple(dict.fromkeys((DEV, *chosen_sets(config, work, options.sets))))
        searches = searches_of(decode_context(config, work, names, options.backend, options.nj), system)
    stamp = _stamp(config, work, system, searches, options)
    reason = stale_reason(folder, stamp)
    if reason is None:
        return ExportResult(folder, False, _read_result(folder))
    log.info("exporting %s: %s", system, reason)
    with resuming_folder(folder, stamp) as folder_so_far:
        model = answering_model(config, work, system)
        tree = config.system(system).tree
        origin = {"model": stamp.inputs["model"], "tree": require(work.tree(tree), work, "align")["digest"]}
        description = Description(system, config.corpus.sampling_rate, config.features.running_seconds, origin)
        normalisation = normalisation_of(config, work, system)
        build = partial(streaming_model if options.streaming else utterance_model, model, normalisation, description)
        files = list(_write(folder_so_far, build, work, options))
        rows = list(_rows(folder_so_far, model, files, searches, labels_of(tree))) if searches else []
        result = _result(system, searches, rows, options)
        write_json(folder_so_far / RESULT, result)
    return ExportResult(folder, True, result)


def _stamp(config: Config, work: Workspace, system: str, searches: dict[str, Search], options: ExportOptions) -> Stamp:
    settings = {
        "system": system,
        "models": sum(config.answering(system).values()),
        "precisions": options.chosen,
        "streaming": options.streaming,
        "opset": OPSET,
        "sampling_rate": config.corpus.sampling_rate,
        "running_seconds": config.features.running_seconds,
    }
    inputs = {"model": trained_identity(work, system)}
    for name in (TRAIN, DEV) if "int8-static" in options.chosen else (TRAIN,):
        inputs[f"{name} frames"] = require(work.frames(name), work, "features")["digest"]
    labels = labels_of(config.system(system).tree)
    for kind, search in searches.items():
        for name, store in search.context.stores.items():
            inputs[f"{kind} of {name}"] = decode_stamp(search.context, search.task, name).digest
            inputs[f"labels of {name}"] = (store.array_stamp(labels) or {"digest": "none"})["digest"]
    return Stamp(STEP, settings, inputs | inputs_of(config, work, system), version=_VERSION)


def _write(folder: Path, build: Callable[[Weights], Any], work: Workspace, options: ExportOptions) -> Iterator[Path]:
    """Writes the file of each precision; int8 is made of float32, which is deleted where it was not asked for."""
    stem = "streaming" if options.streaming else "model"
    whole = folder / f"{stem}.onnx"
    save(build("float32"), whole)
    for precision in options.chosen:
        file = whole if precision == "float32" else folder / f"{stem}.{precision}.onnx"
        if precision == "float16":
            save(build("float16"), file)
        elif precision == "int8":
            quantise_dynamic(whole, file)
        elif precision == "int8-static":
            quantise_static(whole, file, _calibration(open_frames(work, DEV)))
        open_model(file)
        yield file
    if "float32" not in options.chosen:
        whole.unlink()


def _calibration(dev: FrameStore) -> list[np.ndarray]:
    return [dev.features[dev.span(utterance)].astype(np.float32) for utterance in dev.spread(_CALIBRATION)]


def _rows(
    folder: Path, model: FrameModel, files: Sequence[Path], searches: dict[str, Search], labels: str
) -> Iterator[Row]:
    """The system's own model first, then each file; costs are against float32, or where that is not there torch."""
    cache, sets = folder / "measured", list(searches[WORDS].context.stores)
    figures = measure([None, *files], searches, sets, labels, cache)
    reference = next(figures)
    own = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    yield Row("torch", own, reference)
    for file, of_file in zip(files, figures, strict=True):
        if file.suffixes == [".onnx"]:
            reference = of_file
        costly = any(of_file[name].wer - reference[name].wer > _COSTLY for name in sets)
        yield Row(file.name, file.stat().st_size, of_file, costly)
    shutil.rmtree(cache)


def _result(system: str, searches: dict[str, Search], rows: Sequence[Row], options: ExportOptions) -> dict[str, Any]:
    rates = {kind: rate_name(search.context.scoring.unit) for kind, search in searches.items()}
    if searches and searches[WORDS].context.scoring.characters:
        rates[_CHARACTERS] = rate_name("character")
    scales = {
        kind: {"acoustic_scale": search.settings.acoustic_scale, "penalty": search.settings.word_penalty}
        for kind, search in searches.items()
    }
    return {
        "system": system,
        "decoder": searches[WORDS].context.backend if searches else None,
        "rates": rates,
        "scales": scales,
        "processes": options.nj,
        "chunk_frames": CHUNK if options.streaming else None,
        "models": [dataclasses.asdict(row) for row in rows],
    }


def _read_result(folder: Path) -> dict[str, Any]:
    advice = f"delete {folder} and export again"
    result = read_json(folder / RESULT, dict, advice)
    try:
        str(ExportResult(folder, False, result))
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{folder / RESULT} is damaged; {advice}.") from None
    return result
