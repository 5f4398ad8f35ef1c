"""Transcripts of any script: characters counted beside words, and a page that keeps the order of what it shows."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asr_kd.evaluation.frames import ExampleFrame
from asr_kd.evaluation.wer import align_words
from asr_kd.io.files import read_json_lines, write_json_lines
from asr_kd.report import plots
from asr_kd.report.collect import Evidence, collect
from asr_kd.report.hypotheses import Difference
from asr_kd.report.page import Origin, direction, render, terminal_text
from asr_kd.report.results import Results
from asr_kd.report.results_file import as_json, read_results
from asr_kd.report.worth_results import Metric
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace

HEBREW = ("שָׁלוֹם", "אחד", "שתיים", "<שלוש>", "בבקשה", "הקישו", "סולמית", "להמתנה")


def rewritten(run: tuple[Config, Workspace], root: Path, words: Mapping[str, str], **summary: object) -> Workspace:
    """A copy of a run in which other words were said, with further entries in each summary.json."""
    shutil.copytree(run[1].root, root, ignore=shutil.ignore_patterns("report"))
    for folder in root.glob("exp/decode/*/*"):
        rows = read_json_lines(folder / "hyps.jsonl")
        for row in rows:
            row |= {side: [words[word] for word in row[side]] for side in ("ref", "hyp")}
        write_json_lines(folder / "hyps.jsonl", rows)
        entries = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        (folder / "summary.json").write_text(json.dumps(entries | summary), encoding="utf-8")
    return replace(run[1], root=root)


def words_of(run: tuple[Config, Workspace]) -> list[str]:
    rows = [row for path in run[1].root.glob("exp/decode/*/*/hyps.jsonl") for row in read_json_lines(path)]
    return sorted({word for row in rows for word in (*row["ref"], *row["hyp"])})


FIGURES = ("wer", "size", "rtf", "training-curves", "members", "soft-targets", "worth")


def pages(evidence: Evidence) -> tuple[str, str]:
    """index.html and report.md without their figures."""
    figures, origin = dict.fromkeys(FIGURES, ""), Origin("", [])
    html, markdown = (render(f"report.{form}.j2", evidence, figures, origin) for form in ("html", "md"))
    return html, markdown


@pytest.fixture(scope="module")
def hebrew(finished_run: tuple[Config, Workspace], tmp_path_factory) -> tuple[Evidence, Workspace]:
    """What the report of a run is written from whose words are Hebrew and made of characters."""
    words = {word: HEBREW[k % len(HEBREW)] for k, word in enumerate(words_of(finished_run))}
    root = tmp_path_factory.mktemp("hebrew") / "run"
    work = rewritten(finished_run, root, words, characters={"wer": 0.5})
    config = replace(finished_run[0], lang=replace(finished_run[0].lang, language="he", units="characters"))
    return collect(config, work), work


def test_characters_are_counted_beside_words(hebrew: tuple[Evidence, Workspace]) -> None:
    evidence, work = hebrew
    results = json.loads(as_json(evidence.results))
    assert results["unit"] == "word" and results["language"] == "he"
    row = next(row for row in results["systems"] if row["name"] == "distilled")
    errors = length = 0
    for hypothesis in read_json_lines(work.decoded("distilled", "test") / "hyps.jsonl"):
        # letters with their marks: only the first word has any
        sides = [[*"".join(hypothesis[side]).replace("שָׁ", "1").replace("וֹ", "2")] for side in ("ref", "hyp")]
        errors += sum(ref != hyp for ref, hyp in align_words(*sides))
        length += len(sides[0])
    counted = row["characters"]["errors"]["test"]
    assert counted["words"] == length and sum(counted[kind] for kind in ("ins", "del", "sub")) == errors
    cer, (low, high) = row["characters"]["wer"]["test"], row["characters"]["wer_ci95"]["test"]
    assert cer == errors / length and low < cer < high and cer != row["wer"]["test"]
    page, markdown = pages(evidence)
    shown = f"{100 * cer:.1f}\N{NO-BREAK SPACE}%"
    assert f'<td class="key">{shown}</td>' in page and f"| **{shown}** |" in markdown
    assert "character error rate</th>" in page and "| CER dev | CER test |" in markdown
    terminal = terminal_text(evidence.results)
    assert "CER %" in terminal and f"{100 * row['characters']['wer']['dev']:.1f}   {100 * cer:.1f}" in terminal
    assert "CER is the error rate of characters as a reader counts them" in markdown
    table = markdown[markdown.index("| system |") :].splitlines()
    assert len({line.count("|") for line in table[: 2 + len(results["systems"])]}) == 1


def test_a_page_runs_as_its_script_does(hebrew: tuple[Evidence, Workspace]) -> None:
    page, markdown = pages(hebrew[0])
    rows = re.findall(r'<div lang="(\w+)" dir="(\w+)">(.*?)</div>', page, re.DOTALL)
    assert len(rows) > 10 and {row[:2] for row in rows} == {("he", "rtl")}
    assert all(re.fullmatch(r"(\s*<bdi class=.*</bdi>)*\s*", row[2]) for row in rows)
    assert "<bdi>bad-one</bdi>" in page and "<bdi>beep</bdi>" in page
    assert "&lt;שלוש&gt;" in page and "<שלוש>" not in page
    lines = [line for line in markdown.splitlines() if line.startswith("  - direct: ")]
    assert lines and all(re.fullmatch("  - direct: \u2067[^\u2067\u2069]+\u2069", line) for line in lines)


def test_words_from_left_to_right_have_no_marks_of_direction(hebrew: tuple[Evidence, Workspace]) -> None:
    pair = align_words(["PRESS"], ["PRESSED"])
    plain = [replace(row, characters=None) for row in hebrew[0].results.systems]
    results = replace(hebrew[0].results, systems=plain, language="en")
    page, markdown = pages(replace(hebrew[0], results=results, differences=[Difference("u", pair, pair)]))
    assert '<div lang="en" dir="ltr">' in page and 'dir="rtl"' not in page and "CER" not in page + markdown
    assert not re.search("[\u2066-\u2069]", page + markdown)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("PRESS", "ltr"),
        ("اضغط WIFI الآن", "rtl"),
        ("नमस्ते", "ltr"),
        ("你 好", "ltr"),
        ("GOOGLE أو", "ltr"),
        ("1 2", "ltr"),
    ],
)
def test_the_direction_is_that_of_most_letters_of_the_reference(reference: str, expected: str) -> None:
    assert direction(align_words(reference.split(), ["WHATEVER"])) == expected


def test_where_characters_are_scored_the_one_rate_is_the_cer(hebrew: tuple[Evidence, Workspace]) -> None:
    once = [replace(row, characters=None) for row in hebrew[0].results.systems]
    rate = Metric("wer", "character error rate", "character", lower_is_better=True)
    metrics = [rate if metric.key == "wer" else metric for metric in hebrew[0].results.metrics]
    results = replace(hebrew[0].results, systems=once, unit="character", metrics=metrics)
    evidence = replace(hebrew[0], results=results)
    assert "CER test, 95 %" in terminal_text(evidence.results)
    for text in pages(evidence):
        assert "errors are counted in characters (CER)" in text and "haracter error rate" in text
        assert not re.search(r"\bWER\b|[Ww]ord error|word penalty|in words", text)


def test_results_from_before_characters_were_counted_are_read(hebrew, tmp_path: Path) -> None:
    results = json.loads(as_json(hebrew[0].results))
    del results["language"]
    for row in results["systems"]:
        del row["characters"]
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    old = read_results(tmp_path / "results.json")
    assert isinstance(old, Results) and not old.has_cer and old.language == "en"


def test_names_of_every_script_are_text_in_a_figure() -> None:
    """matplotlib has no letters for most of them and says so; whoever reads the figure has."""
    names = ["ש.2 (left א)", "ش.1", "ก.3", "क्ष.2", "好.1", "AH.2"]
    example = ExampleFrame("u", 0.5, 1, [1.0, 20.0], list(range(len(names))), np.full((2, len(names)), 1 / 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = plots.soft_targets(example, names)
    for name in names[2:]:
        assert f">{name}</text>" in svg
    assert ">\u2068ש\u2069.2 (left \u2068א\u2069)</text>" in svg
