"""The tables of README and RESULTS.md have the numbers of the results.json that the command beside them wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .documented import (
    IN_DETAIL,
    RECIPES,
    ROOT,
    SETS,
    comparisons_of,
    count,
    errors,
    interval,
    kept,
    percent,
    points,
    probability,
    results_of,
    section,
    systems_of,
    tables,
)

METRICS = {"frame accuracy": "frame_accuracy", "cross-entropy": "cross_entropy"}
METRICS |= {"WER": "wer", "PER": "per", "CER": "cer"}
BOTH = {"distilled": "distilled", "distilled-small": "distilled-small"}
# document, its section, results; what rows call a comparison -> its distilled system
DOCUMENTS = [
    (
        "librispeech/RESULTS.md",
        "What distilling was worth",
        "librispeech/mini",
        {"3 x 384": "distilled", "small": "distilled-small"},
    ),
    ("librispeech/RESULTS.md", "Untranscribed speech", "librispeech/semi10", {}),
    ("librispeech/RESULTS.md", "Half of the transcripts", "librispeech/semi", {}),
    ("librispeech/RESULTS.md", "Other speakers", "librispeech/kept_back", {}),
    ("librispeech/RESULTS.md", "Alignment", "librispeech/flat_start", {}),
    ("timit/RESULTS.md", "Phone times by hand", "timit/phones48", {}),
    ("timit/RESULTS.md", "The order of the phones", "timit/phones48_own", {}),
    ("timit/RESULTS.md", "The words", "timit/phones48_words", {}),
    ("prompts/RESULTS.md", "Results", "prompts/demo", BOTH),
    ("prompts/RESULTS.md", "French, from letters", "prompts/fr", BOTH),
    ("prompts/RESULTS.md", "Spanish, from letters", "prompts/es", BOTH),
]
SCORED = (*SETS, "kept-back")
SHIPPED = ("teacher", "direct", "distilled", "direct-small", "distilled-small")  # as the README's table has them


def columns(header: list[str]) -> Iterator[tuple[int, str, str, bool]]:
    """Number, metric, set, and whether it is an interval's, of the columns with a metric."""
    metric, part = "", header[0] if header[0] in SCORED else "test"
    for number, cell in enumerate(header[1:], start=1):
        name = next((name for name in METRICS if cell == name or cell in {f"{name} {part}" for part in SCORED}), "")
        if name:
            metric = METRICS[name]
        if cell.rpartition(" ")[2] in SCORED:
            part = cell.rpartition(" ")[2]
        if name or cell in SCORED or (cell == "95 % interval" and metric):
            yield number, metric, part, cell == "95 % interval"


def shown(metric: str, value: float) -> str:
    return f"{value:.3f}" if metric == "cross_entropy" else f"{percent(value)} %"


def each_seed(system: dict[str, Any]) -> str:
    rates = system["each"]["wer"]["test"]
    return ", ".join(map(percent, rates)) if len(rates) > 1 else "–"


def of_each_member(system: dict[str, Any]) -> str:
    return f"{system['members']} x {count(system['parameters'] / system['members'])}"


# columns besides those of metrics
OTHERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "nets": lambda system: str(system["members"]),
    "each seed": each_seed,
    "ins / del / sub": lambda system: errors(system["errors"]["test"]),
    "with silence": lambda system: f"{percent(system['with_silence']['wer']['test'])} %",
    "RTF": lambda system: f"{system['rtf']:.3f}",
    "real-time factor": lambda system: f"{system['rtf']:.3f}",
}


