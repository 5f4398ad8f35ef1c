"""A finished run becomes a page that says what the run's files say, and nothing that a transcript smuggles in."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from asr_kd.distillation.settings import TargetsConfig
from asr_kd.errors import UserError
from asr_kd.io.files import read_json_lines
from asr_kd.io.formatting import percent
from asr_kd.io.stamp import CONTENTS, STAMP, Stamp, identity, read_stamp
from asr_kd.report import plots
from asr_kd.report.collect import collect
from asr_kd.report.mnist_results import MnistBias, MnistResults
from asr_kd.report.page import captions, headline, markdown_escaped, sentences
from asr_kd.report.results import Results
from asr_kd.report.results_file import as_json, read_results, schema
from asr_kd.report.style import as_image
from asr_kd.stages.report import ReportResult, report
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace


def plain(text: str) -> str:
    """With single spaces."""
    return re.sub(r"[ \n\t]+", " ", text)


VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks nesting; collects tags, attributes, the headline table's cells and all text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: dict[str, list[str]] = {}
        self.words: list[str] = []
        self._row = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self._row = dict(attrs).get("data-system") or ""
        if tag in ("td", "th") and self._row:
            self.rows.setdefault(self._row, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "tr":
            self._row = ""

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._row and self.rows.get(self._row):
            self.rows[self._row][-1] += data


@pytest.fixture(scope="module")
def made(finished_run: tuple[Config, Workspace]) -> tuple[ReportResult, dict, str]:
    """The result, results.json and index.html of the finished run."""
    result = report(*finished_run)
    results = json.loads((result.path / "results.json").read_text(encoding="utf-8"))
    return result, results, (result.path / "index.html").read_text(encoding="utf-8")


def test_results_have_the_agreed_form(made: tuple[ReportResult, dict, str], fake: SimpleNamespace) -> None:
    results = made[1]
    assert results["corpus"] == "test"  # the config is test.yaml
    assert [row["name"] for row in results["systems"]] == list(fake.systems)
    for row in results["systems"]:
        for key in ("members", "parameters", "bytes"):
            assert isinstance(row[key], int)
        for key in ("frame_accuracy", "cross_entropy", "wer"):
            assert set(row[key]) == {"dev", "test"}
            assert all(isinstance(value, float) and math.isfinite(value) for value in row[key].values())
        low, high = row["wer_ci95"]["test"]
        assert 0 <= low <= row["wer"]["test"] <= high <= 1
        assert set(row["errors"]["test"]) == {"ins", "del", "sub", "words"}
        assert isinstance(row["rtf"], float)
    distillation = results["distillation"]
    assert {"temperature", "soft_weight", "gain_kept", "p_distilled_better", "seeds"} <= set(distillation)
    assert [c["distilled"] for c in results["comparisons"]] == ["distilled-small"]
    assert (distillation["temperature"], distillation["soft_weight"], distillation["seeds"]) == (2.0, 0.6, 3)
    assert 0 <= distillation["p_distilled_better"] <= 1
    assert results["alignment"] == {"utterances": 90, "labels": "forced", "failed": ["too-short"]}
    assert results["seconds"] == {"prepare": 2.5, "align": 75.2}


def test_settings_of_the_targets_are_those_of_training(broken: tuple[Config, Workspace]) -> None:
    """Not the config's, which may have changed since."""
    config, work = broken
    stamp = json.loads((work.exp("distilled") / "stamp.json").read_text())
    assert stamp["settings"]["targets"] == {"from": ["teacher"], "soft_weight": 0.6}
    stamp["settings"]["targets"] |= {"temperature": 7.0}
    teachers = {"teacher": identity(read_stamp(work.exp("teacher")) or {})}
    stamp["inputs"]["soft targets"] = TargetsConfig(**stamp["settings"]["targets"]).stamp(teachers, 1).digest
    (work.exp("distilled") / "stamp.json").write_text(json.dumps(stamp))
    assert "soft targets at temperature 7;" in sentences(collect(config, work).results).lead()
    del stamp["settings"]["targets"]
    (work.exp("distilled") / "stamp.json").write_text(json.dumps(stamp))
    with pytest.raises(UserError, match="distilled was trained without soft targets,"):
        collect(config, work)


