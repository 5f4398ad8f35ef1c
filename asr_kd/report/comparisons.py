"""What distilling was worth: a comparison of the config, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asr_kd.distillation.settings import TargetsConfig
from asr_kd.errors import UserError
from asr_kd.evaluation.bootstrap import Interval, compare
from asr_kd.evaluation.frame_intervals import accuracy_gain
from asr_kd.report.hypotheses import Hypotheses
from asr_kd.report.results import Difference, Distillation, GainKept, GainKeptHeadline, SetComparison, SystemRow
from asr_kd.report.systems import Measured, resampling
from asr_kd.workspace.config import DEV, Comparison, Config, from_mapping
from asr_kd.workspace.work import Workspace, require


def compare_systems(
    config: Config,
    work: Workspace,
    names: Comparison,
    rows: Sequence[SystemRow],
    measured: Mapping[str, Measured],
    hypotheses: Mapping[tuple[str, str], Hypotheses],
) -> Distillation:
    """Compares the direct and the distilled system and their teacher on every test set.

    Raises:
      UserError: the distilled system was trained without soft targets, or the two did not decode the same utterances.
    """
    by_name = {row.name: row for row in rows}
    direct, distilled, teacher = (by_name[name] for name in (names.direct, names.distilled, names.teacher))
    targets = _targets(work, names.distilled)
    sets = [name for name in direct.wer if name != DEV] or [DEV]
    of_sets = {
        name: SetComparison(
            gain_kept=_gain_kept(direct, teacher, distilled, name),
            **_paired(config, work, names, name, measured, hypotheses),
        )
        for name in sets
    }
    main, on_dev = of_sets[sets[0]], _gain_kept(direct, teacher, distilled, DEV)
    return Distillation(
        direct=names.direct,
        distilled=names.distilled,
        teacher=names.teacher,
        temperature=targets.temperature,
        soft_weight=targets.soft_weight,
        mean=targets.mean,
        loss=targets.loss,
        out_of_fold=0 if targets.imported else max(_folds(config, source) for source in targets.source),
        seeds=distilled.seeds,
        gain_kept=GainKeptHeadline(**vars(main.gain_kept), frame_accuracy_dev=on_dev.frame_accuracy),
        p_distilled_better=main.p_distilled_better,
        sets=of_sets,
    )


def _folds(config: Config, name: str) -> int:
    return config.systems[name].folds if name in config.systems else 0


def _targets(work: Workspace, name: str) -> TargetsConfig:
    """The soft targets that a system was trained with, from its stamp: the config may have changed since."""
    settings = require(work.exp(name), work, f"train {name}")["settings"].get("targets")
    if settings is None:
        raise UserError(
            f"{work.exp(name)} was trained without soft targets, but compare: calls it distilled; train it again: "
            f"{work.command(f'train {name}')}"
        )
    return from_mapping(TargetsConfig, settings, str(work.exp(name)))


def _gain_kept(direct: SystemRow, teacher: SystemRow, distilled: SystemRow, name: str) -> GainKept:
    def share(metric: Callable[[SystemRow], dict[str, float]], sign: int) -> float | None:
        gain = metric(teacher)[name] - metric(direct)[name]
        return (metric(distilled)[name] - metric(direct)[name]) / gain if sign * gain > 0 else None

    return GainKept(
        frame_accuracy=share(lambda row: row.frame_accuracy, 1),
        cross_entropy=share(lambda row: row.cross_entropy, -1),
        wer=share(lambda row: row.wer, -1),
    )


def _paired(
    config: Config,
    work: Workspace,
    names: Comparison,
    name: str,
    measured: Mapping[str, Measured],
    hypotheses: Mapping[tuple[str, str], Hypotheses],
) -> dict[str, Any]:
    """The fields of `SetComparison` that are resampled, all on the same utterances."""
    a, b = hypotheses[names.direct, name], hypotheses[names.distilled, name]
    if a.ids != b.ids:
        raise UserError(
            f"{a.folder} and {b.folder} do not hold the same utterances; decode again: {work.command('decode')}"
        )
    paired = compare(a.errors, b.errors, a.words, **resampling(config))

    def gain(other: str) -> Difference:
        first, second = measured[names.direct], measured[other]
        averaged = (first.averaged, second.averaged)
        return _difference(
            accuracy_gain(first.frames[name], second.frames[name], averaged=averaged, **resampling(config))
        )

    return {
        "p_distilled_better": paired.probability_better,
        "wer_difference": _difference(paired.difference),
        "teacher_frame_difference": gain(names.teacher),
        "distilled_frame_difference": gain(names.distilled),
    }


def _difference(interval: Interval) -> Difference:
    return Difference(value=interval.value, ci95=(interval.low, interval.high))
