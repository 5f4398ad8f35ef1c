"""One system of a run: its models run over the scored sets, and its row of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.acoustic.model_files import load_model
from asr_kd.acoustic.training import read_log
from asr_kd.evaluation.bootstrap import ratio_interval
from asr_kd.evaluation.frames import (
    Diversity,
    FrameMetrics,
    accuracy_interval,
    alternating,
    diversity,
    frame_metrics,
)
from asr_kd.frames.store import FrameStore
from asr_kd.report.hypotheses import Hypotheses, Summary
from asr_kd.report.resampling import Resampling
from asr_kd.report.results import (
    CurvePoint,
    ErrorCounts,
    LastEpoch,
    OutOfVocabulary,
    PerSeed,
    PhoneRow,
    Rates,
    Role,
    Scales,
    SystemRow,
)
from asr_kd.workspace.config import Config, SystemConfig
from asr_kd.workspace.sets import open_labels
from asr_kd.workspace.work import Workspace, require


@dataclass(frozen=True)
class Measured:
    """A system's models on the scored sets."""

    models: int
    parameters: list[int]  # of each model
    senones: int
    each: dict[str, FrameMetrics]  # set -> a row for each model
    answers: dict[str, FrameMetrics]  # set -> a row for each seed; of an ensemble one, for the mean of its members
    diversity: dict[str, Diversity] = field(default_factory=dict)  # of an ensemble, and of what is joined to one


def is_reused(stamp: Mapping[str, Any]) -> bool:
    """Whether the models that have this stamp are members of another system."""
    return bool(stamp["step"] == "reuse")


def measure(
    config: Config, work: Workspace, name: str, stores: Mapping[str, FrameStore], measured: Mapping[str, Measured]
) -> Measured:
    """Runs a system's models over every set, unless they ran as members of a system that is measured already.

    The members of an ensemble of systems join in turns: so k of them are of as many kinds as can be.
    """
    system = config.system(name)
    source = measured.get(system.reuse)
    reused = source is not None and is_reused(require(work.exp(name), work, f"train {name}"))
    joined = any(name in other.parts for other in config.systems.values())
    if source is not None and reused and not system.is_ensemble and not joined:
        first = {n: metrics.rows(slice(system.num_models)) for n, metrics in source.each.items()}
        parameters = source.parameters[: system.num_models]
        return Measured(system.num_models, parameters, source.senones, first, first)
    model = load_model(work.exp(name))
    metrics: dict[str, FrameMetrics] = {}
    members: dict[str, Diversity] = {}
    for n, store in stores.items():
        labels = np.asarray(open_labels(work, store, system.tree))
        if (system.is_ensemble and not reused) or joined:
            order = alternating(list(config.answering(name).values())) if system.parts else None
            metrics[n], members[n] = diversity(model, store, labels, order)
        else:
            metrics[n] = frame_metrics(model, store, labels)
    each = {n: of_set.rows(slice(-1)) for n, of_set in metrics.items()}
    mean = {n: of_set.rows(slice(-1, None)) for n, of_set in metrics.items()}
    answers = mean if system.is_ensemble else each
    return Measured(model.members, model.member_parameters, model.num_senones, each, answers, members)


def row_of(
    config: Config,
    work: Workspace,
    name: str,
    measured: Measured,
    hypotheses: Mapping[str, Hypotheses],
    phones: Mapping[str, Hypotheses],
    resampling: Mapping[str, Resampling],
) -> SystemRow:
    """A system's row of the results.

    Args:
      hypotheses: by set, dev first; speed and scales are reported of the next one.
      phones: likewise; empty where they were not decoded beside words.
      resampling: by set.
    """
    folder, system = work.exp(name), config.system(name)
    stamp = require(folder, work, f"train {name}")
    together = measured.models if system.is_ensemble else 1
    summaries = {set_name: h.summary for set_name, h in hypotheses.items()}
    chosen = summaries[main_set(list(hypotheses))]
    accuracy = {n: accuracy_interval(f, **resampling[n].of(f.utterances)) for n, f in measured.answers.items()}
    best_epoch = [int(epoch) for epoch in stamp["metadata"].get("best_epoch", [])]
    return SystemRow(
        name=name,
        role=role_of(config, name),
        members=together,
        parameters=sum(measured.parameters[:together]),
        bytes=sum(_first_bytes(work.exp(part), count) for part, count in config.answering(name).items()),
        frame_accuracy={n: float(f.accuracy.mean()) for n, f in measured.answers.items()},
        frame_accuracy_ci95={n: (interval.low, interval.high) for n, interval in accuracy.items()},
        cross_entropy={n: float(f.cross_entropy.mean()) for n, f in measured.answers.items()},
        **vars(rates(hypotheses, resampling)),
        characters=None
        if any(summary.characters is None for summary in summaries.values())
        else rates({n: h.in_characters() for n, h in hypotheses.items()}, resampling),
        **(_of_phones(phones, resampling) if phones else {}),
        rtf=chosen.rtf or 0.0,
        seeds=1 if system.is_ensemble else measured.models,
        senones=measured.senones,
        tree=system.tree,
        train_fraction=system.train_fraction,
        extra=_untranscribed_frames(work, system),
        kind="+".join(sorted({config.systems[part].model.kind for part in config.answering(name)})),
        each=PerSeed(
            frame_accuracy={n: f.accuracy.tolist() for n, f in measured.each.items()},
            cross_entropy={n: f.cross_entropy.tolist() for n, f in measured.each.items()},
            wer={n: [errors.wer for errors in h.per_seed] for n, h in hypotheses.items()},
        ),
        reused_from=system.reuse if is_reused(stamp) else "",
        best_epoch=best_epoch,
        last_epoch=_last_epoch(read_log(folder), best_epoch),
        scales=_scales(chosen),
        retried={n: summary.retried for n, summary in summaries.items()},
        failed={n: summary.failed for n, summary in summaries.items()},
        oov={n: OutOfVocabulary(words=s.oov_words, rate=s.oov_rate) for n, s in summaries.items()},
    )