def test_students_of_a_teacher_that_is_gone_are_refused(broken: tuple[Config, Workspace]) -> None:
    """As after a teacher was trained again on cores that round otherwise, and not its students."""
    config, work = broken
    file = work.exp("teacher") / "stamp.json"
    stamp = json.loads(file.read_text())
    file.write_text(json.dumps(stamp | {"metadata": stamp["metadata"] | {CONTENTS: "f" * 16}}))
    for name in ("dev", "test"):
        for folder in (work.decoded("teacher", name), work.decoded_phones("teacher", name)):
            path = folder / "stamp.json"
            path.write_text(path.read_text().replace(stamp["digest"], f"{stamp['digest']}-{'f' * 16}"))
    with pytest.raises(
        UserError, match=r"distilled was distilled from another teacher than there is now; train again: "
    ):
        collect(config, work)


def test_word_errors_are_those_of_the_hypotheses(made: tuple[ReportResult, dict, str], finished_run) -> None:
    work = finished_run[1]
    for row in made[1]["systems"]:
        hyps = read_json_lines(work.decoded(row["name"], "test") / "hyps.jsonl")
        pairs = [pair for hyp in hyps for pair in hyp["alignment"]]
        wrong = sum(ref != hyp for ref, hyp in pairs)
        words = sum(ref is not None for ref, _ in pairs)
        assert row["wer"]["test"] == wrong / words
        assert row["errors"]["test"] == {
            "ins": sum(ref is None for ref, _ in pairs),
            "del": sum(hyp is None for _, hyp in pairs),
            "sub": sum(None not in (ref, hyp) and ref != hyp for ref, hyp in pairs),
            "words": words,
        }
        assert np.mean(row["each"]["wer"]["test"]) == pytest.approx(row["wer"]["test"])


def test_phone_errors_stand_beside_them(made: tuple[ReportResult, dict, str], finished_run) -> None:
    work = finished_run[1]
    result, results, text = made
    for row in results["systems"]:
        hyps = read_json_lines(work.decoded_phones(row["name"], "test") / "hyps.jsonl")
        flat = [pair for hyp in hyps for pair in hyp["alignment"]]
        phones = sum(ref is not None for ref, _ in flat)
        assert row["per"]["test"] == sum(ref != hyp for ref, hyp in flat) / phones
        assert row["phones"]["errors"]["test"]["words"] == phones > 3 * row["errors"]["test"]["words"]
        low, high = row["per_ci95"]["test"]
        assert low < row["per"]["test"] < high
        assert np.mean(row["phones"]["per_seed"]["test"]) == pytest.approx(row["per"]["test"])
        assert row["phones"]["rtf"] == pytest.approx(2 * row["rtf"]) and set(row["per"]) == {"dev", "test"}
    assert results["per_left_out"] == {"test": ["test-003"]}
    page = Page(text)
    for row in results["systems"]:
        cells = [cell.strip() for cell in page.rows[row["name"]]]
        assert (cells[4], cells[6]) == (percent(row["per"]["test"]), percent(row["per"]["dev"]))
        assert cells[5] == " – ".join(f"{100 * edge:.1f}" for edge in row["per_ci95"]["test"])
    whole = plain("".join(page.words))
    assert "In no PER of test is 1 utterance without an alignment (test-003)." in whole
    assert "in phone error rate " in whole and "PER test" in (result.path / "report.md").read_text(encoding="utf-8")
    assert "distilled minus direct on test, phone error rate: " in result.text


