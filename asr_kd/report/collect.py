"""Everything that a run left in exp/ -> the results, in the form of `results.json`, and what the figures show.

Nothing here is trusted to be already counted: word errors are counted from the hypotheses, frame metrics from the
models, so that a number in the report is one number wherever it stands.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from asr_kd.acoustic.model import AcousticModel, load_model
from asr_kd.acoustic.training import read_log
from asr_kd.alignment.tree import Tree, read_tree
from asr_kd.errors import UserError
from asr_kd.evaluation.bootstrap import compare, ratio_interval
from asr_kd.evaluation.confusions import confusions
from asr_kd.evaluation.frame_intervals import accuracy_gains, accuracy_interval
from asr_kd.evaluation.frames import Diversity, ExampleFrame, FrameMetrics, diversity, example_frame, frame_metrics
from asr_kd.frames.store import FrameStore
from asr_kd.io.stamp import read_stamp
from asr_kd.report.hypotheses import Difference, Hypotheses, differences, read_hypotheses
from asr_kd.report.rescored import rescored_digests, rescored_rows
from asr_kd.stages.decode import SYSTEMS, System
from asr_kd.stages.decode_results import decoded_folder
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace, require

SETS = ("dev", "test")
FLAT_TEMPERATURE = 20.0  # of the figure: nearly uniform, as in the paper's MNIST experiments


@dataclass(frozen=True)
class Evidence:
    """What the report is written from."""

    results: dict[str, Any]  # the form of results.json
    logs: dict[str, list[dict[str, Any]]]  # system -> one row per epoch
    differences: list[Difference]  # utterances that direct and distilled (first seeds) hear differently, test
    example: ExampleFrame | None
    state_names: list[str]  # of the example's states, then of its label


def systems_of(config: Config) -> list[System]:
    """The systems that a run with this config has, in the order of the table."""
    left_out = set() if config.small is not None else {"direct-small", "distilled-small"}
    if not config.monophone:
        left_out.add("monophone")
    return [system for system in SYSTEMS if system.name not in left_out]


def inputs(config: Config, work: Workspace) -> dict[str, str]:
    """Digests of all that the report is made from.

    Raises:
      UserError: something is missing (the message names the command that makes it), or was made from what is no
        longer there.
    """
    found = {"data": require(work.data, work, "prepare")["digest"]}
    for name in SETS:
        found[f"{name} frames"] = require(work.frames(name), work, "features")["digest"]
    found["alignment"] = require(work.exp("align"), work, "align")["digest"]
    if (compared := read_stamp(work.exp("align_compare"))) is not None:
        found["compared"] = compared["digest"]
    teacher = require(work.exp("teacher"), work, "train --ensemble")["digest"]
    for system in systems_of(config):
        made = require(work.exp(system.folder), work, system.command)
        found[system.name] = model = made["digest"]
        if _is_taken(made) and made["inputs"]["teacher"] != teacher:
            raise UserError(
                f"{work.exp(system.folder)} was taken from another {work.exp('teacher')} than the one there now; "
                f"take it again: {work.command(system.command)}"
            )
        for name in SETS:
            folder = decoded_folder(work, system.name, name)
            stamp = require(folder, work, f"decode --system {system.name}")
            if model not in stamp["inputs"].values():
                raise UserError(
                    f"{folder} was decoded with another {work.exp(system.folder)} than the one there now ({model}); "
                    f"decode again: {work.command('decode')}"
                )
            found[f"{system.name} {name}"] = stamp["digest"]
    return found | rescored_digests(work, systems_of(config))


def gather(config: Config, work: Workspace) -> Evidence:
    """Counts and measures everything; takes as long as running each net over dev and test once.

    Raises:
      UserError: as `inputs`.
    """
    inputs(config, work)
    stores = {name: FrameStore.open(work.frames(name)) for name in SETS}
    systems = systems_of(config)
    models = {system.name: load_model(work.exp(system.folder)) for system in systems}
    hypotheses = {
        (s.name, name): read_hypotheses(decoded_folder(work, s.name, name), work) for s in systems for name in SETS
    }
    frames, curves = _measure(work, systems, models, stores)
    rows = {s.name: _system(config, work, s, models[s.name], frames, hypotheses) for s in systems}
    unit = hypotheses["direct", "test"].unit
    students = require(work.exp("student"), work, "distill")
    left_out = _left_out(work, hypotheses)
    results: dict[str, Any] = {
        "corpus": config.corpus.name,
        "unit": unit,  # of "wer": words, or phones
        "systems": list(rows.values()),
        "distillation": _distillation(config, work, students, rows, frames, hypotheses, ""),
        "alignment": _alignment(work, left_out),
        "seconds": _noted(work, "seconds.json"),
        "memory": _noted(work, "memory.json"),
        "members_curve": {name: _curve(curves[name]) for name in SETS},
        "disagreement": {name: curves[name].disagreement.tolist() for name in SETS},
        "soft_targets": (read_stamp(work.exp("soft_targets")) or {"metadata": {}})["metadata"],
        "data": _data(work),
        "rescored": rescored_rows(config, work, systems),
        "left_out": left_out,  # [{"stage", "utterance", "reason"}]
        "seed": config.seed,
    }
    if config.small is not None:
        small = require(work.exp("student_small"), work, "distill --pair small")
        results["distillation_small"] = _distillation(config, work, small, rows, frames, hypotheses, "-small")
    if unit == "phone":
        results |= _of_phones(config, work, systems, results["systems"])
    tree = read_tree(work.exp(require(work.exp("teacher"), work, "train")["metadata"]["tree"]))
    example = example_frame(
        models["ensemble"],
        stores["dev"],
        _states(work, "teacher", stores["dev"]),
        temperatures=sorted({1.0, results["distillation"]["temperature"], FLAT_TEMPERATURE}),
        mean=config.soft_targets.mean,
        silence=_silence(tree),
    )
    return Evidence(
        results,
        {s.name: read_log(work.exp(s.folder)) for s in systems},
        differences(hypotheses["direct", "test"], hypotheses["distilled", "test"]),
        example,
        [tree.name(state) for state in ([*example.states, example.label] if example else [])],
    )


def _measure(
    work: Workspace, systems: list[System], models: dict[str, AcousticModel], stores: dict[str, FrameStore]
) -> tuple[dict[tuple[str, str], FrameMetrics], dict[str, Diversity]]:
    """(system, set) -> its frames' metrics; set -> what the ensemble's members are worth together."""
    frames: dict[tuple[str, str], FrameMetrics] = {}
    curves: dict[str, Diversity] = {}
    # direct nets that are members of the ensemble run with it, not again
    taken = models["direct"].members if _is_taken(require(work.exp("baseline"), work, "train")) else 0
    for system in (system for system in systems if not (taken and system.name == "direct")):
        for name in SETS:
            scored = models[system.name], stores[name], _states(work, system.folder, stores[name])
            if system.name == "ensemble":
                frames[system.name, name], curves[name], of_direct = diversity(*scored, alone=taken)
                if of_direct is not None:
                    frames["direct", name] = of_direct
            else:
                frames[system.name, name] = frame_metrics(*scored)
    return frames, curves


def _data(work: Workspace) -> dict[str, Any]:
    metadata = require(work.data, work, "prepare")["metadata"]
    return {
        "sets": metadata.get("sets", {}),
        "not_speech": metadata.get("not_speech", []),
        "lm": metadata.get("lm", {}),
        "shared_speakers": metadata.get("shared_speakers", []),
        "guessed_pronunciations": len(metadata.get("guessed_pronunciations", {})),
    }


def _is_taken(made: dict[str, Any]) -> bool:
    """Whether the nets that have this stamp are members of the ensemble."""
    return bool(made["step"] == "take")


def _states(work: Workspace, folder: str, store: FrameStore) -> np.ndarray:
    return np.asarray(store.array(require(work.exp(folder), work, "train")["metadata"]["states"]))


def _system(
    config: Config,
    work: Workspace,
    system: System,
    model: AcousticModel,
    of_frames: dict[tuple[str, str], FrameMetrics],
    hypotheses: dict[tuple[str, str], Hypotheses],
) -> dict[str, Any]:
    """A system's row: each number is a mean over its seeds, word errors are their sum."""
    frames = {name: of_frames[system.name, name] for name in SETS}
    words = {name: hypotheses[system.name, name] for name in SETS}
    sizes = [(work.exp(system.folder) / f"member_{m}.safetensors").stat().st_size for m in range(model.members)]
    together = model.members if system.averaged else 1  # nets that run at once
    made = require(work.exp(system.folder), work, system.command)
    test = words["test"].summary
    return {
        "name": system.name,
        "members": together,
        "parameters": model.parameters_per_member * together,
        "bytes": sum(sizes[:together]),
        "frame_accuracy": {
            n: f.ensemble_accuracy if system.averaged else float(np.mean(f.accuracy)) for n, f in frames.items()
        },
        "frame_accuracy_ci95": {
            name: accuracy_interval(found, averaged=system.averaged, **_resampling(config))
            for name, found in frames.items()
        },
        "cross_entropy": {
            n: f.ensemble_cross_entropy if system.averaged else float(np.mean(f.cross_entropy))
            for n, f in frames.items()
        },
        **_rates(config, words),
        "rtf": test["rtf"],
        "seeds": 1 if system.averaged else model.members,
        "states": model.num_states,
        "each": {  # of every seed (ensemble: of every member alone)
            "frame_accuracy": {name: f.accuracy for name, f in frames.items()},
            "cross_entropy": {name: f.cross_entropy for name, f in frames.items()},
            "wer": {name: [counts.wer for counts in h.per_seed] for name, h in words.items()},
        },
        "of_ensemble": _is_taken(made),
        "best_epoch": made["metadata"].get("best_epoch", []),
        "scales": {key: test.get(key) for key in ("acoustic_scale", "word_penalty", "prior_scale", "search_beam")},
        "retried": {name: h.summary.get("retried", 0) for name, h in words.items()},
        "failed": {name: h.summary.get("failed", []) for name, h in words.items()},
        "oov": {
            name: {"words": h.summary.get("oov_words", 0), "rate": h.summary.get("oov_rate", 0.0)}
            for name, h in words.items()
        },
    }


