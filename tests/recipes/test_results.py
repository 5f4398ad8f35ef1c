"""The tables of README and RESULTS.md have the numbers of the results.json that the command beside them wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
METRICS = {
    "frame accuracy": "frame_accuracy",
    "cross-entropy": "cross_entropy",
    "WER": "wer",
    "PER": "per",
    "CER": "cer",
}
SETS = ("dev", "test")
# document, its section, results; what rows call a comparison -> its distilled system
DOCUMENTS = [
    (
        "librispeech/RESULTS.md",
        "What distilling was worth",
        "mini",
        {"3 x 384": "distilled", "small": "distilled-small"},
    ),
    ("librispeech/RESULTS.md", "Untranscribed speech", "semi10", {}),
    ("timit/RESULTS.md", "Phone times by hand", "phones48", {}),
    ("timit/RESULTS.md", "The order of the phones", "phones48_own", {}),
    ("timit/RESULTS.md", "The words", "phones48_words", {}),
    ("prompts/RESULTS.md", "Results", "demo", {"distilled": "distilled", "distilled-small": "distilled-small"}),
    (
        "prompts/RESULTS.md",
        "French, from letters",
        "fr",
        {"distilled": "distilled", "distilled-small": "distilled-small"},
    ),
    (
        "prompts/RESULTS.md",
        "Spanish, from letters",
        "es",
        {"distilled": "distilled", "distilled-small": "distilled-small"},
    ),
]


def section(document: Path, title: str) -> str:
    (text,) = re.findall(
        rf"^#+ {re.escape(title)}$\n(.*?)(?=^#+ |\Z)", document.read_text(encoding="utf-8"), re.M | re.S
    )
    return str(text).replace("\xa0", " ")


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Header and rows of each."""
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        header, _, *rows = (
            [cell.strip().replace("**", "") for cell in line.strip("|").split("|")] for line in table.splitlines()
        )
        yield header, rows


def columns(header: list[str]) -> Iterator[tuple[int, str, str, bool]]:
    """Number, metric, set, and whether it is an interval's, of the columns that results.json knows."""
    metric, part = "", header[0] if header[0] in SETS else "test"
    for number, cell in enumerate(header[1:], start=1):
        name = next((name for name in METRICS if cell == name or cell in {f"{name} {part}" for part in SETS}), "")
        if name:
            metric = METRICS[name]
        if cell.rpartition(" ")[2] in SETS:
            part = cell.rpartition(" ")[2]
        if name or cell in SETS or (cell == "95 % interval" and metric):
            yield number, metric, part, cell == "95 % interval"


def shown(metric: str, value: float) -> str:
    return f"{value:.3f}" if metric == "cross_entropy" else f"{100 * value:.1f} %"


def interval(ci95: list[float]) -> str:
    return " – ".join(f"{100 * end:.1f}" for end in ci95)


def points(difference: dict[str, Any]) -> str:
    low, high = (f"{100 * end:.1f}" for end in difference["ci95"])
    return f"{100 * difference['value']:+.1f} ({low} to {high})"


@pytest.mark.parametrize(("document", "title", "results", "_compared"), DOCUMENTS)
def test_tables_of_systems_are_those_of_the_run(
    document: str, title: str, results: str, _compared: dict[str, str]
) -> None:
    path = RECIPES / document
    written = json.loads((path.parent / "results" / f"{results}.json").read_text())
    systems = {system["name"]: system for system in written["systems"]}
    seen = set()
    for header, rows in tables(section(path, title)):
        if "minus" in header[0]:
            continue
        for row in rows:
            system = systems.get(row[0].partition(",")[0])
            for number, metric, part, is_interval in columns(header) if system is not None else ():
                if written["unit"] == "phone":  # the rate of the units that were searched
                    metric = metric.replace("per", "wer")
                values = system
                if metric == "cer":
                    values, metric = system["characters"], "wer"
                value = values[f"{metric}_ci95" if is_interval else metric][part]
                cell = re.sub(r" \(.* each\)", "", row[number])
                cell = cell.strip("()") if "monophone" in row[0] else cell
                assert cell == (interval(value) if is_interval else shown(metric, value)), (row[0], metric, part)
                seen.add((system["name"], metric, part))
    rates = ["wer", "per"] if "per" in written["systems"][0] else ["wer"]
    assert {(name, metric, "test") for name in systems for metric in (*rates, "frame_accuracy")} <= seen


@pytest.mark.parametrize(
    ("document", "title", "results", "compared"), [pytest.param(*values) for values in DOCUMENTS if values[3]]
)
def test_differences_are_those_of_the_run(document: str, title: str, results: str, compared: dict[str, str]) -> None:
    path = RECIPES / document
    written = json.loads((path.parent / "results" / f"{results}.json").read_text())
    entries = [written["distillation"], *written["comparisons"]]
    comparisons = {entry["distilled"]: entry["sets"]["test"]["metrics"] for entry in entries}
    ((header, rows),) = (table for table in tables(section(path, title)) if "minus" in table[0][0])
    assert [row[0] for row in rows] == list(compared)
    for row in rows:
        metrics = comparisons[compared[row[0]]]
        for name in {"frame accuracy", "WER", "PER"} & {*header}:
            assert row[header.index(name)] == points(metrics[METRICS[name]]["difference"])


def test_the_first_table_of_the_readme_is_that_of_the_librispeech_run() -> None:
    written = json.loads((RECIPES / "librispeech" / "results" / "mini.json").read_text())
    header, rows = next(tables((ROOT / "README.md").read_text(encoding="utf-8")))
    *rows, of_another = rows
    assert len(rows) == len(written["systems"]) == 5 and "pocketsphinx" in of_another[0]
    for system, row in zip(sorted(written["systems"], key=lambda s: row_of(s["name"])), rows, strict=True):
        said = dict(zip(header, row, strict=True))
        assert said["net, MB"] == f"{system['bytes'] / 1e6:.2f}"
        for name in ("WER", "PER"):
            metric = METRICS[name]
            expected = f"{shown(metric, system[metric]['test'])} ({interval(system[f'{metric}_ci95']['test'])})"
            assert said[f"{name}, 95 % interval"] == expected


ROWS = ["teacher", "direct", "distilled", "direct-small", "distilled-small"]


def row_of(name: str) -> int:
    return ROWS.index(name)


def test_the_first_table_of_the_readme_has_sizes_speed_and_latency_as_shipped() -> None:
    header, rows = next(tables((ROOT / "README.md").read_text(encoding="utf-8")))
    shipped_header, shipped = next(tables(section(RECIPES / "librispeech" / "RESULTS.md", "As shipped")))
    of_mean = {(row[0], row[1]): dict(zip(shipped_header, row, strict=True)) for row in shipped}
    for name, row in zip([*ROWS, "pocketsphinx 5.1.1"], rows, strict=True):
        said = dict(zip(header, row, strict=True))
        recording = of_mean.get((name, "recording")) or of_mean[name, "its own"]
        stream = of_mean.get((name, "running")) or of_mean[name, "its own"]
        assert (said["net, MB"], said["latency"]) == (recording["net, MB"], stream["latency"])
        # a half may be rounded either way: these are numbers with one decimal already
        assert abs(float(said["times real time"]) - float(recording["times real time"])) <= 0.5
    assert said["WER, 95 % interval"].replace(" ", "") == recording["WER"]