def test_without_phones_there_are_none(broken: tuple[Config, Workspace]) -> None:
    config, work = broken
    shutil.rmtree(work.exp("phone_decode"))
    result = report(replace(config, decoding=replace(config.decoding, phones=False)), work)
    results = json.loads((result.path / "results.json").read_text(encoding="utf-8"))
    assert all("per" not in row and "phones" not in row for row in results["systems"])
    assert results["distillation"]["gain_kept"]["per"] is None and not list(result.path.glob("*per*"))
    assert "PER" not in (result.path / "report.md").read_text(encoding="utf-8").split("```")[0]
    assert "PER" not in result.text and "in phones" not in result.text


def test_sizes_and_gain_are_recomputable(made, finished_run, fake: SimpleNamespace) -> None:
    work, rows = finished_run[1], {row["name"]: row for row in made[1]["systems"]}
    width = fake.model["width"]
    per_net = 5 * 4 * width + width + width * 6 + 6
    assert rows["direct"]["parameters"] == rows["distilled"]["parameters"] == per_net
    assert (rows["teacher"]["members"], rows["teacher"]["parameters"]) == (4, 4 * per_net)
    files = sorted(work.exp("teacher").glob("member_*.safetensors"))
    assert rows["teacher"]["bytes"] == sum(file.stat().st_size for file in files)
    assert rows["direct"]["bytes"] == (work.exp("direct") / "member_0.safetensors").stat().st_size
    teacher = rows["teacher"]["frame_accuracy"]
    curve = made[1]["members_curve"]["test"]
    assert curve[-1]["frame_accuracy"] == pytest.approx(teacher["test"])
    assert curve[0]["frame_accuracy"] == pytest.approx(np.mean(rows["teacher"]["each"]["frame_accuracy"]["test"]))


def test_the_page_shows_the_results_and_is_well_formed(made: tuple[ReportResult, dict, str]) -> None:
    result, results, text = made
    page = Page(text)
    assert page.open == []
    for row in results["systems"]:
        cells = [cell.strip() for cell in page.rows[row["name"]]]
        assert cells[0] == row["name"]
        assert cells[1] == percent(row["wer"]["test"])
        assert cells[2] == " – ".join(f"{100 * edge:.1f}" for edge in row["wer_ci95"]["test"])
        errors = row["errors"]["test"]
        assert cells[15] == f"{errors['ins']} / {errors['del']} / {errors['sub']}"
    whole = plain("".join(page.words))
    typed = read_results(result.path / "results.json")
    said, top = sentences(typed), headline(typed)
    controls = [said.control(row) for row in typed.controls]
    see = captions(typed)
    of_figures = [f(phones) for f in (partial(see.fewest, "test"), see.size) for phones in (False, True)]
    assert len(said.notes) >= 8 and len(controls) == 1
    for sentence in [
        *top.lines,
        *top.small,
        said.picture_caption(),
        said.speed(),
        said.when(),
        said.lead(),
        said.key(),
        *said.notes,
        *controls,
        *map(said.further, typed.comparisons),
        *of_figures,
        see.speed(),
        see.training(),
        see.members(),
    ]:
        assert len(sentence) > 40 and plain(sentence) in whole
    for group in ("The teacher, and one network", "A network of 141 parameters, trained", "The control, on untied"):
        assert group in whole
    assert page.tags.count("svg") == 9
    assert "bootstrap_samples: 500" in whole and "asr-kd report --config" in whole
    for name in ("bad-one", "too-short", "test-007"):
        assert name in whole


def test_nothing_in_a_transcript_becomes_markup(made, fake: SimpleNamespace) -> None:
    result, _, text = made
    page = Page(text)
    assert fake.evil in "".join(page.words)
    assert "script" not in page.tags
    assert "<SCRIPT" not in text and "<b>AH" not in text and "stereo &lt;b&gt;audio&lt;/b&gt;" in text
    markdown = (result.path / "report.md").read_text(encoding="utf-8")
    assert "\\<SCRIPT\\>" in markdown and not re.search(r"(?<!\\)<SCRIPT", markdown)


