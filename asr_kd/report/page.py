"""The report's text: its templates, filled with the results."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2.environment import TemplateModule
from markupsafe import Markup

from asr_kd.evaluation.wer import Pair, kind, most_confused
from asr_kd.io.formatting import human_bytes, human_count, human_seconds, isolated, percent, plural, signed, text_table
from asr_kd.report.collect import Evidence
from asr_kd.report.results import Results, SystemRow
from asr_kd.report.style import looks
from asr_kd.report.worth import (
    by_worth,
    error_metrics,
    pairs,
    smaller_as_good,
    with_many_unknown,
    with_one_seed,
)

_DIFFERENCES = 300  # shown on the page; a large test set has thousands


@dataclass(frozen=True)
class Origin:
    """What made a report."""

    settings: str  # YAML
    commands: list[str]


def render(template: str, evidence: Evidence, figures: Mapping[str, str], origin: Origin) -> str:
    """One of the templates, filled. Everything that is not a figure drawn here is escaped."""
    changes = [difference.change for difference in evidence.differences]
    environment = _environment(escaped=template.endswith(".html.j2"))
    return environment.get_template(template).render(
        results=evidence.results,
        figures={name: Markup(svg) for name, svg in figures.items()},  # our own drawing: matplotlib escapes its text
        look=looks(evidence.results),
        example=evidence.example,
        example_label=evidence.senone_names[-1] if evidence.senone_names else "",
        differences=evidence.differences[:_DIFFERENCES],
        differing={
            "all": len(changes),
            "better": sum(change < 0 for change in changes),
            "worse": sum(change > 0 for change in changes),
            "even": changes.count(0),
        },
        origin=origin,
    )  # fmt: skip


def terminal_text(results: Results) -> str:
    """The headline tables in aligned columns with the shares of the gain kept."""
    return _environment(escaped=False).get_template("terminal.txt.j2").render(results=results).rstrip("\n")


def sentences(results: Results) -> TemplateModule:
    """The macros of sentences.j2, for these results, as plain text."""
    return _environment(escaped=False).get_template("sentences.j2").make_module({"results": results})


def headline(results: Results) -> TemplateModule:
    """The lines and macros of headline.j2, likewise."""
    return _environment(escaped=False).get_template("headline.j2").make_module({"results": results})


def captions(results: Results) -> TemplateModule:
    """The macros of captions.j2, likewise."""
    return _environment(escaped=False).get_template("captions.j2").make_module({"results": results})


def picture(results: Results) -> str:
    """What the first figure shows, for who cannot see it."""
    said: Any = sentences(results)
    return str(said.picture())


@functools.cache  # it keeps its templates compiled, which takes longer than to fill them
def _environment(*, escaped: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("asr_kd.report", "templates"),
        autoescape=escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "count": human_count,
        "size": lambda number: human_bytes(number, ".3g"),
        "seconds": human_seconds,
        "probability": _probability,
        "kind": kind,
        "points": lambda value, digits=1: signed(100 * value, digits, plus=False),
        "signed_points": lambda value, digits=2: signed(100 * value, digits),
        "plural": plural,
        "average": lambda values: sum(values) / len(values),
        "line": _line,
        "direction": direction,
        "isolated": isolated,
        "md": markdown_escaped,
    }
    environment.globals |= {"most_confused": most_confused, "text_table": text_table}
    environment.globals |= {f.__name__: f for f in (pairs, by_worth, smaller_as_good, error_metrics, rates)}
    environment.globals |= {f.__name__: f for f in (with_one_seed, with_many_unknown)}
    return environment


def rates(row: SystemRow, phones: bool) -> Mapping[str, float]:
    """A system's error rate by set: of words (or what else was searched), or of the phones decoded beside them."""
    return row.per if phones and row.per is not None else row.wer


def _probability(value: float, form: str = "") -> str:
    """Two digits, but never a certainty that a finite number of resamples cannot give: "> 0.99", or "above 0.99"."""
    above, below = ("above", "below") if form == "in words" else (">", "<")
    if value > 0.995:
        return f"{above}\N{NO-BREAK SPACE}0.99"
    return f"{below}\N{NO-BREAK SPACE}0.01" if value < 0.005 else f"{value:.2f}"


def direction(pairs: Sequence[Pair]) -> str:
    """How an utterance is written: "rtl" where most letters of its reference are of a script from right to left."""
    kinds = [unicodedata.bidirectional(letter) for reference, _ in pairs for letter in reference or ""]
    return "rtl" if kinds.count("R") + kinds.count("AL") > kinds.count("L") else "ltr"


def _line(text: str) -> str:
    """A template's lines as one; no-break spaces stay."""
    joined = re.sub(r"[ \n\t]+", " ", str(text)).strip(" ").replace(" ,", ",")
    return Markup(joined) if isinstance(text, Markup) else joined


def markdown_escaped(text: Any) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", str(text))
