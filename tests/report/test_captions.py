"""What the captions of the report's figures say is what the numbers say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asr_kd.io.formatting import human_bytes, percent
from asr_kd.report.page import captions
from asr_kd.report.results import LastEpoch, Results
from asr_kd.report.results_file import read_results

RECIPES = Path(__file__).parents[2] / "recipes"
RUNS = [RECIPES / "librispeech/results/mini.json", RECIPES / "prompts/results/demo.json"]


def see(results: Results) -> Any:
    return captions(results)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
@pytest.mark.parametrize("phones", [False, True])
def test_the_fewest_errors_and_the_smallest_system_are_named(path: Path, phones: bool) -> None:
    results = read_results(path)
    rates = {row.name: (row.per or {} if phones else row.wer)["test"] for row in results.systems}
    least, most = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
    assert see(results).fewest("test", phones) == (
        f"The fewest errors are those of {least} ({percent(rates[least])}), "
        f"the most those of {most} ({percent(rates[most])})."
    )
    small = min(results.systems, key=lambda row: (row.bytes, rates[row.name]))
    best = results.row(least)
    said = see(results).size(phones)
    if best.bytes == small.bytes:
        assert f"and none is smaller ({human_bytes(small.bytes, '.3g')})." in said
    else:
        assert f"the best of the smallest is {small.name} ({percent(rates[small.name])} with " in said


def test_systems_that_make_as_many_errors_are_not_ordered() -> None:
    results = read_results(RUNS[0])
    even = replace(results, systems=[replace(row, wer={"dev": 0.2, "test": 0.2}) for row in results.systems])
    assert see(even).fewest("test") == f"All systems have an error rate of {percent(0.2)}."
    one = replace(results, systems=results.systems[:1])
    assert see(one).fewest("test") == f"The system has an error rate of {percent(one.systems[0].wer['test'])}."
    assert see(one).speed() == "The system takes 0.009."
    none = replace(results, systems=[])
    assert see(none).fewest("test") == see(none).speed() == ""
    assert see(none).size() == "The nearer to the lower left corner, the better."


def test_systems_that_more_epochs_may_help_are_named() -> None:
    results = read_results(RUNS[0])

    def with_best_of(rising: set[str]) -> Results:
        return replace(
            results,
            systems=[
                replace(row, last_epoch=LastEpoch(0.6, 0.5, 0.5 if row.name in rising else 0.55))
                for row in results.systems
            ],
        )

    assert see(with_best_of(set())).training().startswith("No network is at its best in its last epoch")
    assert see(with_best_of({row.name for row in results.systems})).training().startswith("All networks are at their")
    assert (
        see(with_best_of({"direct"}))
        .training()
        .endswith("At its best in the last epoch, so that more epochs may help: direct.")
    )
    assert see(with_best_of({"direct", "teacher"})).training().endswith("may help: direct, teacher.")
    unknown = replace(results, systems=[replace(row, last_epoch=None) for row in results.systems])
    assert see(unknown).training() == "A network that is at its best in its last epoch may gain by more of them."


def test_what_members_add_is_that_of_the_curve() -> None:
    said = see(read_results(RUNS[0])).members()
    assert said.replace("\xa0", " ") == (
        "One member of teacher has 63.9 % of the frames of test right, both together 64.9 %; "
        "two members name different senones on 19.3 % of the frames."
    )


def test_the_most_frequent_confusion_is_named() -> None:
    results = read_results(RECIPES / "timit/results/phones48.json")
    confusions = results.confusions
    assert confusions is not None
    assert see(results).confusions() == "The most frequent confusion is z taken for s (15 times)."
    right = [count for count in confusions.counts if count[0] == count[1]]
    assert (
        see(replace(results, confusions=replace(confusions, counts=right))).confusions()
        == "No phone is taken for another."
    )