def test_the_page_needs_no_network_and_no_script(made: tuple[ReportResult, dict, str]) -> None:
    text = made[2]
    page = Page(text)
    links = [value for _, key, value in page.attributes if key in ("src", "href", "xlink:href", "action", "srcset")]
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"@import|url\((?!#)", text)
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]


def test_the_page_can_be_used_by_keyboard_and_screen_reader(made: tuple[ReportResult, dict, str]) -> None:
    text = made[2]
    root = ElementTree.fromstring(re.sub(r"<!doctype html>|<meta[^>]*>", "", text))
    headings = {heading.get("id") for heading in root.iter("h2")}
    links = [link.get("href", "") for link in root.iterfind(".//nav//a")]
    assert len(links) > 8 and {link.removeprefix("#") for link in links} == headings
    for cell in root.iter("th"):
        assert cell.get("scope") in ("col", "row", "colgroup", "rowgroup") and "".join(cell.itertext()).strip()
    for card in [card for card in root.iter() if card.get("class") == "card" and card.get("id") != "differences"]:
        assert card.get("tabindex") == "0"  # it scrolls where the window is narrow
        assert card.tag == "figure" or (card.get("role") == "region" and card.get("aria-label"))
    for figure in root.iter("figure"):
        caption = figure.find("figcaption")
        assert caption is not None and "".join(caption.itertext()).strip().endswith(".")
    for word in [word for word in root.iter("bdi") if word.get("class") in ("w sub", "w ins", "w del")]:
        assert word.find("span[@class='unseen']") is not None  # colour alone says nothing


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_from_its_ground_as_wcag_asks() -> None:
    style = (files("asr_kd.report") / "templates" / "style.css").read_text(encoding="utf-8")
    themes = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)]
    assert len(themes) == 2
    pairs = [(name, ground) for name in ("ink", "soft", "good", "del") for ground in ("ground", "card")]
    for theme in themes:
        for name, ground in [*pairs, *((name, f"{name}-ground") for name in ("sub", "ins", "del"))]:
            low, high = sorted((luminance(theme[name]), luminance(theme[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


def test_ids_are_unique_and_references_are_kept(made: tuple[ReportResult, dict, str]) -> None:
    text = made[2]
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_the_figures_are_files_of_their_own_and_the_same_on_every_run(made, finished_run) -> None:
    path = made[0].path
    assert {file.name for file in path.iterdir()} == {
        "index.html", "report.md", "results.json", "stamp.json", "wer.svg", "size.svg", "rtf.svg", "members.svg",
        "training-curves.svg", "soft-targets.svg", "per.svg", "size-per.svg", "worth.svg",
    }  # fmt: skip
    for file in path.glob("*.svg"):
        assert ElementTree.fromstring(file.read_text(encoding="utf-8")).tag == "{http://www.w3.org/2000/svg}svg"
        assert "date" not in file.read_text(encoding="utf-8")
    evidence = collect(*finished_run)
    assert json.loads(as_json(evidence.results)) == made[1]
    curves = plots.training_curves(evidence.results, evidence.logs)
    assert as_image(curves) == (path / "training-curves.svg").read_text(encoding="utf-8")
    assert curves in (path / "index.html").read_text(encoding="utf-8")  # there it takes the page's colour


def test_a_second_run_does_nothing_and_a_changed_setting_makes_it_again(broken: tuple[Config, Workspace]) -> None:
    config, work = broken
    first = report(config, work)
    before = (first.path / "index.html").stat().st_mtime_ns
    second = report(config, work)
    assert (first.ran, second.ran) == (True, False)
    assert second.text == first.text
    assert (first.path / "index.html").stat().st_mtime_ns == before
    fewer = replace(config, evaluation=replace(config.evaluation, bootstrap_samples=50))
    assert report(fewer, work).ran


def test_the_terminal_table_is_aligned(made, fake: SimpleNamespace) -> None:
    lines = made[0].text.splitlines()
    assert len({len(line) for line in [lines[0], *lines[2:9]]}) == 1
    assert [line.partition(" ")[0] for line in lines[3:9] if " * " in line] == ["monophone"]
    assert lines[9].startswith("* monophone: frame accuracy and cross-entropy are over 6 context-independent states, ")
    assert all(any(line.startswith(name + " ") for line in lines) for name in fake.systems)
    assert max(map(len, lines[:9])) <= 125


def test_a_run_of_three_systems_has_a_page_too(tmp_path: Path, fake: SimpleNamespace) -> None:
    systems = {name: fake.settings["systems"][name] for name in ("teacher", "direct", "distilled")}
    settings = {"systems": systems, "compare": fake.settings["compare"][:1], "evaluation": {"bootstrap_samples": 50}}
    result = report(*fake.make_run(tmp_path, settings=settings, utterances=5))
    page = Page((result.path / "index.html").read_text(encoding="utf-8"))
    assert set(page.rows) == {"direct", "teacher", "distilled"}
    assert json.loads((result.path / "results.json").read_text(encoding="utf-8"))["comparisons"] == []


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("data/stamp.json", "asr-kd prepare"),
        ("data/frames/dev", "asr-kd features"),
        ("exp/align", "asr-kd align"),
        ("data/frames/test/senones.npy", "align"),
        ("exp/teacher", "asr-kd train teacher"),
        ("exp/direct", "asr-kd train direct "),
        ("exp/distilled", "asr-kd train distilled "),
        ("exp/distilled-small", "asr-kd train distilled-small"),
        ("exp/monophone", "asr-kd train monophone"),
        ("exp/decode/distilled/test", "asr-kd decode --system distilled"),
        ("exp/decode/direct/dev/summary.json", "asr-kd decode"),
        ("exp/phone_decode/direct/test", "asr-kd decode --system direct"),
        ("exp/phone_decode/direct/test/hyps.jsonl", "asr-kd decode"),
        ("exp/decode/direct/dev/hyps.jsonl", "asr-kd decode"),
    ],
)
def test_a_missing_piece_is_one_sentence_that_names_the_stage(broken, missing: str, command: str) -> None:
    config, work = broken
    path = work.root / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=re.escape(command)) as caught:
        report(config, work)
    assert "\n" not in str(caught.value)
    assert not work.exp("report").exists()


def _cut(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")


def _drop_last_line(path: Path) -> None:
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("exp/decode/direct/test/hyps.jsonl", _cut, "damaged"),
        ("exp/decode/direct/test/hyps.jsonl", _drop_last_line, "do not have the same utterances"),
        ("exp/decode/direct/test/summary.json", _cut, "damaged"),
        ("exp/distilled/log.jsonl", _cut, "damaged"),
        ("exp/seconds.json", _cut, "damaged"),
        ("exp/distilled/member_0.safetensors", lambda path: path.write_bytes(b"12"), "damaged"),
    ],
)
def test_a_damaged_piece_is_one_sentence(broken, file: str, damage: Callable[[Path], None], says: str) -> None:
    config, work = broken
    damage(work.root / file)
    with pytest.raises(UserError, match=says):
        report(config, work)
    assert not work.exp("report").exists()