@pytest.mark.parametrize(("document", "title", "results", "_compared"), DOCUMENTS)
def test_tables_of_systems_are_those_of_the_run(
    document: str, title: str, results: str, _compared: dict[str, str]
) -> None:
    systems, unit = systems_of(results), results_of(results)["unit"]
    seen = set()
    for header, rows in tables(section(RECIPES / document, title)):
        if "minus" in header[0]:
            continue
        for row in rows:
            system = systems.get(row[0].partition(",")[0])
            if system is None:
                continue
            for number, metric, part, is_interval in columns(header):
                if unit == "phone":  # the rate of the units that were searched
                    metric = metric.replace("per", "wer")
                values = system["characters"] if metric == "cer" else system
                metric = metric.replace("cer", "wer")
                value = values[f"{metric}_ci95" if is_interval else metric][part]
                cell = re.sub(r" \(.* each\)", "", row[number])
                cell = cell.strip("()") if "monophone" in row[0] else cell
                assert cell == (interval(value) if is_interval else shown(metric, value)), (row[0], metric, part)
                seen.add((system["name"], metric, part))
            said = dict(zip(header, row, strict=True))
            for name in OTHERS.keys() & said.keys():
                assert said[name] == OTHERS[name](system), (row[0], name)
            if "parameters" in said:
                assert said["parameters"] in (count(system["parameters"]), of_each_member(system)), row[0]
    rates = ["wer", "per"] if "per" in next(iter(systems.values())) else ["wer"]
    assert {(name, metric, "test") for name in systems for metric in (*rates, "frame_accuracy")} <= seen


@pytest.mark.parametrize(
    ("document", "title", "results", "compared"), [pytest.param(*values) for values in DOCUMENTS if values[3]]
)
def test_differences_are_those_of_the_run(document: str, title: str, results: str, compared: dict[str, str]) -> None:
    comparisons = comparisons_of(results)
    ((header, rows),) = (table for table in tables(section(RECIPES / document, title)) if "minus" in table[0][0])
    assert [row[0] for row in rows] == list(compared)
    shares = next((k for k, cell in enumerate(header) if cell.startswith("share of the teacher's gain")), len(header))
    for row in rows:
        metrics = comparisons[compared[row[0]]]
        for name in {"frame accuracy", "WER", "PER"} & {*header}:
            assert row[header.index(name)] == points(metrics[METRICS[name]]["difference"])
        for name, metric in (("p in words", "wer"), ("p in phones", "per")):
            if name in header:
                cell = row[header.index(name)]
                assert cell == probability(metrics[metric]["p_distilled_better"], len(cell.partition(".")[2])), name
        for cell, metric in zip(row[shares:], ("frame_accuracy", "wer", "per"), strict=bool(row[shares:])):
            assert cell == kept(metrics[metric]), metric


@pytest.mark.parametrize(
    ("title", "results"), [("mini.yaml", "librispeech/mini"), ("semi10.yaml", "librispeech/semi10")]
)
def test_kinds_of_errors_are_those_of_the_run(title: str, results: str) -> None:
    """Written as a sentence: words of each system by its name, then phones in the same order."""
    text = section(IN_DETAIL, title)
    (listed,) = re.findall(r"^Errors on test, insertions / deletions / substitutions.*?(?=\n\n)", text, re.M | re.S)
    words, phones = " ".join(listed.split()).split("; phones ")
    named = re.findall(r"([\w-]+) (\d+ / \d+ / \d+)", words)
    systems = systems_of(results)
    assert dict(named) == {name: errors(system["errors"]["test"]) for name, system in systems.items()}
    assert phones.rstrip(".").split(", ") == [errors(systems[name]["phones"]["errors"]["test"]) for name, _ in named]


def test_times_and_memory_of_librispeech_are_those_of_the_run() -> None:
    """Of the stages whose last call the table is about: decoding was called again, for some of the systems."""
    calls = {
        "1 prepare": "prepare",
        "2 features": "features",
        "3 align, realignment included": "align",
        "4 teachers: two at once, six epochs": "train --teachers",
        "5 soft targets": "soft-targets",
        "6 direct, distilled": "train direct distilled",
    }
    written = results_of("librispeech/mini")
    ((_, rows),) = tables(section(IN_DETAIL, "mini.yaml"))
    said = {row[0]: row[1:] for row in rows}
    for stage, call in calls.items():
        assert said[stage] == [f"{written['seconds'][call]:.0f}", f"{written['memory'][call] / 1e9:.1f} GB"], stage
    pair = (f"{written['seconds'][f'train {name}-small']:.0f}" for name in ("direct", "distilled"))
    assert said["6 the small pair, on one core"][0] == " and ".join(pair)


