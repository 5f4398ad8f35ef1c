"""The experiments of section 3, each a function of the lab that returns plain data for the report.

Errors are counts over the 10,000 scored images, one per seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from asr_kd import FrameModel
from asr_kd.acoustic.training import read_log
from asr_kd.distillation.prior_correction import add_offsets, matching_offsets, offsets_from_targets, shared_offset
from digits.images import Images, Shift, errors, log_posteriors, tempered_mean
from digits.lab import Lab, Recipe, without

UNLABELLED = 10_000  # training images on which offsets are chosen; their labels are not looked at
KNOWLEDGE_TEMPERATURES = (1.0, 4.0, 20.0)

Result = dict[str, Any]


def teacher(lab: Lab) -> Result:
    """The large net: each member alone, each averaged over shifts of the image, and all together."""
    model, scored = lab.teacher(), Images(lab.scored, lab.device)
    result: Result = {"errors": lab.errors(model)}
    if lab.config.teacher.shift:
        shift = Shift(lab.config.teacher.shift)
        result["shifts"] = len(shift.every())
        result["averaged_over_shifts"] = [
            errors(tempered_mean(model.select_members([m]), scored, 1.0, shift)[None], scored.labels)[0]
            for m in range(model.members)
        ]
    if model.members > 1:
        result["ensemble"] = errors(tempered_mean(model, scored, 1.0)[None], scored.labels)[0]
    return result


def hard(lab: Lab) -> Result:
    """The small net on labels, without any regularisation."""
    return {"errors": lab.errors(lab.student("hard", lab.config.hard))}


def distilled(lab: Lab) -> Result:
    """The small net on the teacher's soft targets of the unshifted training images."""
    soft = lab.config.distilled
    model = lab.student("distilled", soft.training, Recipe(soft))
    return {"errors": lab.errors(model), "temperature": soft.temperature, "teachers": soft.teachers}


def shifted(lab: Lab) -> Result:
    """The same with a transfer set that is shifted as the teacher's training images were (beyond the paper)."""
    soft = lab.config.shifted
    model = lab.student("shifted", soft.training, Recipe(soft, shift=lab.config.teacher.shift))
    return {"errors": lab.errors(model), "temperature": soft.temperature, "teachers": soft.teachers}


def no3s(lab: Lab) -> Result:
    """A student that never saw a 3."""
    return _biased(lab, "no3s", without(lab.train.labels, [3]), [3])


def only7s8s(lab: Lab) -> Result:
    """A student that saw nothing but 7s and 8s."""
    return _biased(lab, "only7s8s", ~without(lab.train.labels, [7, 8]), [7, 8])


def temperatures(lab: Lab) -> Result:
    """Students of several widths at several temperatures; all else as for the distilled one."""
    sweep = lab.config.temperatures
    rows = []
    for width in sweep.widths:
        for temperature in sweep.temperatures:
            soft = replace(lab.config.distilled, temperature=temperature)
            model = lab.student(
                f"width{width}_t{temperature:g}",
                sweep.training,
                Recipe(soft),
                model=replace(lab.config.small, width=width),
            )
            rows.append({"width": width, "temperature": temperature, "errors": lab.errors(model)})
    return {"rows": rows}


def logits(lab: Lab) -> Result:
    """The squared error of logits, which high temperatures come to (section 2.1)."""
    settings = lab.config.logits
    rows: list[Result] = []
    reference = lab.student("logits", settings.training, Recipe(lab.config.distilled, loss="logits"))
    rows.append({"loss": "logits", "errors": lab.errors(reference)})
    matched = _centred(reference, lab)
    for temperature in settings.temperatures:
        soft = replace(lab.config.distilled, temperature=temperature)
        model = lab.student(f"logits_t{temperature:g}", settings.training, Recipe(soft))
        apart = float((_centred(model, lab) - matched).square().mean().sqrt())
        rows.append(
            {"loss": "kl", "temperature": temperature, "errors": lab.errors(model), "apart": apart}
        )  # of the logits, root mean square
    return {"rows": rows, "spread": float(matched.square().mean().sqrt())}


def ensembles(lab: Lab) -> Result:
    """Students of one teacher and of several."""
    rows = []
    for count in lab.config.ensembles.teachers:
        soft = replace(lab.config.distilled, teachers=count)
        name = "distilled" if soft == lab.config.distilled else f"of{count}"  # the net of that experiment
        model = lab.student(name, soft.training, Recipe(soft))
        rows.append({"teachers": count, "errors": lab.errors(model)})
    return {"rows": rows}


