"""Stage 8: the whole run as one page, `exp/report/index.html`, with the same in Markdown and as `results.json`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from asr_kd.errors import UserError
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.io.yaml_files import dump_yaml
from asr_kd.report.collect import Evidence, collect
from asr_kd.report.mnist_results import MnistResults
from asr_kd.report.page import Origin, picture, render, terminal_text
from asr_kd.report.provenance import inputs
from asr_kd.report.results_file import as_json, read_mnist, read_results
from asr_kd.report.style import as_image
from asr_kd.settings import to_mapping
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)

_VERSION = 20  # of the page; raise it when templates or figures change, so that old reports are made again


@dataclass(frozen=True)
class ReportResult:
    """What the terminal gets, and where the rest is."""

    text: str
    path: Path
    ran: bool

    def __str__(self) -> str:
        return f"{self.text}\n\n{self.path / 'index.html'}{'' if self.ran else ' (up to date)'}"


def report(config: Config, work: Workspace, mnist: MnistResults | None = None) -> ReportResult:
    """Writes exp/report/, unless its stamp says that nothing has changed since it was made.

    Args:
      mnist: what the MNIST experiments measured, for a section of their own.

    Raises:
      UserError: a stage before is missing (it is named), or what it left is damaged or out of date.
    """
    if not config.systems:
        raise UserError(f"{work.config_path} has no systems to report on; name some under systems:, and train them.")
    path = work.exp("report")
    # the whole config: it is on the page
    settings = {"config": to_mapping(config), "mnist": mnist}
    stamp = Stamp("report", settings, inputs(config, work), config.seed, _VERSION)
    reason = stale_reason(path, stamp)
    if reason is None and (path / "results.json").exists():
        return ReportResult(terminal_text(read_results(path / "results.json")), path, False)
    log.info("making the report: %s", reason or "one of its files is missing")
    evidence = collect(config, work)
    evidence = replace(evidence, results=replace(evidence.results, mnist=mnist))
    figures = draw(evidence)
    origin = Origin(dump_yaml(to_mapping(config), default_flow_style=None, width=100), _commands(work))
    with replacing_folder(path, stamp) as temporary:
        (temporary / "results.json").write_text(as_json(evidence.results), encoding="utf-8")
        for name, svg in figures.items():
            (temporary / f"{name}.svg").write_text(as_image(svg), encoding="utf-8")
        for template, name in (("report.html.j2", "index.html"), ("report.md.j2", "report.md")):
            (temporary / name).write_text(render(template, evidence, figures, origin), encoding="utf-8")
    return ReportResult(terminal_text(evidence.results), path, True)


def mnist_of(folder: Path | None) -> MnistResults | None:
    """What recipes/mnist measured, or why there is nothing; None where no folder is given."""
    if folder is None:
        return None
    if not (folder / "section.json").exists():
        return MnistResults(missing=f"{folder} has no section.json (recipes/mnist/run.sh writes it)")
    return read_mnist(folder)


def draw(evidence: Evidence) -> dict[str, str]:
    """Name -> SVG of every figure that the run has the data for."""
    from asr_kd.report import plots, worth_figure  # matplotlib loads slowly; a finished report needs none

    results = evidence.results
    figures = {
        "size": plots.size_and_errors(results),
        "rtf": plots.speed(results),
        "training-curves": plots.training_curves(results, evidence.logs),
    }
    for name in results.test_sets:
        figures["wer" if name == results.main_set else f"wer-{name}"] = plots.error_rates(results, name)
    if results.has_per:
        figures["size-per"] = plots.size_and_errors(results, phones=True)
        for name in results.test_sets:
            figure = "per" if name == results.main_set else f"per-{name}"
            figures[figure] = plots.error_rates(results, name, phones=True)
    if results.all_comparisons:
        figures["worth"] = worth_figure.draw(results, picture(results))
    if results.ensemble is not None:
        figures["members"] = plots.members(results)
    if results.confusions is not None:
        figures["confusions"] = plots.confusions(results.confusions.counts)
    if evidence.example is not None:
        figures["soft-targets"] = plots.soft_targets(evidence.example, evidence.senone_names[:-1])
    return figures


def _commands(work: Workspace) -> list[str]:
    """What made this report, and what makes all of it where the recipe has a run.sh."""
    config, root = _shown(work.config_path), _shown(work.root)
    recipe = work.config_path.parent.parent
    where = f"--config {config}" if recipe.resolve() == work.root.resolve() else f"--config {config} --work-dir {root}"
    everything = [f"{_shown(recipe / 'run.sh')} {where}"] if (recipe / "run.sh").exists() else []
    return [*everything, f"asr-kd report {where}"]


def _shown(path: Path) -> str:
    """Returns a path relative to the current folder where it lies inside: a report is the same in another checkout."""
    absolute, current = path.absolute(), Path.cwd()
    return str(absolute.relative_to(current)) if absolute.is_relative_to(current) else str(path)