@pytest.mark.parametrize(
    ("row", "results"), list(enumerate(["prompts/demo", "prompts/demo_seed2", "prompts/demo_seed3"]))
)
def test_the_rows_of_the_demos_seeds_are_those_of_their_runs(row: int, results: str) -> None:
    systems, comparisons = systems_of(results), comparisons_of(results)
    (_, rows), *_ = (
        table for table in tables(section(RECIPES / "prompts" / "RESULTS.md", "Results")) if "p" in table[0]
    )
    expected = [f"seed {results_of(results)['seed']}"]
    for size in ("", "-small"):
        for metric in ("wer", "per"):
            expected += [shown(metric, systems[f"{kind}{size}"][metric]["test"]) for kind in ("direct", "distilled")]
            expected.append(probability(comparisons[f"distilled{size}"][metric]["p_distilled_better"], 2))
    assert rows[row] == expected


def test_the_first_table_of_the_readme_is_that_of_the_librispeech_run() -> None:
    systems = systems_of("librispeech/mini")
    header, rows = next(tables((ROOT / "README.md").read_text(encoding="utf-8")))
    *rows, of_another = rows
    assert len(rows) == len(systems) == 5 and "pocketsphinx" in of_another[0]
    for name, row in zip(SHIPPED, rows, strict=True):
        system, said = systems[name], dict(zip(header, row, strict=True))
        assert said["net, MB"] == f"{system['bytes'] / 1e6:.2f}"
        if row[0].endswith((" M", " k", "parameters")):
            assert count(system["parameters"]) in row[0]
        for rate in ("WER", "PER"):
            metric = METRICS[rate]
            expected = f"{shown(metric, system[metric]['test'])} ({interval(system[f'{metric}_ci95']['test'])})"
            assert said[f"{rate}, 95 % interval"] == expected


def test_the_first_table_of_the_readme_has_sizes_speed_and_latency_as_shipped() -> None:
    header, rows = next(tables((ROOT / "README.md").read_text(encoding="utf-8")))
    shipped_header, shipped = next(tables(section(RECIPES / "librispeech" / "RESULTS.md", "As shipped")))
    of_mean = {(row[0], row[1]): dict(zip(shipped_header, row, strict=True)) for row in shipped}
    for name, row in zip([*SHIPPED, "pocketsphinx 5.1.1"], rows, strict=True):
        said = dict(zip(header, row, strict=True))
        recording = of_mean.get((name, "recording")) or of_mean[name, "its own"]
        stream = of_mean.get((name, "running")) or of_mean[name, "its own"]
        assert (said["net, MB"], said["latency"]) == (recording["net, MB"], stream["latency"])
        # a half may be rounded either way: these are numbers with one decimal already
        assert abs(float(said["times real time"]) - float(recording["times real time"])) <= 0.5
    assert said["WER, 95 % interval"].replace(" ", "") == recording["WER"]


def test_the_table_that_the_demo_ends_with_is_that_of_the_run() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^ {4}(direct|teacher|distilled) +(.*?) +\.\.\.$", text, re.MULTILINE)
    assert len(rows) == 3
    for name, row in rows:
        system = systems_of("prompts/demo")[name]
        numbers = [f"{100 * system['frame_accuracy'][part]:.1f}" for part in SETS]
        numbers += [f"{system['cross_entropy'][part]:.2f}" for part in SETS]
        low, high = map(percent, system["wer_ci95"]["test"])
        numbers += [*(percent(system["wer"][part]) for part in SETS), f"[{low}, {high}]"]
        size = f"{system['bytes'] / 1e6:.3g} MB"
        assert " ".join(row.split()) == " ".join([str(system["members"]), count(system["parameters"]), size, *numbers])
