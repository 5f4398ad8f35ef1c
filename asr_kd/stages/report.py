"""Stage 8: the whole run as one page, `exp/report/index.html`, with the same in Markdown and as `results.json`."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

import asr_kd
from asr_kd.evaluation.wer import kind
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.report import prose
from asr_kd.report import style as look
from asr_kd.report.collect import Evidence, gather, inputs
from asr_kd.workspace.config import Config, to_mapping
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)

_FORM = 7  # of the page; raise it when templates or figures change, so that old reports are made anew
_SHOWN = 300  # differing utterances on the page; a large test set has thousands


@dataclass(frozen=True)
class ReportResult:
    """What the terminal gets, and where the rest is."""

    text: str
    path: Path
    made: bool

    def __str__(self) -> str:
        return f"{self.text}\n\n{self.path / 'index.html'}{'' if self.made else ' (already made)'}"


def report(config: Config, work: Workspace, mnist: dict[str, Any] | None = None) -> ReportResult:
    """Writes exp/report/, unless its stamp says that nothing has changed since it was made.

    Args:
      mnist: what the MNIST experiments measured, for a section of their own (`asr_kd.mnist.stage.sanity`).

    Raises:
      UserError: a stage before is missing (it is named), or what it left is damaged or out of date.
    """
    path = work.exp("report")
    settings = {"config": to_mapping(config), "form": _FORM, "mnist": mnist}
    stamp = Stamp("report", settings, inputs(config, work), config.seed)
    reason = stale_reason(path, stamp)
    if reason is None and (path / "results.json").exists():
        results = json.loads((path / "results.json").read_text(encoding="utf-8"))
        return ReportResult(prose.headline_table(results), path, False)
    log.info("making the report: %s", reason or "a file of it is gone")
    evidence = gather(config, work)
    if mnist is not None:
        evidence.results["mnist"] = mnist
    figures = draw(evidence)
    with replacing_folder(path, stamp) as temporary:
        text = json.dumps(evidence.results, indent=1, ensure_ascii=False, allow_nan=False)
        (temporary / "results.json").write_text(text + "\n", encoding="utf-8")
        for name, svg in figures.items():
            (temporary / f"{name}.svg").write_text(svg, encoding="utf-8")
        for template, name in (("report.html.j2", "index.html"), ("report.md.j2", "report.md")):
            page = render(template, evidence, figures, config, work)
            (temporary / name).write_text(page, encoding="utf-8")
    return ReportResult(prose.headline_table(evidence.results), path, True)


def draw(evidence: Evidence) -> dict[str, str]:
    """Name -> SVG of every figure; the soft targets are missing where the dev set has no labelled frame."""
    from asr_kd.report import confusions_figure, plots  # here: loading takes long, a finished report needs none

    results = evidence.results
    rows, unit = prose.rows_of(results), results["unit"]
    figures = {
        "wer": plots.error_rates(rows, unit),
        "size": plots.size_and_errors(rows, unit),
        "rtf": plots.speed(rows),
        "training-curves": plots.training_curves(evidence.logs),
        "members": plots.members(results["members_curve"], results["disagreement"]["test"], rows),
    }
    if unit == "phone":
        figures["confusions"] = confusions_figure.draw(results["confusions"]["counts"])
    if evidence.example is not None:
        figures["soft-targets"] = plots.soft_targets(evidence.example, evidence.state_names[:-1])
    return figures


def render(template: str, evidence: Evidence, figures: dict[str, str], config: Config, work: Workspace) -> str:
    """One of the templates, filled. Everything that is not a figure drawn here is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("asr_kd.report", "templates"),
        autoescape=template.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": prose.percent,
        "count": prose.human_count,
        "size": look.human_bytes,
        "seconds": prose.human_seconds,
        "probability": prose.probability,
        "kind": kind,
        "points": lambda value: f"{100 * value:.1f}",
        "md": markdown_escaped,
        "plural": prose.plural,
    }
    results = evidence.results
    return environment.get_template(
        template
    ).render(
        results=results,
        unit=results["unit"],
        rate=prose.rate_name(results),
        trained_on=prose.labels(results),
        rows=prose.rows_of(results),
        groups=_groups(results),
        sentences=prose.sentences(results),
        small=prose.small_pair(results),
        monophone=prose.monophone_control(results),
        phones=prose.phones(results),
        notes=prose.notes(results),
        figures={name: Markup(svg) for name, svg in figures.items()},  # our own drawing: matplotlib escapes its text
        colour=look.colour,
        example=evidence.example,
        example_label=evidence.state_names[-1] if evidence.state_names else "",
        differences=evidence.differences[:_SHOWN],
        differing=_tally(evidence),
        settings=yaml.safe_dump(to_mapping(config), sort_keys=False, default_flow_style=None, width=100),
        commands=_commands(work),
        version=asr_kd.__version__,
    )


def markdown_escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, "\\" + character)
    return text


def _groups(results: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(heading, rows) of the headline table."""
    rows = results["systems"]
    groups = [
        (
            "The teachers, and one network trained in two ways",
            [r for r in rows if r["name"] in ("direct", "ensemble", "distilled")],
        ),
        ("A small network, trained in two ways", [r for r in rows if look.is_small(r["name"])]),
        ("The control, on untied states", [r for r in rows if r["name"] == "monophone"]),
    ]
    return [(heading, members) for heading, members in groups if members]


def _tally(evidence: Evidence) -> dict[str, int]:
    """How many of the utterances that direct and distilled hear differently went which way."""
    signs = [d.errors[1] - d.errors[0] for d in evidence.differences]
    return {
        "all": len(signs),
        "better": sum(s < 0 for s in signs),
        "worse": sum(s > 0 for s in signs),
        "even": signs.count(0),
    }


def _commands(work: Workspace) -> list[str]:
    """What made this report from what was there, and what makes all of it where the recipe has a run.sh."""
    config, root = shown(work.config_path), shown(work.root)
    recipe = work.config_path.parent.parent
    where = f"--config {config}" if recipe.resolve() == work.root.resolve() else f"--config {config} --work-dir {root}"
    everything = [f"{shown(recipe / 'run.sh')} {where}"] if (recipe / "run.sh").exists() else []
    return [*everything, f"asr-kd report {where}"]


def shown(path: Path) -> str:
    """Relative to the current folder where it lies inside: a report is the same in another checkout."""
    whole, here = path.absolute(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(path)
