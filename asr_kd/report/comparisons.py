"""What distilling was worth: a comparison of the config, measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from asr_kd.distillation.settings import TargetsConfig
from asr_kd.errors import UserError
from asr_kd.evaluation.bootstrap import Comparison as BootstrapComparison
from asr_kd.evaluation.bootstrap import Interval, compare
from asr_kd.evaluation.frames import accuracy_gain
from asr_kd.report.hypotheses import Hypotheses
from asr_kd.report.results import (
    Difference,
    Distillation,
    GainKept,
    GainKeptHeadline,
    PhoneComparison,
    SetComparison,
    SystemRow,
)
from asr_kd.report.systems import Measured, resampling
from asr_kd.workspace.config import DEV, Comparison, Config
from asr_kd.workspace.config_files import from_mapping
from asr_kd.workspace.work import Workspace, require


def compare_systems(
    config: Config,
    work: Workspace,
    names: Comparison,
    rows: Sequence[SystemRow],
    measured: Mapping[str, Measured],
    hypotheses: Mapping[tuple[str, str], Hypotheses],
    phones: Mapping[tuple[str, str], Hypotheses],
) -> Distillation:
    """Compares the direct and the distilled system and their teacher on every test set.

    Args:
      phones: empty where they were not decoded beside words.

    Raises:
      UserError: the distilled system was trained without soft targets, or the two did not decode the same utterances.
    """
    by_name = {row.name: row for row in rows}
    systems = [by_name[name] for name in (names.direct, names.teacher, names.distilled)]
    targets = _targets(work, names.distilled)
    teachers = () if targets.imported else targets.source
    sets = [name for name in systems[0].wer if name != DEV] or [DEV]
    of_sets = {name: _compare_on(name, config, work, systems, measured, hypotheses, phones) for name in sets}
    main, on_dev = of_sets[sets[0]], _gain_kept(systems, DEV)
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
        gain_kept=GainKeptHeadline(**vars(main.gain_kept), frame_accuracy_dev=on_dev.frame_accuracy),
        p_distilled_better=main.p_distilled_better,
        sets=of_sets,
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
    name: str,
    config: Config,
    work: Workspace,
    systems: Sequence[SystemRow],
    measured: Mapping[str, Measured],
    hypotheses: Mapping[tuple[str, str], Hypotheses],
    phones: Mapping[tuple[str, str], Hypotheses],
) -> SetComparison:
    """The systems (direct, teacher, distilled) on one set, all resampled on the same utterances."""
    direct, teacher, distilled = (system.name for system in systems)

    def pair(of_each: Mapping[tuple[str, str], Hypotheses]) -> BootstrapComparison:
        a, b = of_each[direct, name], of_each[distilled, name]
        if a.ids != b.ids:
            raise UserError(
                f"{a.folder} and {b.folder} do not hold the same utterances; decode again: {work.command('decode')}"
            )
        return compare(a.errors, b.errors, a.words, **resampling(config))

    paired, paired_phones = pair(hypotheses), pair(phones) if phones else None

    def gain(other: str) -> Difference:
        first, second = measured[direct].answers[name], measured[other].answers[name]
        return _difference(accuracy_gain(first, second, **resampling(config)))

    return SetComparison(
        gain_kept=_gain_kept(systems, name),
        p_distilled_better=paired.probability_better,
        wer_difference=_difference(paired.difference),
        teacher_frame_difference=gain(teacher),
        distilled_frame_difference=gain(distilled),
        per=None
        if paired_phones is None
        else PhoneComparison(paired_phones.probability_better, _difference(paired_phones.difference)),
    )


def _gain_kept(systems: Sequence[SystemRow], name: str) -> GainKept:
    def share(metric: str, sign: int) -> float | None:
        direct, teacher, distilled = (getattr(system, metric)[name] for system in systems)
        return (distilled - direct) / (teacher - direct) if sign * (teacher - direct) > 0 else None

    return GainKept(
        frame_accuracy=share("frame_accuracy", 1),
        cross_entropy=share("cross_entropy", -1),
        wer=share("wer", -1),
        per=share("per", -1) if all(system.per is not None for system in systems) else None,
    )


def _difference(interval: Interval) -> Difference:
    return Difference(value=interval.value, ci95=(interval.low, interval.high))
