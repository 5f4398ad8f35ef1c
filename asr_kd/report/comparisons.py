"""What distilling was worth: a comparison of the config, measured by each metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from asr_kd.distillation.settings import TargetsConfig
from asr_kd.errors import UserError
from asr_kd.evaluation.bootstrap import Interval, compare, gain_kept
from asr_kd.evaluation.scoring import Unit
from asr_kd.report.hypotheses import Hypotheses
from asr_kd.report.resampling import Resampling
from asr_kd.report.results import SystemRow
from asr_kd.report.systems import Measured
from asr_kd.report.worth_results import Difference, Distillation, GainKept, Metric, MetricComparison, SetComparison
from asr_kd.workspace.config import DEV, Comparison, Config
from asr_kd.workspace.config_files import from_mapping
from asr_kd.workspace.work import Workspace, require


@dataclass(frozen=True)
class Counts:
    """Errors on the utterances of a set.

    Attributes:
      folder: what they were counted from, for messages.
      errors: (S, U), of each seed.
      totals: (U,), what they are divided by.
    """

    folder: Path
    utterances: Sequence[str]
    errors: np.ndarray
    totals: np.ndarray


@dataclass(frozen=True)
class Counted:
    """A metric with the counts that it is computed from, by system and set."""

    metric: Metric
    counts: Mapping[tuple[str, str], Counts]


def frame_accuracy(work: Workspace, measured: Mapping[str, Measured]) -> Counted:
    """Frames whose label is the most probable senone; the errors are the others."""
    counts = {
        (system, name): Counts(work.exp(system), metrics.utterances, metrics.wrong, metrics.labelled)
        for system, of_system in measured.items()
        for name, metrics in of_system.answers.items()
    }
    return Counted(Metric("frame_accuracy", "frame accuracy", "frame", lower_is_better=False), counts)


def error_rate(unit: Unit, hypotheses: Mapping[tuple[str, str], Hypotheses]) -> Counted:
    """Errors of words, characters or phones."""
    counts = {key: Counts(h.folder, h.ids, h.errors, h.words) for key, h in hypotheses.items()}
    return Counted(Metric("wer", f"{unit} error rate", unit, lower_is_better=True), counts)


def phone_error_rate(phones: Mapping[tuple[str, str], Hypotheses]) -> Counted:
    """Errors of the phones that were decoded beside words."""
    return replace(error_rate("phone", phones), metric=Metric("per", "phone error rate", "phone", lower_is_better=True))


def compare_systems(
    config: Config,
    work: Workspace,
    names: Comparison,
    rows: Sequence[SystemRow],
    counted: Sequence[Counted],
    resampling: Mapping[str, Resampling],
) -> Distillation:
    """Compares the direct and the distilled system and their teacher on every test set.

    Args:
      counted: each metric of the results; the rates of errors have the key "wer".
      resampling: by set.

    Raises:
      UserError: the distilled system was trained without soft targets, or the systems did not decode the same
        utterances.
    """
    by_name = {row.name: row for row in rows}
    systems = [by_name[name] for name in (names.direct, names.teacher, names.distilled)]
    targets = _targets(work, names.distilled)
    teachers = () if targets.imported else targets.source
    sets = [name for name in systems[0].wer if name != DEV] or [DEV]
    of_sets = {
        name: _compare_on(name, work, systems, counted, resampling[name]) for name in dict.fromkeys([*sets, DEV])
    }
    main, on_dev = of_sets[sets[0]], of_sets[DEV]
    return Distillation(
        direct=names.direct,
        distilled=names.distilled,
        teacher=names.teacher,
        temperature=targets.temperature,
        soft_weight=targets.soft_weight,
        mean=targets.mean,
        loss=targets.loss,
        out_of_fold=max((config.systems[t].folds for name in teachers for t in _parts(config, name)), default=0),
        seeds=by_name[names.distilled].seeds,
        gain_kept=GainKept(
            **({"per": None} | {key: of_metric.share_kept for key, of_metric in main.metrics.items()}),
            cross_entropy=main.cross_entropy_kept,
            frame_accuracy_dev=on_dev.metrics["frame_accuracy"].share_kept,
        ),
        p_distilled_better=main.metrics["wer"].p_distilled_better,
        sets={name: of_sets[name] for name in sets},
    )


def _targets(work: Workspace, name: str) -> TargetsConfig:
    """The soft targets that a system was trained with, from its stamp: the config may have changed since."""
    settings = require(work.exp(name), work, f"train {name}")["settings"].get("targets")
    if settings is None:
        raise UserError(
            f"{work.exp(name)} was trained without soft targets, but compare: calls it distilled; train it again: "
            f"{work.command(f'train {name}')}"
        )
    return from_mapping(TargetsConfig, settings, str(work.exp(name)))


def _parts(config: Config, name: str) -> Iterable[str]:
    return config.answering(name) if name in config.systems else ()


def _compare_on(
    name: str, work: Workspace, systems: Sequence[SystemRow], counted: Sequence[Counted], resampling: Resampling
) -> SetComparison:
    """The systems (direct, teacher, distilled) on one set."""
    metrics = {}
    for of_metric in counted:
        counts = [of_metric.counts[system.name, name] for system in systems]
        for other in counts[1:]:
            if list(other.utterances) != list(counts[0].utterances):
                raise UserError(
                    f"{counts[0].folder} and {other.folder} do not hold the same utterances; decode again: "
                    f"{work.command('decode')}"
                )
        metrics[of_metric.metric.key] = _compared(of_metric.metric, counts, resampling)
    direct, teacher, distilled = (system.cross_entropy[name] for system in systems)
    share = (distilled - direct) / (teacher - direct) if teacher < direct else None
    return SetComparison(metrics=metrics, cross_entropy_kept=share)


def _compared(metric: Metric, counts: Sequence[Counts], resampling: Resampling) -> MetricComparison:
    """Compares the direct, the teacher and the distilled system by one metric, on the same resamples."""
    direct, teacher, distilled = (of_system.errors for of_system in counts)
    totals = counts[0].totals
    if not totals.any():  # no frame has a label
        nothing = Difference(value=0.0, ci95=(-1.0, 1.0))
        return MetricComparison(nothing, 0.5, nothing, "uncertain", None, None)
    options = resampling.of(counts[0].utterances)
    paired = compare(direct, distilled, totals, **options)
    of_gain = gain_kept(direct, teacher, distilled, totals, **options)
    share = of_gain.share
    return MetricComparison(
        difference=_difference(metric, paired.difference),
        p_distilled_better=paired.probability_better,
        gain=_difference(metric, of_gain.gain),
        gain_is="clear" if share is not None else "uncertain" if of_gain.gain.value < 0 else "none",
        share_kept=None if share is None else share.value,
        share_kept_ci95=None if share is None else (share.low, share.high),
    )


def _difference(metric: Metric, errors: Interval) -> Difference:
    """Converts the difference of two error rates into a difference of the metric's values."""
    if metric.lower_is_better:
        return Difference(value=errors.value, ci95=(errors.low, errors.high))
    return Difference(value=-errors.value, ci95=(-errors.high, -errors.low))
