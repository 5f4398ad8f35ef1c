"""`asr-kd fewshot`: a small share of the training data, with hard and with soft targets, against all of it.

Hinton, Vinyals, Dean (2015), section 6: on 3 % of the data a net on hard targets overfits and must be stopped early; on
soft targets of a teacher that saw everything it keeps nearly all of what that teacher knows, and needs no stopping.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.acoustic.model import load_model
from asr_kd.acoustic.training import read_log
from asr_kd.errors import UserError
from asr_kd.evaluation.frames import frame_metrics
from asr_kd.frames.store import FrameStore
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp, read_stamp, stale_reason
from asr_kd.stages.soft_targets import distill, make_soft_targets
from asr_kd.stages.train import student_config, train_direct, train_ensemble
from asr_kd.stages.training_run import TrainResult
from asr_kd.workspace.config import Config
from asr_kd.workspace.run_options import RunOptions
from asr_kd.workspace.work import Workspace, require

_FORM = 1  # of the report; raise it when what it holds changes
Row = dict[str, Any]


@dataclass(frozen=True)
class FewshotResult:
    """One row per system: the targets, the share of the data, accuracies; each number one per seed."""

    folder: Path
    made: bool
    rows: list[Row]

    def __str__(self) -> str:
        return f"{markdown(self.rows)}\n{self.folder}/fewshot.md"


def fewshot(config: Config, work: Workspace, options: RunOptions) -> FewshotResult:
    """Trains the three systems, with what they need, and writes exp/fewshot/.

    `config.student` is the net that sees everything, `config.few` the one that sees a share.

    Raises:
      UserError: the config has no `few`, its shares are not as they must be, or a stage before has not run.
    """
    few = student_config(config, "few")
    if not few.share < config.student.share == 1:
        raise UserError(
            f"{work.config_path}: few.share is {few.share:g} and student.share {config.student.share:g}; fewshot needs "
            "a share below 1 for few, and all of the data (1) for student."
        )
    train_ensemble(config, work, options)
    make_soft_targets(config, work, options)
    trained = [
        ("hard", few.share, train_direct(config, work, options, "few")),
        ("soft", few.share, distill(config, work, options, "few")),
        ("hard", 1.0, train_direct(config, work, options)),
    ]
    stamps = {result.folder.name: (read_stamp(result.folder) or {})["digest"] for _, _, result in trained}
    require(work.frames("test"), work, "features")
    test = FrameStore.open(work.frames("test"))
    folder = work.exp("fewshot")
    stamp = Stamp("fewshot", {"form": _FORM}, stamps | {"test frames": test.digest})
    if stale_reason(folder, stamp) is None:
        return FewshotResult(folder, False, json.loads((folder / "fewshot.json").read_text(encoding="utf-8")))
    rows = [_row(targets, share, result, test) for targets, share, result in trained]
    from asr_kd.report.fewshot_figure import draw  # here: matplotlib takes a second to load

    with replacing_folder(folder, stamp) as temporary:
        (temporary / "fewshot.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        (temporary / "fewshot.svg").write_text(draw(rows), encoding="utf-8")
        text = f"{markdown(rows)}\n\n{_KEY}\n\n![Frame accuracy per epoch](fewshot.svg)\n"
        (temporary / "fewshot.md").write_text(text, encoding="utf-8")
    return FewshotResult(folder, True, rows)


def _row(targets: str, share: float, result: TrainResult, test: FrameStore) -> Row:
    epochs = read_log(result.folder)
    metadata = (read_stamp(result.folder) or {})["metadata"]
    scored = frame_metrics(load_model(result.folder), test, np.asarray(test.array(metadata["states"])))
    return {
        "targets": targets,
        "share": share,
        "train_accuracy": [epoch["train_accuracy"] for epoch in epochs],  # [epoch][seed]
        "dev_accuracy": [epoch["dev_accuracy"] for epoch in epochs],
        "best_epoch": result.best_epoch,
        "test_accuracy": scored.accuracy,
    }


def markdown(rows: list[Row]) -> str:
    """The table of the paper's section 6, with dev beside test."""
    lines = ["| targets | data | training | dev, last epoch | dev, best epoch | test | best epoch |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        best = [row["dev_accuracy"][epoch - 1][seed] for seed, epoch in enumerate(row["best_epoch"])]
        cells = [_percent(row["train_accuracy"][-1]), _percent(row["dev_accuracy"][-1]), _percent(best)]
        cells += [_percent(row["test_accuracy"]), ", ".join(map(str, row["best_epoch"]))]
        lines.append(f"| {row['targets']} | {100 * row['share']:g} % | {' | '.join(cells)} |")
    return "\n".join(lines)


_KEY = (
    "Frame accuracy, mean over the seeds. Training: over the last epoch, while the net was learning. Test: the net of "
    "the best epoch on dev, which is what stopping early gives."
)


def _percent(values: list[float]) -> str:
    return f"{100 * float(np.mean(values)):.1f} %"