def test_hypotheses_of_another_model_are_refused(broken: tuple[Config, Workspace]) -> None:
    config, work = broken
    stamp = work.exp("direct") / "stamp.json"
    stamp.write_text(stamp.read_text(encoding="utf-8").replace('"digest": "', '"digest": "0'), encoding="utf-8")
    with pytest.raises(UserError, match=r"decode/direct/dev was decoded with another .*direct"):
        report(config, work)


def _reused(config: Config, work: Workspace, teacher: str) -> Config:
    """The run with direct models that are said to be the teacher's."""
    stamp = json.loads((work.exp("direct") / "stamp.json").read_text(encoding="utf-8"))
    stamp |= {"step": "reuse", "inputs": {"teacher": teacher}}
    (work.exp("direct") / "stamp.json").write_text(json.dumps(stamp), encoding="utf-8")
    return replace(config, systems=config.systems | {"direct": replace(config.systems["direct"], reuse="teacher")})


def test_direct_models_of_the_teacher_are_said_to_be_that(broken: tuple[Config, Workspace]) -> None:
    config, work = broken
    before = sentences(collect(config, work).results).notes[0]
    assert "direct and distilled seeds of the same number start from the same weights" in before
    assert "first members" not in before
    teacher = json.loads((work.exp("teacher") / "stamp.json").read_text(encoding="utf-8"))
    for member in range(3):
        name = f"member_{member}.safetensors"
        shutil.copy(work.exp("teacher") / name, work.exp("direct") / name)
    results = collect(_reused(config, work, teacher["digest"]), work).results
    assert {row.name: row.reused_from for row in results.systems if row.reused_from} == {"direct": "teacher"}
    said = sentences(results).notes[0]
    assert (
        "those of direct are the first members of teacher; direct-small and distilled-small seeds of the same" in said
    )
    # they ran as members of the teacher, with the same numbers as if they ran alone
    each = [results.row(name).each.frame_accuracy["test"] for name in ("direct", "teacher")]
    assert each[0] == each[1][:3]


