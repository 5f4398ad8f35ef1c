"""The MNIST experiments beside the paper's numbers: index.html, report.md and the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

import asr_kd
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.settings import to_mapping
from digits.config import MnistConfig
from digits.results import spread, summary

_VERSION = 5  # of the page; raise it when templates or figures change

Row = tuple[str, str, str]  # what, errors here, errors in the paper


def write_report(config: MnistConfig, root: Path, results: dict[str, dict[str, Any]], commands: list[str]) -> Path:
    """Writes `root`/report, unless its stamp says that nothing has changed; returns the folder."""
    folder = root / "report"
    stamp = Stamp("mnist report", {"results": results, "commands": commands}, {}, config.seed, version=_VERSION)
    if stale_reason(folder, stamp) is None:
        return folder
    from digits.figures import draw  # here: matplotlib takes long to load, and a finished report does not need it

    figures = draw(results)
    with replacing_folder(folder, stamp) as temporary:
        (temporary / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        for name, svg in figures.items():
            (temporary / f"{name}.svg").write_text(svg, encoding="utf-8")
        for template, name in (("mnist.html.j2", "index.html"), ("mnist.md.j2", "report.md")):
            page = _environment(template).get_template(template).render(
                rows=table(results),
                scored=f"{config.held_out:,} held-out training images" if config.held_out else "10,000 test images",
                results=results,
                lines={name: summary(name, result) for name, result in results.items()},
                figures={name: Markup(svg) for name, svg in figures.items()},
                settings=yaml.safe_dump(to_mapping(config), sort_keys=False, default_flow_style=None, width=100),
                commands=commands,
                seeds=config.seeds,
                version=asr_kd.__version__,
            )  # fmt: skip
            (temporary / name).write_text(page, encoding="utf-8")
    return folder


def _environment(template: str) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
                jinja2.PackageLoader("asr_kd.report", "templates"),
            ]
        ),
        autoescape=template.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def table(results: dict[str, dict[str, Any]]) -> list[Row]:
    """Errors here, as mean and standard deviation over seeds, beside the paper's (section 3)."""
    rows: list[Row] = []

    def add(experiment: str, what: str, paper: str, *keys: str) -> None:
        value: Any = results.get(experiment)
        for key in keys:
            value = value.get(key) if value is not None else None
        if value is not None:
            rows.append((what, spread(value if isinstance(value, list) else [value]), paper))

    add("teacher", "teacher", "67", "errors")
    add("teacher", "teacher, its answer averaged over shifts", "–", "averaged_over_shifts")
    add("teacher", "teachers together", "–", "ensemble")
    add("hard", "small, on labels", "146", "errors")
    counts = {name: results.get(name, {}).get("teachers", 1) for name in ("distilled", "shifted")}
    paper = "74" if counts["distilled"] == 1 else "74 (from one)"
    add("distilled", f"small, distilled{_of(counts['distilled'])}, unshifted transfer set", paper, "errors")
    add("shifted", f"small, distilled{_of(counts['shifted'])}, shifted transfer set", "–", "errors")
    for row in results.get("ensembles", {}).get("rows", ()):
        if "distilled" not in results or row["teachers"] != counts["distilled"]:
            what = f"small, distilled{_of(row['teachers'])}, unshifted transfer set"
            rows.append((what, spread(row["errors"]), "74" if row["teachers"] == 1 else "–"))
    for experiment, digits, before, after in (
        ("no3s", "no 3s", "206 (133 on 3s)", "109 (14 on 3s)"),
        ("only7s8s", "only 7s and 8s", "4730", "1320"),
    ):
        for key, what, paper in (
            ("before", "before", before),
            ("one_offset", "one offset, no labels", "–"),
            ("all_offsets", "ten offsets, no labels", "–"),
            ("from_targets", "offsets from the targets alone", "–"),
            ("tuned_on_test", "one offset tuned on the scored images (the paper's way)", after),
        ):
            result = results.get(experiment)
            if result is not None:
                of_digits = f" ({spread(result[key]['of_digits'])} on {'s and '.join(map(str, result['digits']))}s)"
                rows.append((f"{digits}: {what}", spread(result[key]["errors"]) + of_digits, paper))
    return rows


def _of(teachers: int) -> str:
    return f" from {teachers} teachers" if teachers > 1 else " from one teacher"
