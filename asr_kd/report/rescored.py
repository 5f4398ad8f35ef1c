"""What `asr-kd decode --rescore-lm` left, where it belongs to the words that are there now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asr_kd.evaluation.bootstrap import ratio_interval
from asr_kd.io.stamp import read_stamp
from asr_kd.report.hypotheses import read_hypotheses
from asr_kd.stages.decode import System
from asr_kd.stages.decode_results import decoded_folder
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace


def rescored_digests(work: Workspace, systems: Sequence[System]) -> dict[str, str]:
    """For the report's stamp: folder -> digest."""
    return {folder.name: stamp["digest"] for _, folder, stamp in _current(work, systems)}


def rescored_rows(config: Config, work: Workspace, systems: Sequence[System]) -> list[dict[str, Any]]:
    """For each rescored system and language model, on test: the first pass's WER, the new one with its interval, the
    lists' best.

    Raises:
      UserError: a file is missing or damaged.
    """
    rows = []
    for name, folder, _ in _current(work, systems):
        found = read_hypotheses(folder, work)
        interval = ratio_interval(
            found.errors, found.words, samples=config.evaluation.bootstrap_samples, seed=config.seed
        )  # fmt: skip
        rows.append(
            {
                "name": name,
                "lm": found.summary["lm"],
                "first_pass_wer": found.summary["first_pass_wer"],
                "wer": found.total.wer,
                "wer_ci95": [interval.low, interval.high],
                "oracle": found.summary["oracle"],
                "hypotheses": found.summary["hypotheses"],
            }
        )
    return rows


def _current(work: Workspace, systems: Sequence[System]) -> list[tuple[str, Path, dict[str, Any]]]:
    """System, folder and its stamp; those of another first pass are left out."""
    found = []
    for system in systems:
        decoded = read_stamp(decoded_folder(work, system.name, "test"))
        for folder in sorted(work.exp("").glob(f"rescored_{system.name}_test_*")):
            stamp = read_stamp(folder)
            if stamp is not None and decoded is not None and stamp["inputs"]["decoded"] == decoded["digest"]:
                found.append((system.name, folder, stamp))
    return found