def test_direct_models_of_another_teacher_are_refused(broken: tuple[Config, Workspace]) -> None:
    config, work = broken
    changed = _reused(config, work, "0123456789abcdef")
    with pytest.raises(
        UserError, match=r"direct was made from another .*teacher .* make it again: asr-kd train direct"
    ):
        report(changed, work)


def test_the_page_says_what_it_was_made_with(made: tuple[ReportResult, dict, str]) -> None:
    result, results, page = made
    versions, cores = results["made_with"], results["made_with"]["cores"]
    for text in (page, (result.path / "report.md").read_text(encoding="utf-8").replace("\\", "")):
        assert (
            f"Reported by asr_kd {versions['asr_kd']}" in text and f"torch {versions['torch']} on {cores} core" in text
        )
        assert f"(commit {versions['commit']})" in text if versions["commit"] else "(commit" not in text


def test_text_is_escaped_for_markdown() -> None:
    assert markdown_escaped("a_b|<c>") == "a\\_b\\|\\<c\\>"


def test_results_fit_their_schema(made: tuple[ReportResult, dict, str]) -> None:
    """The schema names every key of results.json, and a file of another form is refused."""
    result, results, _ = made
    typed = read_results(result.path / "results.json")
    assert isinstance(typed, Results) and json.loads(as_json(typed)) == results
    form = schema()
    assert set(results) <= set(form["properties"]) and set(form["required"]) <= set(results)
    of_system = form["$defs"]["SystemRow"]
    for row in results["systems"]:
        assert set(row) <= set(of_system["properties"]) and set(of_system["required"]) <= set(row)
    assert of_system["additionalProperties"] is False
    compared = results["distillation"]
    of_test = compared["sets"]["test"]["metrics"]
    for entry, name in (
        (compared, "Distillation"),
        (compared["gain_kept"], "GainKept"),
        (of_test["per"], "MetricComparison"),
        (results["metrics"][0], "Metric"),
        (results["resampled"]["test"], "Resampled"),
    ):
        assert set(entry) == set(form["$defs"][name]["properties"])
        added = {"speakers"} if name == "Resampled" else set()  # files of older reports are without it
        assert set(entry) - added == set(form["$defs"][name]["required"])
    assert list(of_test) == [metric["key"] for metric in results["metrics"]] == ["frame_accuracy", "wer", "per"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda results: results.pop("systems"),
        lambda results: results["systems"][0].update(rtf="fast"),
        lambda results: results["systems"][0].update(unknown=1),
        lambda results: results["distillation"]["gain_kept"].pop("wer"),
    ],
)
def test_results_of_another_form_are_refused(made, tmp_path: Path, damage: Callable[[dict], object]) -> None:
    results = json.loads(json.dumps(made[1]))
    damage(results)
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match="missing or damaged"):
        read_results(tmp_path / "results.json")


