"""What `asr-kd decode --rescore-lm` left, where it belongs to the first pass that is there now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr_kd.evaluation.bootstrap import ratio_interval
from asr_kd.io.stamp import read_stamp
from asr_kd.report.hypotheses import read_hypotheses
from asr_kd.report.results import RescoredRow
from asr_kd.workspace.config import DEV, Config
from asr_kd.workspace.sets import scored_sets
from asr_kd.workspace.work import Workspace


def rescored_digests(config: Config, work: Workspace) -> dict[str, str]:
    """For the report's stamp: folder -> digest."""
    return {str(folder.relative_to(work.exp(""))): stamp["digest"] for _, _, folder, stamp in _current(config, work)}


def rescored_rows(config: Config, work: Workspace) -> list[RescoredRow]:
    """The first pass's error rate, the new one with its interval, and the lists' best, on the test sets.

    Raises:
      UserError: a file is missing or damaged.
    """
    rows = []
    for system, name, folder, _ in _current(config, work):
        hypotheses = read_hypotheses(folder, work.command("decode --rescore-lm"))
        summary = hypotheses.summary
        interval = ratio_interval(
            hypotheses.errors, hypotheses.words, samples=config.evaluation.bootstrap_samples, seed=config.seed
        )
        rows.append(
            RescoredRow(
                name=system,
                set=name,
                lm=summary.lm,
                first_pass_wer=summary.first_pass_wer,
                wer=hypotheses.total.wer,
                wer_ci95=(interval.low, interval.high),
                oracle=summary.oracle,
                hypotheses=summary.hypotheses,
            )
        )
    return rows


def _current(config: Config, work: Workspace) -> Iterator[tuple[str, str, Path, dict[str, Any]]]:
    """System, test set, folder and its stamp; those of another first pass are left out."""
    for system in config.systems:
        for name in scored_sets(config, work):
            decoded = read_stamp(work.decoded(system, name))
            if name == DEV or decoded is None:
                continue
            for folder in sorted(work.rescored(system, name, "").glob("*")):
                stamp = read_stamp(folder)
                if stamp is not None and stamp["inputs"]["decoded"] == decoded["digest"]:
                    yield system, name, folder, stamp
