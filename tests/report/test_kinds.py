"""An ensemble of systems of different kinds: what each of them and their difference add, in results and report."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asr_kd.acoustic.model_files import load_model
from asr_kd.errors import UserError
from asr_kd.evaluation.frames import frame_metrics
from asr_kd.report.page import sentences
from asr_kd.report.results import Results
from asr_kd.report.results_file import read_results
from asr_kd.stages.report import report
from asr_kd.workspace.config import Config
from asr_kd.workspace.sets import open_frames
from asr_kd.workspace.work import Workspace

SMALL = {"layers": 1, "width": 6, "left_context": 1, "right_context": 1}
SETTINGS = {
    "corpus": {"name": "folder"},
    "sets": {"train": ["a"], "dev": ["b"], "noisy": ["d"]},
    "systems": {
        "direct": {"model": SMALL},
        "distilled": {"model": SMALL, "targets": {"from": "kinds"}},
        "kinds": {"members": ["dnns", "tdnns", "last"]},
        "dnns": {"model": SMALL, "members": 3},
        "tdnns": {"model": {"kind": "tdnn", "width": 5, "kernel": 3, "dilations": [1]}, "seeds": 2},
        "last": {"model": SMALL | {"left_context": 0}},
    },
    "compare": [{"direct": "direct", "distilled": "distilled", "teacher": "kinds"}],
    "evaluation": {"bootstrap_samples": 100},
}
SIZES = [3, 2, 1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, fake: SimpleNamespace) -> tuple[Config, Workspace]:
    return fake.make_run(tmp_path_factory.mktemp("kinds"), settings=SETTINGS, utterances=12)


@pytest.fixture(scope="module")
def results(run: tuple[Config, Workspace]) -> Results:
    return read_results(report(*run).path / "results.json")


def test_its_row_is_the_sum_of_its_parts(run: tuple[Config, Workspace], results: Results) -> None:
    rows = {row.name: row for row in results.systems}
    kinds, parts = rows["kinds"], [rows[name] for name in ("dnns", "tdnns", "last")]
    assert (kinds.role, kinds.members, kinds.seeds) == ("teacher", 6, 1)
    assert kinds.kind == "dnn+tdnn" and {row.kind for row in parts} == {"dnn", "tdnn"}
    counts = [(3, 1), (1, 2), (1, 1)]  # members and seeds: all models count
    assert [(row.members, row.seeds) for row in parts] == counts
    assert kinds.parameters == sum(
        row.parameters // row.members * models for row, models in zip(parts, SIZES, strict=True)
    )
    files = [
        path for name in SETTINGS["systems"]["kinds"]["members"] for path in run[1].exp(name).glob("*.safetensors")
    ]
    assert kinds.bytes == sum(path.stat().st_size for path in files) and len(files) == 6
    each = [value for row in parts for value in row.each.frame_accuracy["noisy"]]
    assert kinds.each.frame_accuracy["noisy"] == pytest.approx(each)


def test_disagreement_and_curves_are_by_system(run: tuple[Config, Workspace], results: Results) -> None:
    assert results.ensemble == "kinds"
    assert [(part.name, part.kind, part.members) for part in results.parts] == [
        ("dnns", "dnn", 3), ("tdnns", "tdnn", 2), ("last", "dnn", 1)
    ]  # fmt: skip
    store = open_frames(run[1], "noisy")
    labels = np.asarray(store.array("senones"))
    model = load_model(run[1].exp("kinds"))
    rows = np.concatenate([model.member_log_posteriors(store.normalised(u)) for u in range(len(store.ids))], axis=1)
    best = rows.argmax(-1)[:, labels >= 0]
    differ = (best[:, None] != best[None]).mean(-1)
    part = np.repeat(range(3), SIZES)
    pairs = list(itertools.combinations(range(6), 2))
    shown = results.parts_disagreement["noisy"]
    assert shown.within == pytest.approx(np.mean([differ[i, j] for i, j in pairs if part[i] == part[j]]))
    assert shown.across == pytest.approx(np.mean([differ[i, j] for i, j in pairs if part[i] != part[j]]))
    assert shown.pairs[2][2] is None and shown.pairs[1][1] == pytest.approx(differ[3, 4])
    assert shown.pairs[0][2] == shown.pairs[2][0] == pytest.approx(differ[:3, 5].mean())

    for entry, members in zip(results.parts, ([0, 1, 2], [3, 4], [5]), strict=True):
        alone = frame_metrics(model.select_members(members), store, labels)
        assert entry.curve["noisy"][-1].frame_accuracy == pytest.approx(alone.accuracy[-1])
        assert entry.curve["noisy"][-1].cross_entropy == pytest.approx(alone.cross_entropy[-1], rel=1e-5)
        assert entry.curve["noisy"][0].frame_accuracy == pytest.approx(alone.accuracy[:-1].mean())
    # in turns: dnns, tdnns, dnns, last, tdnns, dnns; three of them from each place on
    order = [0, 3, 1, 5, 4, 2]
    threes = [[order[(start + k) % 6] for k in range(3)] for start in range(6)]
    accuracy = [frame_metrics(model.select_members(three), store, labels).accuracy[-1] for three in threes]
    assert results.members_curve["noisy"][2].frame_accuracy == pytest.approx(np.mean(accuracy))


def test_page_and_figure_say_it(run: tuple[Config, Workspace], results: Results) -> None:
    said = sentences(results).kinds()
    shown = results.parts_disagreement["noisy"]
    assert "are those of dnns (3 of kind dnn), tdnns (2 of kind tdnn), last (1 of kind dnn)." in said
    assert f"{100 * shown.across:.1f}" in said and f"two of one system on {100 * shown.within:.1f}" in said
    alone, together = results.parts[1].curve["noisy"][1], results.members_curve["noisy"][1]
    numbers = [f"{100 * p.frame_accuracy:.1f}\N{NO-BREAK SPACE}% ({p.cross_entropy:.3f})" for p in (alone, together)]
    assert f"2 members of tdnns {numbers[0]}, as many of all systems in turns {numbers[1]};" in said
    assert "1 member of last " in said
    folder = run[1].exp("report")
    for name in ("index.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "two of one system on" in text
    figure = (folder / "members.svg").read_text()
    assert all(f"{name} alone (noisy)" in figure for name in ("dnns", "tdnns", "last"))


def test_seeds_of_one_system_are_an_ensemble_too(tmp_path: Path, fake: SimpleNamespace) -> None:
    systems = {"all": {"members": ["plain"]}, "plain": {"model": SMALL, "seeds": 2}}
    config, work = fake.make_run(tmp_path, settings=SETTINGS | {"compare": [], "systems": systems}, utterances=5)
    results = read_results(report(config, work).path / "results.json")
    assert results.ensemble == "all" and [part.name for part in results.parts] == ["plain"]
    assert results.parts_disagreement["noisy"].across is None
    assert results.parts[0].curve == results.members_curve
    assert "different systems" not in sentences(results).kinds()


def test_a_part_that_was_trained_again_is_named(run: tuple[Config, Workspace], tmp_path: Path) -> None:
    config, work = run
    stamp = work.exp("tdnns") / "stamp.json"
    before = stamp.read_text()
    stamp.write_text(json.dumps(json.loads(before) | {"digest": "0" * 16}))
    for name in ("dev", "noisy"):
        of_set = work.decoded("tdnns", name) / "stamp.json"
        of_set.write_text(json.dumps(json.loads(of_set.read_text()) | {"inputs": {"model": "0" * 16}}))
    try:
        with pytest.raises(UserError, match=r"exp/kinds was made from another .*exp/tdnns .*asr-kd train kinds"):
            report(config, work)
    finally:
        stamp.write_text(before)