MNIST = MnistResults(
    teacher=75.0,
    hard=147.0,
    distilled=95.5,
    seeds=2,
    no3=MnistBias(before=170.0, after=128.5, threes_right=0.982),
)


def test_digits_get_a_section_of_their_own(broken: tuple[Config, Workspace]) -> None:
    made = report(*broken, MNIST)
    results = json.loads((made.path / "results.json").read_text(encoding="utf-8"))
    assert results["mnist"]["no3"]["threes_right"] == 0.982
    html, markdown = ((made.path / name).read_text(encoding="utf-8") for name in ("index.html", "report.md"))
    text = " ".join("".join(Page(html).words).split())
    assert "the teacher gets 75 wrong, a small net trained on labels 147, the same net distilled 96" in text
    assert "98.2 %" in text
    assert "| here (2 seeds) | 75 | 147 | 96 | 170 | 128 | 98.2 % |" in re.sub(r"[^\S\n]", " ", markdown)
    assert report(*broken, MNIST).ran is False
    assert report(*broken, replace(MNIST, hard=150.0)).ran


def test_digits_that_were_not_run_are_said_to_be_missing(broken: tuple[Config, Workspace]) -> None:
    made = report(*broken, MnistResults(missing="the experiment 'hard' was <not> run"))
    for name in ("index.html", "report.md"):
        page = (made.path / name).read_text(encoding="utf-8")
        assert "Not shown: the experiment" in page and "<not>" not in page


def put_rescored(work: Workspace, system: str) -> None:
    """As asr-kd decode --rescore-lm leaves it: the same words, a language model with an evil name."""
    decoded, folder = work.decoded(system, "test"), work.rescored(system, "test", "large")
    folder.mkdir(parents=True)
    shutil.copy(decoded / "hyps.jsonl", folder)
    summary = json.loads((decoded / "summary.json").read_text())
    oracle = {"1": 0.375, "10": 0.25, "100": 0.125}
    summary |= {"lm": "<b>large|model</b>", "first_pass_wer": 0.375, "oracle": oracle, "hypotheses": 71.6}
    (folder / "summary.json").write_text(json.dumps(summary))
    digest = json.loads((decoded / STAMP).read_text())["digest"]
    Stamp("rescore", {}, {"decoded": digest}).write(folder / STAMP)


def test_rescored_systems_have_a_table_as_long_as_their_first_pass_is_there(broken: tuple[Config, Workspace]) -> None:
    config, work = broken
    report(config, work)
    assert "larger language model" not in (work.exp("report") / "index.html").read_text()
    put_rescored(work, "direct")
    result = report(config, work)
    assert result.ran
    (row,) = json.loads((work.exp("report") / "results.json").read_text())["rescored"]
    assert (row["name"], row["first_pass_wer"], row["oracle"]["100"]) == ("direct", 0.375, 0.125)
    page = (work.exp("report") / "index.html").read_text()
    assert "72 on average" in page and "&lt;b&gt;large|model" in page and "<b>large" not in page
    assert "best of 100" in page and "12.5" in page
    lines = (work.exp("report") / "report.md").read_text().splitlines()
    head = (
        "| system | set | larger model | first pass | rescored | 95 % interval | best of 1 | best of 10 | best of 100 |"
    )
    table = lines[lines.index(head) :]
    assert {line.count("|") - line.count("\\|") for line in table[:3]} == {10} and table[3] == ""
    Stamp("decode", {"again": 1}, json.loads((work.decoded("direct", "test") / STAMP).read_text())["inputs"]).write(
        work.decoded("direct", "test") / STAMP
    )
    again = report(config, work)
    assert again.ran and json.loads((work.exp("report") / "results.json").read_text())["rescored"] == []
