"""`asr-kd export`: a trained system as ONNX files that need nothing of this package, each measured on dev and tests."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asr_kd.acoustic.model import FrameModel
from asr_kd.errors import UserError
from asr_kd.export.onnx_acoustic import Description, streaming_model, utterance_model
from asr_kd.export.onnx_graph import OPSET, save
from asr_kd.export.onnx_run import open_model
from asr_kd.export.quantise import quantise_dynamic, quantise_static
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import read_json, write_json
from asr_kd.io.folders import resuming_folder
from asr_kd.io.formatting import text_table
from asr_kd.io.stamp import Stamp, read_stamp, stale_reason
from asr_kd.stages.decode_context import (
    DecodeContext,
    DecodeTask,
    chosen_sets,
    decode_context,
    phone_context,
    phone_task,
    task_of,
)
from asr_kd.stages.decode_worker import Loaded
from asr_kd.stages.export_measure import PHONES, WORDS, Figures, Search, measure
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.sets import open_frames
from asr_kd.workspace.work import Workspace, labels_of

log = logging.getLogger(__name__)

Precision = Literal["float32", "float16", "int8", "int8-static"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8", "int8-static")
_STEP, _RESULT = "export", "export.json"
_CALIBRATION = 50  # utterances of dev, spread over the set, that static scales are from
_COSTLY = 0.002  # of the word error rate, above that of float32


@dataclass(frozen=True)
class ExportOptions:
    """What is written and measured.

    Attributes:
      streaming: models that take speech as it comes, with a running mean; else whole utterances.
      sets: that are measured; empty: all that are scored. measured: False: none.
      backend: of BACKENDS; None: the first installed one.
    """

    precisions: tuple[Precision, ...] = PRECISIONS
    streaming: bool = False
    sets: tuple[str, ...] = ()
    measured: bool = True
    backend: str | None = None
    nj: int = 1


@dataclass(frozen=True)
class Row:
    """A model: its name, how many bytes its file (or files) has, and its figures, set by set."""

    name: str
    bytes: int
    sets: dict[str, Figures]
    costly: bool = False  # its word error rate is more than 0.2 points above that of float32 somewhere


@dataclass(frozen=True)
class ExportResult:
    """What was written."""

    folder: Path
    ran: bool
    rows: list[Row]

    def __str__(self) -> str:
        first = f"{'exported to' if self.ran else 'already in'} {self.folder}"
        if not self.rows:
            return first
        names = list(self.rows[0].sets)
        head = ["model", "MB", *(f"{name} {figure}" for name in names for figure in ("frames", "WER", "PER")), "speed"]
        lines = [first, "", text_table([head, *(self._cells(row, names) for row in self.rows)])]
        lines += ["", "speed: of the net alone, times real time on one thread"]
        if any(row.costly for row in self.rows):
            lines.append("! costs more than 0.2 points of the word error rate")
        return "\n".join(lines)

    def _cells(self, row: Row, names: Sequence[str]) -> list[str]:
        cells = [row.name + (" !" if row.costly else ""), f"{row.bytes / 1e6:.2f}"]
        for figures in (row.sets[name] for name in names):
            cells += [_percent(figures.frame_accuracy), _percent(figures.wer), _percent(figures.per)]
        return [*cells, f"{len(names) / sum(row.sets[name].net_rtf for name in names):.0f}"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def export_onnx(config: Config, work: Workspace, system: str, folder: Path, options: ExportOptions) -> ExportResult:
    """Writes model.onnx (streaming.onnx), and model.<precision>.onnx for each other precision, with export.json.

    Of a system with several seeds it is the first model; an ensemble is one model. Figures are taken at the scales that
    dev chose for the system.

    Raises:
      UserError: an earlier stage has not run, the folder holds other files, or the extra `export` is not installed.
    """
    if options.streaming and "int8-static" in options.precisions:
        possible = tuple(precision for precision in options.precisions if precision != "int8-static")
        options = dataclasses.replace(options, precisions=possible)
    sets = tuple(dict.fromkeys((DEV, *chosen_sets(config, work, options.sets))))
    context = decode_context(config, work, sets, options.backend, options.nj)
    task = task_of(config, work, system, may_compile=False)
    searches = _searches(context, task) if options.measured else {}
    stamp = _stamp(context, task, searches, options)
    _check_free(folder)
    reason = stale_reason(folder, stamp)
    if reason is None:
        return ExportResult(folder, False, _read_rows(folder))
    log.info("exporting %s: %s", system, reason)
    with resuming_folder(folder, stamp) as partial:
        model = Loaded().model(task.models[0])
        description = Description(system, config.corpus.sampling_rate, {"tree": stamp.inputs["model"]})
        files = list(_write(partial, model, context, description, options))
        rows = list(_rows(partial, files, searches, labels_of(config.system(system).tree))) if searches else []
        write_json(partial / _RESULT, _result(context, system, searches, rows))
    return ExportResult(folder, True, rows)


def _check_free(folder: Path) -> None:
    old = read_stamp(folder) if folder.is_dir() else None
    if folder.exists() and (old is None or old["step"] != _STEP) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds other files; name a new folder.")


def _searches(context: DecodeContext, task: DecodeTask) -> dict[str, Search]:
    contexts = {WORDS: (context, task)}
    if context.config.decodes_phones:
        of_phones = phone_context(context)
        of_phones.read_summary(task.system, DEV)  # it has been decoded, so its graph is there
        contexts[PHONES] = of_phones, phone_task(of_phones, task)
    searches = {}
    for kind, (each, of_kind) in contexts.items():
        summary = each.read_summary(task.system, DEV)
        settings = each.search(summary["acoustic_scale"], summary["word_penalty"])
        searches[kind] = Search(each, of_kind.models[0], settings)
    return searches


def _stamp(context: DecodeContext, task: DecodeTask, searches: dict[str, Search], options: ExportOptions) -> Stamp:
    settings = {
        "precisions": list(options.precisions),
        "streaming": options.streaming,
        "opset": OPSET,
        "searches": {
            kind: [search.settings.acoustic_scale, search.settings.word_penalty, search.context.decoding]
            for kind, search in searches.items()
        },
        "decoder": context.backend if searches else "",
    }
    stores = {TRAIN: open_frames(context.work, TRAIN), **context.stores}
    return Stamp(_STEP, settings, task.inputs | {f"{name} frames": store.digest for name, store in stores.items()})


def _write(
    folder: Path, model: FrameModel, context: DecodeContext, description: Description, options: ExportOptions
) -> Iterator[Path]:
    """Writes the file of each precision; int8 is made of float32, which is deleted where it was not asked for."""
    normalisation = open_frames(context.work, TRAIN).normalisation
    build, stem = (streaming_model, "streaming") if options.streaming else (utterance_model, "model")
    whole = folder / f"{stem}.onnx"
    save(build(model, normalisation, description), whole)
    for precision in options.precisions:
        file = whole if precision == "float32" else folder / f"{stem}.{precision}.onnx"
        if precision == "float16":
            save(build(model, normalisation, description, "float16"), file)
        elif precision == "int8":
            quantise_dynamic(whole, file)
        elif precision == "int8-static":
            quantise_static(whole, file, _calibration(context.stores[DEV]))
        open_model(file)
        yield file
    if "float32" not in options.precisions:
        whole.unlink()


def _calibration(dev: FrameStore) -> list[np.ndarray]:
    chosen = np.unique(np.linspace(0, len(dev.ids) - 1, _CALIBRATION).astype(int))
    return [dev.features[dev.span(int(utterance))].astype(np.float32) for utterance in chosen]


def _rows(folder: Path, files: Sequence[Path], searches: dict[str, Search], labels: str) -> Iterator[Row]:
    """The system's own model first, then each file."""
    cache, own = folder / "measured", searches[WORDS].model.folder
    cache.mkdir(exist_ok=True)
    sizes = [sum(file.stat().st_size for file in own.glob("member_*.safetensors")), *(f.stat().st_size for f in files)]
    names = ["torch", *(file.name for file in files)]
    sets = list(searches[WORDS].context.stores)
    reference: dict[str, Figures] | None = None
    for name, size, figures in zip(names, sizes, measure([None, *files], searches, sets, labels, cache), strict=True):
        if reference is None and name != "torch":
            reference = figures  # float32, where it was asked for
        above = [figures[each].wer - reference[each].wer for each in sets] if reference else [0.0]
        yield Row(name, size, figures, max(above) > _COSTLY)
    shutil.rmtree(cache)


def _result(context: DecodeContext, system: str, searches: dict[str, Search], rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "system": system,
        "decoder": context.backend if searches else None,
        "scales": {
            kind: {"acoustic_scale": search.settings.acoustic_scale, "penalty": search.settings.word_penalty}
            for kind, search in searches.items()
        },
        "models": [dataclasses.asdict(row) for row in rows],
    }


def _read_rows(folder: Path) -> list[Row]:
    result = read_json(folder / _RESULT, dict, f"delete {folder} and export again")
    return [
        Row(
            row["name"],
            row["bytes"],
            {name: Figures(**figures) for name, figures in row["sets"].items()},
            row["costly"],
        )
        for row in result["models"]
    ]
