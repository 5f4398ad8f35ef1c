"""The report follows the config: any names of systems, any number of comparisons and of test sets."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asr_kd.report.page import sentences
from asr_kd.report.results_file import read_results
from asr_kd.report.style import COLOURS, OTHERS, looks
from asr_kd.stages.report import report
from asr_kd.workspace.config import Config
from asr_kd.workspace.sets import add_set
from asr_kd.workspace.work import Workspace

SMALL = {"layers": 1, "width": 6, "left_context": 1, "right_context": 1}
SETTINGS = {
    "corpus": {"name": "folder"},
    "sets": {"train": ["a"], "dev": ["b"], "clean.1": ["c"], "noisy": ["d"]},
    "systems": {
        "professor": {"model": SMALL, "members": 3},
        "plain": {"model": SMALL, "seeds": 2},
        "pupil": {"model": SMALL, "seeds": 2, "targets": {"from": "professor", "temperature": 5.0}},
        "assistant": {"model": SMALL, "targets": {"from": "professor"}},
        "spare": {"model": SMALL, "members": 2, "train_fraction": 0.1},
    },
    "compare": [{"direct": "plain", "distilled": "pupil", "teacher": "professor"}],
    "evaluation": {"bootstrap_samples": 100},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, fake: SimpleNamespace) -> tuple[Config, Workspace]:
    return fake.make_run(tmp_path_factory.mktemp("names"), settings=SETTINGS, utterances=12)


def test_systems_and_sets_have_their_own_names(run: tuple[Config, Workspace], fake: SimpleNamespace) -> None:
    result = report(*run)
    results = json.loads((result.path / "results.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in results["systems"]] == ["plain", "professor", "pupil", "assistant", "spare"]
    roles = {row["name"]: row["role"] for row in results["systems"]}
    assert roles == {
        "plain": "direct", "professor": "teacher", "pupil": "distilled", "assistant": "other", "spare": "other",
    }  # fmt: skip
    assert results["distillation"]["temperature"] == 5.0 and set(results["distillation"]["sets"]) == {
        "clean.1",
        "noisy",
    }
    for row in results["systems"]:
        for key in ("wer", "wer_ci95", "frame_accuracy", "cross_entropy", "errors"):
            assert set(row[key]) == {"dev", "clean.1", "noisy"}
    assert {"wer.svg", "wer-noisy.svg", "members.svg"} <= {file.name for file in result.path.iterdir()}
    for name in ("index.html", "report.md"):
        text = (result.path / name).read_text(encoding="utf-8").split("Settings")[0]
        for row in results["systems"]:  # each set has a row of each system
            assert text.count(f"{100 * row['wer']['noisy']:.1f}\N{NO-BREAK SPACE}%") >= 1
        assert not re.search(r"\btest (?=reaches|errors)|ensemble network|distilled-small", text)
        assert ("on which plain and pupil disagree" in text and "Few labels" in text) or name == "report.md"
    page = (result.path / "index.html").read_text(encoding="utf-8")
    assert page.count('data-system="pupil"') == 2 and "Other systems" in page
    assert "In frame accuracy on noisy" in page and "In frame accuracy on clean.1" in page
    assert str(result).count("WER clean.1, 95 %") == str(result).count("WER noisy, 95 %") == 1


def test_colours_follow_roles(run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*run).path / "results.json")
    look = looks(results)
    assert [look[name].colour for name in ("plain", "professor", "pupil")] == [
        COLOURS["direct"], COLOURS["teacher"], COLOURS["distilled"]
    ]  # fmt: skip
    assert [look[name].colour for name in ("assistant", "spare")] == list(OTHERS[:2])
    assert not any(entry.hollow for entry in look.values())


def test_few_labels_have_a_table_that_shows_early_stopping(run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*run).path / "results.json")
    (row,) = results.on_few_labels
    log = [json.loads(line) for line in (run[1].exp("spare") / "log.jsonl").read_text().splitlines()]
    assert row.name == "spare" and row.last_epoch is not None
    assert row.last_epoch.train_accuracy == pytest.approx(np.mean(log[-1]["train_accuracy"]))
    assert row.last_epoch.dev_accuracy == pytest.approx(np.mean(log[-1]["dev_accuracy"]))
    page = (run[1].exp("report") / "index.html").read_text(encoding="utf-8")
    table = page[page.index('id="few-labels"') :]
    assert "<td>10 %</td>" in table[: table.index("</table>")]


def test_systems_without_a_comparison_are_a_table(run: tuple[Config, Workspace]) -> None:
    config, work = run
    config = replace(config, compare=(), systems={name: config.systems[name] for name in ("professor", "plain")})
    result = report(config, work)
    results = json.loads((result.path / "results.json").read_text(encoding="utf-8"))
    assert "distillation" not in results and results["comparisons"] == []
    assert [row["role"] for row in results["systems"]] == ["other", "other"]
    assert results["ensemble"] == "professor" and len(results["members_curve"]["noisy"]) == 3
    page = (result.path / "index.html").read_text(encoding="utf-8")
    assert "2 systems were trained and scored" in page and "disagree</h2>" not in page
    assert sentences(read_results(result.path / "results.json")).notes


def test_an_added_set_is_reported_too(run: tuple[Config, Workspace], tmp_path: Path, fake: SimpleNamespace) -> None:
    settings = SETTINGS | {"sets": {"train": ["a"], "dev": ["b"], "clean.1": ["c"]}}
    config, work = fake.make_run(tmp_path, settings=settings, utterances=5)
    decoded = [(of, name) for of in (Workspace.decoded, Workspace.decoded_phones) for name in config.systems]
    for source in (run[1].frames("noisy"), *(of(run[1], name, "noisy") for of, name in decoded)):
        target = work.root / source.relative_to(run[1].root)
        target.mkdir(parents=True)
        for file in source.iterdir():
            text = file.read_bytes()
            target.joinpath(file.name).write_bytes(text)
    add_set(work, "noisy", ("d",))
    shutil.copy(run[1].cuts("noisy"), work.cuts("noisy"))
    cuts = json.loads(run[1].cuts_stamp("noisy").read_text())
    cuts["metadata"] |= {"training_utterances": 2, "sentences_in_lm_text": 1}
    work.cuts_stamp("noisy").write_text(json.dumps(cuts))
    for of, system in decoded:  # with the systems that are here
        stamp = of(work, system, "noisy") / "stamp.json"
        model = json.loads((work.exp(system) / "stamp.json").read_text())["digest"]
        stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"inputs": {"model": model}}))
    results = read_results(report(config, work).path / "results.json")
    assert results.sets == ["dev", "clean.1", "noisy"]
    assert all(set(row.wer) == set(row.per or ()) == set(results.sets) for row in results.systems)
    said = " ".join(sentences(results).notes)
    assert "Warning: the systems were trained on 2 utterances of noisy." in said
    assert "The sentences of 1 utterance of noisy are in the text" in said and "2 utterances of clean.1" not in said
