"""Runs the experiments that the config names; the result of each is written as soon as it is done."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.errors import UserError
from asr_kd.io.files import replacing_file
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp, read_stamp, stale_reason
from digits.config import EXPERIMENTS, MnistConfig
from digits.data import SUMS

log = logging.getLogger("asr_kd.mnist")

SECTION = "section.json"  # what `asr-kd report --mnist` reads
_VERSION = 4  # of the results; raise it when an experiment measures something else


@dataclass(frozen=True)
class MnistResult:
    """What was run, and what the report is made from."""

    ran: bool
    results: dict[str, Any]  # experiment -> its result with the "seconds" it took

    def __str__(self) -> str:
        return "\n".join(f"{name:<13} {summary(name, result)}" for name, result in self.results.items())


def run(
    config: MnistConfig, root: Path, mnist: Path, only: Sequence[str] = (), *, device: str = "auto", quiet: bool = False
) -> MnistResult:
    """Runs what is not there yet; nets that experiments share are trained once.

    Args:
      root: gets nets/, results/ and the section of a speech report.
      mnist: the folder with the four files.
      only: experiments to run, instead of the config's.
    """
    for name in only:
        if name not in EXPERIMENTS:
            raise UserError(f"there is no experiment {name!r}; known: {', '.join(EXPERIMENTS)}.")
    lab = None
    results, ran = {}, False
    for name in only or config.experiments:
        stamp = _stamp(config, name)
        folder = root / "results" / name
        reason = stale_reason(folder, stamp)
        if reason is not None:
            log.info("experiment %s: %s", name, reason)
            from digits.experiments import (
                RUN,
            )  # here: torch takes long to load, and finished experiments do not need it
            from digits.lab import Lab

            started = time.monotonic()
            lab = lab or Lab(config, root, mnist, device, quiet)
            result = RUN[name](lab)
            seconds = round(time.monotonic() - started, 1)
            with replacing_folder(folder, stamp) as temporary:
                (temporary / "result.json").write_text(json.dumps(result | {"seconds": seconds}) + "\n", "utf-8")
            ran = True
        results[name] = read_result(root, name)
    with replacing_file(root / SECTION) as temporary:
        temporary.write_text(json.dumps(section(root), indent=1) + "\n", "utf-8")
    return MnistResult(ran, results)


# what each experiment's result depends on, beside the seeds and the images: sections of the config
_SECTIONS = {
    "teacher": ("teacher",),
    "hard": ("small", "hard"),
    "distilled": ("teacher", "small", "distilled"),
    "shifted": ("teacher", "small", "shifted"),
    "no3s": ("teacher", "small", "biased"),
    "only7s8s": ("teacher", "small", "biased"),
    "temperatures": ("teacher", "small", "distilled", "temperatures"),
    "logits": ("teacher", "small", "distilled", "logits"),
    "ensembles": ("teacher", "small", "distilled", "ensembles"),
    "few": ("teacher", "small", "distilled", "few"),
    "knowledge": ("teacher",),
}


def _stamp(config: MnistConfig, name: str) -> Stamp:
    settings = {key: getattr(config, key) for key in (*_SECTIONS[name], "seeds", "held_out")}
    return Stamp("mnist results", settings | {"experiment": name}, SUMS, config.seed, version=_VERSION)


def read_result(root: Path, name: str) -> dict[str, Any]:
    """What an experiment measured."""
    file = root / "results" / name / "result.json"
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{file} is missing or damaged; delete {file.parent} and run the recipe again.") from None
    return result


def known_results(root: Path, config: MnistConfig | None = None) -> dict[str, dict[str, Any]]:
    """Every experiment that was run, in the paper's order; with `config` only those that were run with its settings."""
    results = {}
    for name in EXPERIMENTS:
        stamp = read_stamp(root / "results" / name)
        if stamp is not None and (config is None or stamp["digest"] == _stamp(config, name).digest):
            results[name] = read_result(root, name)
    return results


def section(root: Path) -> dict[str, Any]:
    """The few numbers that a speech report shows: mean errors; or {"missing": reason} without these experiments.

    The form is that of `asr_kd.report.results.MnistResults`.
    """
    results = known_results(root)
    missing = [name for name in ("teacher", "hard", "distilled") if name not in results]
    if missing:
        return {"missing": f"the experiment {missing[0]!r} was not run (recipes/mnist/run.sh runs it)"}
    numbers: dict[str, Any] = {name: _mean(results[name]["errors"]) for name in ("teacher", "hard", "distilled")}
    numbers["seeds"] = len(results["distilled"]["errors"])
    if "no3s" in results:
        threes = results["no3s"]["scored_of_digits"]
        after = results["no3s"]["one_offset"]
        numbers["no3"] = {
            "before": _mean(results["no3s"]["before"]["errors"]),
            "after": _mean(after["errors"]),
            "threes_right": 1 - _mean(after["of_digits"]) / threes,
        }
    return numbers


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def spread(errors: Sequence[float]) -> str:
    """Mean, and the seeds' standard deviation where there are several."""
    mean = _mean(errors)
    if len(errors) == 1:
        return f"{mean:.0f}"
    deviation = (sum((e - mean) ** 2 for e in errors) / (len(errors) - 1)) ** 0.5
    return f"{mean:.1f} ± {deviation:.1f}"


def summary(name: str, result: dict[str, Any]) -> str:
    """One line for the terminal."""
    if "errors" in result:
        text = f"{spread(result['errors'])} errors"
        if "averaged_over_shifts" in result:
            text += f"; averaged over {result['shifts']} shifts {spread(result['averaged_over_shifts'])}"
        return text + (f"; ensemble {result['ensemble']}" if "ensemble" in result else "")
    if "before" in result:
        parts = [
            f"{kind.replace('_', ' ')} {spread(result[kind]['errors'])} ({spread(result[kind]['of_digits'])} of "
            f"{'s and '.join(map(str, result['digits']))}s)"
            for kind in ("before", "one_offset", "all_offsets", "from_targets", "tuned_on_test")
        ]
        return "; ".join(parts)
    if name == "few":
        return "; ".join(
            f"{row['targets']}{' stopped' if row['stopped'] else ''} {spread(row['errors'])}" for row in result["rows"]
        )
    if "rows" in result:
        return "; ".join(
            " ".join(f"{key} {row[key]:g}" for key in ("width", "temperature", "teachers") if key in row)
            + f"{'' if row.get('loss') != 'logits' else 'logits'}: {spread(row['errors'])}"
            for row in result["rows"]
        )
    return f"{len(result['examples'])} images"