def _untranscribed_frames(work: Workspace, system: SystemConfig) -> dict[str, int]:
    names = system.targets.extra if system.targets else ()
    return {name: int(require(work.frames(name), work, "features")["metadata"]["frames"]) for name in names}


def _first_bytes(folder: Path, count: int) -> int:
    """Size of the files of the first models of a folder."""
    files = sorted(folder.glob("member_*.safetensors"), key=lambda path: int(path.stem.partition("_")[2]))
    return sum(file.stat().st_size for file in files[:count])


def _of_phones(hypotheses: Mapping[str, Hypotheses], resampling: Mapping[str, Resampling]) -> dict[str, Any]:
    """The fields of a `SystemRow` that come from its phones."""
    of_all, summaries = rates(hypotheses, resampling), {n: h.summary for n, h in hypotheses.items()}
    main = main_set(list(hypotheses))
    return {
        "per": of_all.wer,
        "per_ci95": of_all.wer_ci95,
        "phones": PhoneRow(
            errors=of_all.errors,
            per_seed={n: [errors.wer for errors in h.per_seed] for n, h in hypotheses.items()},
            scales=_scales(summaries[main]),
            rtf=summaries[main].rtf or 0.0,
            retried={n: summary.retried for n, summary in summaries.items()},
            failed={n: summary.failed for n, summary in summaries.items()},
        ),
    }


def _scales(summary: Summary) -> Scales:
    return Scales(summary.acoustic_scale, summary.word_penalty, summary.prior_scale, summary.search_beam)


def role_of(config: Config, name: str) -> Role:
    """What a system is in the first comparison that names it; a control has untied states."""
    for comparison in config.compare:
        if name == comparison.direct:
            return "direct"
        if name == comparison.teacher:
            return "teacher"
        if name == comparison.distilled:
            return "distilled"
    return "control" if config.system(name).tree == "monophone" else "other"


def rates(hypotheses: Mapping[str, Hypotheses], resampling: Mapping[str, Resampling]) -> Rates:
    """Returns for each set the error rate over all seeds, its interval, and the counts of errors."""
    intervals = {
        name: ratio_interval(h.errors, h.words, **resampling[name].of(h.ids)) for name, h in hypotheses.items()
    }
    return Rates(
        wer={name: h.total.wer for name, h in hypotheses.items()},
        wer_ci95={name: (i.low, i.high) for name, i in intervals.items()},
        errors={name: ErrorCounts(**vars(h.total)) for name, h in hypotheses.items()},
    )


def main_set(sets: Sequence[str]) -> str:
    """Returns the set that a figure shows where there is space for one: the first test set or, without any, dev."""
    return (*sets[1:], *sets)[0]


def curve(members: Diversity) -> list[CurvePoint]:
    """Mean and range over the orders in which members join."""
    return [
        CurvePoint(
            members=k + 1,
            frame_accuracy=float(members.accuracy[:, k].mean()),
            range=(float(members.accuracy[:, k].min()), float(members.accuracy[:, k].max())),
            cross_entropy=float(members.cross_entropy[:, k].mean()),
        )
        for k in range(members.accuracy.shape[1])
    ]


def _last_epoch(log: list[dict[str, Any]], best_epoch: list[int]) -> LastEpoch | None:
    if not log or not all(key in log[-1] for key in ("train_accuracy", "dev_accuracy")):
        return None
    best = [log[epoch - 1]["dev_accuracy"][model] for model, epoch in enumerate(best_epoch) if 0 < epoch <= len(log)]
    return LastEpoch(
        train_accuracy=float(np.mean(log[-1]["train_accuracy"])),
        dev_accuracy=float(np.mean(log[-1]["dev_accuracy"])),
        best_dev_accuracy=float(np.mean(best or log[-1]["dev_accuracy"])),
    )