def _resampling(config: Config) -> dict[str, int]:
    return {"samples": config.evaluation.bootstrap_samples, "seed": config.seed}


def _rates(config: Config, of_sets: dict[str, Hypotheses]) -> dict[str, Any]:
    """Of each set: the rate of errors over all seeds, its interval, and the errors."""
    intervals = {name: ratio_interval(h.errors, h.words, **_resampling(config)) for name, h in of_sets.items()}
    return {
        "wer": {name: h.total.wer for name, h in of_sets.items()},
        "wer_ci95": {name: [i.low, i.high] for name, i in intervals.items()},
        "errors": {name: h.total.as_dict() for name, h in of_sets.items()},
    }


def _of_phones(config: Config, work: Workspace, systems: list[System], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Puts the rates with silence counted into the rows; returns what else there is to say where phones are scored."""
    for system, row in zip(systems, rows, strict=True):
        folders = {name: decoded_folder(work, system.name, name) for name in SETS}
        found = {name: read_hypotheses(folder, work, with_silence=True) for name, folder in folders.items()}
        row["with_silence"] = _rates(config, found)
        if system.name == "distilled":
            confused = confusions(found["test"].alignments)
    return {
        "phones": {"trained": config.corpus.phone_set, "scored": config.corpus.scored_phones},
        "confusions": {"system": "distilled", "set": "test", "with_silence": True, "counts": confused},
    }


def _distillation(
    config: Config,
    work: Workspace,
    student: dict[str, Any],
    rows: dict[str, dict[str, Any]],
    frames: dict[tuple[str, str], FrameMetrics],
    hypotheses: dict[tuple[str, str], Hypotheses],
    suffix: str,
) -> dict[str, Any]:
    """What distilling was worth to one pair of models; the settings are those that the student was made with."""
    direct, distilled, ensemble = rows[f"direct{suffix}"], rows[f"distilled{suffix}"], rows["ensemble"]
    a, b = hypotheses[f"direct{suffix}", "test"], hypotheses[f"distilled{suffix}", "test"]
    if a.ids != b.ids:
        raise UserError(
            f"{a.folder} and {b.folder} do not hold the same utterances; decode again: {work.command('decode')}"
        )
    paired = compare(a.errors, b.errors, a.words, **_resampling(config))
    made_with = student["settings"].get("distilled", {})
    store = read_stamp(work.exp("soft_targets"))
    targets = store["settings"] if store is not None else {}

    def kept(metric: str, name: str) -> float | None:
        gain = ensemble[metric][name] - direct[metric][name]
        better = gain > 0 if metric == "frame_accuracy" else gain < 0
        return (distilled[metric][name] - direct[metric][name]) / gain if better else None

    return {
        "temperature": targets.get("temperature", config.soft_targets.temperature),
        "soft_weight": made_with.get("soft_weight", config.student.distilled.soft_weight),
        # null where the ensemble is no better than the direct model: there is no gain of which a share could be kept
        "gain_kept": {
            "frame_accuracy": kept("frame_accuracy", "test"),
            "frame_accuracy_dev": kept("frame_accuracy", "dev"),
            "cross_entropy": kept("cross_entropy", "test"),
            "wer": kept("wer", "test"),
        },
        "p_distilled_better": paired.probability_better,
        "seeds": distilled["seeds"],
        "wer_difference": {
            "test": paired.difference.value,
            "ci95": [paired.difference.low, paired.difference.high],
        },
        "frame_difference": accuracy_gains(  # from the direct model's
            frames[f"direct{suffix}", "test"],
            {
                "ensemble": (frames["ensemble", "test"], True),
                "distilled": (frames[f"distilled{suffix}", "test"], False),
            },
            **_resampling(config),
        ),
        "mean": targets.get("mean", config.soft_targets.mean),
        "out_of_fold": targets.get("out_of_fold", config.soft_targets.out_of_fold),
        "loss": made_with.get("loss", config.student.distilled.loss),
    }


def _curve(found: Diversity) -> list[dict[str, Any]]:
    return [
        {
            "members": k + 1,
            "frame_accuracy": float(found.accuracy[:, k].mean()),
            "range": [float(found.accuracy[:, k].min()), float(found.accuracy[:, k].max())],
            "cross_entropy": float(found.cross_entropy[:, k].mean()),
        }
        for k in range(found.accuracy.shape[1])
    ]


def _silence(tree: Tree) -> frozenset[int]:
    """Tied states of the first phone, SIL."""
    return frozenset(np.unique(tree.tables[0]).tolist())


def _alignment(work: Workspace, left_out: list[dict[str, str]]) -> dict[str, Any]:
    stamp = require(work.exp("align"), work, "align")
    metadata = stamp["metadata"]
    failed = [bad["utterance"] for bad in left_out if bad["stage"] == "align"]
    labels = stamp["settings"].get("labels", "own")
    return {"utterances": int(metadata.get("utterances", 0)), "failed": failed, "labels": labels} | _boundaries(work)


def _boundaries(work: Workspace) -> dict[str, Any]:
    """What `asr-kd align --compare` found, where it was run on the alignment that is there now."""
    folder = work.exp("align_compare")
    stamp = read_stamp(folder)
    if stamp is None or stamp["inputs"].get("align") != require(work.exp("align"), work, "align")["digest"]:
        return {}
    found = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    return {"boundaries": found["phones"], "words": found["words"], "compared": found["utterances"]}


def _left_out(work: Workspace, hypotheses: dict[tuple[str, str], Hypotheses]) -> list[dict[str, str]]:
    """Every utterance that some stage could not use, and why."""
    rows = [
        {"stage": "prepare", "utterance": bad["utterance"], "reason": bad["reason"]}
        for bad in require(work.data, work, "prepare")["metadata"].get("left_out", [])
    ]
    for bad in require(work.exp("align"), work, "align")["metadata"].get("failed", []):
        name, reason = (bad, "failed to align") if isinstance(bad, str) else (bad["utterance"], bad["reason"])
        rows.append({"stage": "align", "utterance": name, "reason": reason})
    for (system, _), found in hypotheses.items():
        reason = f"{system}: no path found, counted as deletions"
        rows += [{"stage": "decode", "utterance": name, "reason": reason} for name in found.summary.get("failed", [])]
    return rows


def _noted(work: Workspace, name: str) -> dict[str, float]:
    """What the commands noted of each stage; a stage that was run by other means is not in it."""
    path = work.exp(name)
    if not path.exists():
        return {}
    try:
        return {stage: float(number) for stage, number in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{path}: this file is damaged; delete it and make the report again.") from None