def few(lab: Lab) -> Result:
    """Few labels: hard against soft targets, each to the end and stopped where watched training images say."""
    rng = np.random.default_rng(lab.config.seed)
    order = rng.permutation(len(lab.train))
    chosen, watch = (np.zeros(len(lab.train), bool) for _ in range(2))
    chosen[order[: lab.config.few.images]] = True
    watch[order[-UNLABELLED:]] = True
    rows = []
    for name, soft in (("hard", None), ("soft", lab.config.distilled)):
        for stopped in (False, True):
            folder = f"few_{name}{'_stopped' if stopped else ''}"
            recipe = Recipe(soft, chosen=chosen, watch=watch if stopped else None)
            model = lab.student(folder, lab.config.few.training, recipe)
            row: Result = {"targets": name, "stopped": stopped, "errors": lab.errors(model)}
            if stopped:
                log = read_log(lab.root / "nets" / folder)
                row["train_accuracy"] = [float(np.mean(epoch["train_accuracy"])) for epoch in log]
                row["watched_accuracy"] = [float(np.mean(epoch["dev_accuracy"])) for epoch in log]
            rows.append(row)
    return {"images": int(chosen.sum()), "watched": int(watch.sum()), "rows": rows}


def knowledge(lab: Lab) -> Result:
    """Training images whose soft targets say most beside the label: at T = 1 nothing shows, at T = 20 much does."""
    model = lab.teacher(1)
    images = Images(lab.train, lab.device)
    answers = {t: tempered_mean(model, images, t).exp().numpy() for t in KNOWLEDGE_TEMPERATURES}
    sharp = answers[1.0]
    labels = lab.train.labels
    right = sharp.argmax(1) == labels
    rest = np.where(np.arange(10) == labels[:, None], 0, sharp)
    examples = []
    for label, other in ((2, 3), (2, 7), (4, 9), (7, 1), (3, 5), (9, 4)):
        # the image of `label`, rightly read, that looks most like `other`
        score = np.where(right & (labels == label) & (rest.argmax(1) == other), rest[:, other], -1)
        best = int(score.argmax())
        if score[best] > 0:
            examples.append(
                {"image": best, "label": label, "pixels": lab.train.images[best].tolist(),
                 "targets": {f"{t:g}": answers[t][best].tolist() for t in KNOWLEDGE_TEMPERATURES}}
            )  # fmt: skip
    return {"examples": examples}


RUN: dict[str, Callable[[Lab], Result]] = {
    function.__name__: function
    for function in (
        teacher, hard, distilled, shifted, no3s, only7s8s, temperatures, logits, ensembles, few, knowledge,
    )
}  # fmt: skip


def _biased(lab: Lab, name: str, chosen: np.ndarray, digits: Sequence[int]) -> Result:
    """A student of a transfer set with other proportions; its errors before and after each correction of biases."""
    soft, labels = lab.config.biased, lab.scored.labels
    model = lab.student(name, soft.training, Recipe(soft, chosen=chosen))
    scored = lab.log_posteriors(model).numpy()
    unlabelled = lab.train.where(np.random.default_rng(lab.config.seed).permutation(len(lab.train))[:UNLABELLED])
    outputs = log_posteriors(model, Images(unlabelled, lab.device)).numpy()
    priors = np.bincount(lab.train.labels, minlength=10) / len(lab.train)
    group = float(priors[list(digits)].sum())
    member = np.isin(np.arange(10), digits)
    mean_target = lab.soft_targets(soft)[torch.from_numpy(chosen)].exp().double().mean(0).numpy()
    kinds: dict[str, list[np.ndarray]] = {
        "before": [np.zeros(10) for _ in outputs],
        "one_offset": [member * shared_offset(seed, digits, group) for seed in outputs],
        "all_offsets": [matching_offsets(seed, priors) for seed in outputs],
        "from_targets": [offsets_from_targets(priors, mean_target, soft.temperature) for _ in outputs],
        "tuned_on_test": [member * _tuned(seed, digits, labels) for seed in scored],
    }
    seen = np.isin(labels, digits)
    result: Result = {"digits": list(digits), "scored_of_digits": int(seen.sum()), "unlabelled": UNLABELLED}
    for kind, offsets in kinds.items():
        decided = np.stack([add_offsets(p, o).argmax(-1) for p, o in zip(scored, offsets, strict=True)])
        wrong = decided != labels
        result[kind] = {
            "errors": wrong.sum(1).tolist(),
            "of_digits": wrong[:, seen].sum(1).tolist(),
            "offset": [float(o[digits[0]]) for o in offsets],
        }
    return result


def _tuned(log_posteriors: np.ndarray, digits: Sequence[int], labels: np.ndarray) -> float:
    """The paper's way: the offset with the fewest errors on the test set itself. Only ever reported as that."""
    grid = np.arange(-10, 40, 0.1)
    member = np.isin(np.arange(10), digits)
    wrong = [(add_offsets(log_posteriors, member * offset).argmax(-1) != labels).sum() for offset in grid]
    return float(grid[int(np.argmin(wrong))])


def _centred(model: FrameModel, lab: Lab) -> torch.Tensor:
    """(M, N, C) logits of zero mean on the scored images."""
    outputs = lab.log_posteriors(model)
    return outputs - outputs.mean(-1, keepdim=True)
