"""What distilling was worth: differences, shares of the gain, the first lines and the table of all pairs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asr_kd.io.files import read_json_lines
from asr_kd.io.formatting import percent
from asr_kd.report.collect import Evidence
from asr_kd.report.page import Origin, headline, render, sentences, terminal_text
from asr_kd.report.results import Results
from asr_kd.report.results_file import read_results
from asr_kd.report.worth import error_metrics, pairs, smaller_as_good
from asr_kd.report.worth_figure import draw, lines
from asr_kd.report.worth_results import Difference, Resampled
from asr_kd.stages.report import report
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace


def plain(text: str) -> str:
    """With single spaces."""
    return re.sub(r"[ \n\t]+", " ", text)


def test_differences_and_shares_are_those_of_the_rates(finished_run: tuple[Config, Workspace]) -> None:
    written = json.loads((report(*finished_run).path / "results.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in written["systems"]}
    shares = []
    for compared in (written["distillation"], *written["comparisons"]):
        of_set = compared["sets"]["test"]["metrics"]
        for key, sign in (("frame_accuracy", 1), ("wer", -1), ("per", -1)):
            direct, teacher, distilled = (rows[compared[r]][key]["test"] for r in ("direct", "teacher", "distilled"))
            measured, gain = of_set[key], teacher - direct
            assert measured["difference"]["value"] == pytest.approx(distilled - direct)
            assert measured["gain"]["value"] == pytest.approx(gain)
            low, high = measured["gain"]["ci95"]
            clear = low > 0 if sign > 0 else high < 0
            assert measured["gain_is"] == ("clear" if clear else "uncertain" if sign * gain > 0 else "none")
            assert measured["share_kept"] == (pytest.approx((distilled - direct) / gain) if clear else None)
            shares.append(measured["share_kept"])
            if clear:
                assert measured["share_kept_ci95"][0] < measured["share_kept"] < measured["share_kept_ci95"][1]
        assert compared["gain_kept"]["wer"] == of_set["wer"]["share_kept"]
        assert compared["p_distilled_better"] == of_set["wer"]["p_distilled_better"]
    assert None in shares and len(set(shares)) > 1  # both cases occur in this run


def test_the_probability_is_that_of_a_bootstrap_over_speakers_and_seeds(
    finished_run: tuple[Config, Workspace],
) -> None:
    results, work = read_results(report(*finished_run).path / "results.json"), finished_run[1]
    random = np.random.default_rng(5)
    for c in results.all_comparisons:
        drawn = random.integers(12, size=(4000, 12))
        errors = []
        for name in (c.direct, c.distilled):
            seeds = results.row(name).seeds
            hyps = read_json_lines(work.decoded_phones(name, "test") / "hyps.jsonl")
            wrong = np.array([sum(ref != hyp for ref, hyp in row["alignment"]) for row in hyps]).reshape(seeds, -1)
            of_speakers = np.stack([wrong[:, speaker::12].sum(axis=1) for speaker in range(12)], axis=1)
            of_seeds = random.integers(seeds, size=(4000, seeds - 1))
            errors.append(
                [of_speakers[these][:, speakers].sum(axis=1).mean() for these, speakers in zip(of_seeds, drawn)]
            )
        differences = np.subtract(errors[1], errors[0])
        probability = np.mean(differences < 0) + 0.5 * np.mean(differences == 0)
        measured = c.sets["test"].metrics["per"]
        assert measured.p_distilled_better == pytest.approx(probability, abs=0.08)


def _with(results: Results, **metrics: dict[str, object]) -> Results:
    """The first comparison with other entries of its metrics on test."""
    first = results.distillation
    assert first is not None
    of_set = first.sets["test"]
    changed = {key: replace(measured, **metrics.get(key, {})) for key, measured in of_set.metrics.items()}
    sets = {"test": replace(of_set, metrics=changed)}
    shares = {key: measured.share_kept for key, measured in changed.items()}
    return replace(results, distillation=replace(first, sets=sets, gain_kept=replace(first.gain_kept, **shares)))


NO_GAIN = {"gain_is": "none", "share_kept": None, "share_kept_ci95": None}


def test_words_for_a_teacher_without_gain(finished_run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*finished_run).path / "results.json")
    said = sentences(_with(results, frame_accuracy=NO_GAIN, wer={"p_distilled_better": 1.0}))
    assert "there is no gain that the distilled network" in said.lead()
    assert "is above\N{NO-BREAK SPACE}0.99." in said.lead()
    assert "not defined here: the teacher has no gain in" in said.notes[-1]


def test_a_gain_that_may_be_nothing_has_no_share(finished_run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*finished_run).path / "results.json")
    gain = Difference(value=0.0031, ci95=(-0.002, 0.0082))
    changed = _with(results, frame_accuracy=NO_GAIN | {"gain_is": "uncertain", "gain": gain})
    said = sentences(changed)
    assert "the teacher’s gain is too uncertain for a share of it to mean anything." in said.lead()
    may_be_nothing = "no share (the gain of teacher, +0.31 points, may be nothing: its interval includes 0)"
    assert f"in frame accuracy {may_be_nothing};" in said.key() and may_be_nothing in terminal_text(changed)
    assert "no clear gain in frame accuracy" in said.notes[-1]


def test_a_share_with_the_other_sign_is_said_in_words(finished_run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*finished_run).path / "results.json")
    worse = {"gain_is": "clear", "share_kept": -1.12, "share_kept_ci95": (-1.5, -0.3)}
    better = {"gain_is": "clear", "share_kept": 0.5, "share_kept_ci95": (0.301, 0.7)}
    changed = replace(_with(results, frame_accuracy=worse, wer=NO_GAIN, per=better), comparisons=[])
    first = changed.distillation
    assert first is not None
    first.sets["test"] = replace(first.sets["test"], cross_entropy_kept=0.62)
    said = sentences(changed)
    assert "distilling keeps none of the teacher’s gain." in said.lead()
    assert plain(said.key()).endswith(
        "Share of the teacher’s gain kept on test: in frame accuracy none (distilled is worse than direct); "
        "in word error rate nothing to keep (teacher is no better than direct); "
        "in phone error rate 50\N{NO-BREAK SPACE}% (95 % interval 30 to 70); "
        "in cross-entropy 62\N{NO-BREAK SPACE}%."
    )
    assert "gain kept: none (distilled is worse than direct)" in terminal_text(changed)
    page = _page(changed)
    assert "<b>none</b><span>of the teacher’s gain in" in page
    assert "−112" not in page.split('id="when"')[0]


def _page(results: Results, template: str = "report.html.j2") -> str:
    figures = dict.fromkeys(("wer", "size", "rtf", "training-curves", "members", "worth", "per", "size-per"), "")
    return render(template, Evidence(results, {}, [], None, []), figures, Origin("", []))


def _differing(value: float, low: float, high: float) -> dict[str, object]:
    return {"difference": Difference(value=value, ci95=(low, high))}


PAYS, HARMS, OPEN = (-0.02, -0.03, -0.01), (0.02, 0.01, 0.03), (-0.02, -0.05, 0.01)
UNCLEAR = "unclear whether distilling pays (−5.0 to +1.0 points)"


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (PAYS, PAYS, ["distilling pays", "distilling pays"]),
        (PAYS, OPEN, ["distilling pays", UNCLEAR]),
        (HARMS, PAYS, ["distilling does harm", "distilling pays"]),
        (OPEN, None, [UNCLEAR]),
    ],
)
def test_the_first_lines_say_where_distilling_pays(finished_run, first, second, says: list[str]) -> None:
    results = _with(read_results(report(*finished_run).path / "results.json"), wer=_differing(*first))
    small = _with(replace(results, distillation=results.comparisons[0]), wer=_differing(*(second or first)))
    assert small.distillation is not None
    results = replace(results, comparisons=[small.distillation] if second else [])
    results.row("distilled-small").wer["test"] = 0.9  # worse than any direct network
    rates = [f"{points(results, d)} → {points(results, d.replace('direct', 'distilled'))}\N{NO-BREAK SPACE}%"
             for d in ("direct", "direct-small")]  # fmt: skip
    starts = [f"Net of 330 parameters: {rates[0]} word errors on test: ", f"Net of 141: {rates[1]}: "]
    top: Any = headline(results)
    assert top.lines == [f"{start}{verdict}." for start, verdict in zip(starts, says)]
    assert top.small[0].startswith("Phone errors: net of 330 ") and len(top.small) == 1 and top.cautions == []
    text = terminal_text(results)
    assert all(line in text.splitlines() for line in top.lines)
    results.row("distilled-small").wer["test"] = 0.1
    assert any("the net of 141 parameters makes no more word errors than the net of 330 trained directly, which has "
               "2.3 times" in line for line in headline(results).small) is (second is not None)  # fmt: skip


def points(results: Results, name: str) -> str:
    """The word error rate on test."""
    return f"{100 * results.row(name).wer['test']:.1f}"


def _few(results: Results, number: int = 3, speakers: int | None = 1) -> Results:
    """A test set of a few utterances, on which each difference leaves out 0."""
    changed = _with(results, wer=_differing(*PAYS), per=_differing(*PAYS), frame_accuracy=_differing(*HARMS))
    return replace(changed, resampled=changed.resampled | {"test": Resampled("utterance", number, speakers)})


VERDICTS = (
    "distilling pays",
    ">pays<",
    "| pays |",
    "does harm |",
    "probability that it",
    "probability that the",
    "probability that distilled is better:",
    "more than the choice",
    "gain kept: ",
    "\N{NO-BREAK SPACE}0.99",
)


def test_a_few_utterances_give_no_verdict(finished_run: tuple[Config, Workspace]) -> None:
    results = _few(read_results(report(*finished_run).path / "results.json"))
    top: Any = headline(results)
    too_few = "3 utterances of one speaker are too few"
    assert top.lines[0] == f"{too_few} to say whether distilling pays." and len(top.lines) == 3
    assert top.lines[2].endswith(f"{points(results, 'distilled-small')}\N{NO-BREAK SPACE}%.")
    page, markdown = _page(results), _page(results, "report.md.j2")
    trust = " ".join(plain(note) for note in sentences(results).notes)
    assert f"points: {too_few} to say whether there is a difference." in trust
    assert f"{too_few} for that: the intervals on test are narrower than they should be" in trust
    for text in (page, markdown, terminal_text(results)):
        assert f"{too_few} to say whether distilling pays." in text
        assert not [word for word in VERDICTS if word in text.replace(too_few + " to say whether distilling pays", "")]
    assert page.count('<td class="too-few">too few</td>') == 6 and "of the teacher’s gain in frame" not in page
    assert f"no p and no share: {too_few}." in plain(sentences(results).when())


@pytest.mark.parametrize(
    ("number", "speakers", "says"),
    [
        (1, 1, "1 utterance of one speaker is too few to say"),
        (9, 2, "9 utterances of 2 speakers are too few to say"),
        (9, None, "9 utterances are too few to say"),
        (10, 1, ""),
    ],
)
def test_how_many_are_too_few(finished_run, number: int, speakers: int | None, says: str) -> None:
    results = _few(read_results(report(*finished_run).path / "results.json"), number, speakers)
    top: Any = headline(results)
    assert top.too_few().startswith(says) and bool(top.too_few()) is bool(says)
    assert [line.endswith("distilling pays.") for line in top.lines] == (
        [True, False, False] if says else [True, False]
    )
    assert ("on test: distilling pays." in top.lines[0]) is not bool(says)


def test_a_run_on_three_utterances_with_one_seed_says_how_little_that_is(tmp_path: Path, fake: SimpleNamespace) -> None:
    systems = {name: {key: value for key, value in system.items() if key != "seeds"}
               for name, system in fake.settings["systems"].items()}  # fmt: skip
    config, work = fake.make_run(tmp_path, settings=fake.settings | {"systems": systems}, utterances=3)
    for summary in work.root.glob("exp/*/*/test/summary.json"):
        summed = json.loads(summary.read_text()) | {"oov_words": 4, "oov_rate": 0.25}
        summary.write_text(json.dumps(summed))
    result = report(config, work)
    results = read_results(result.path / "results.json")
    assert results.resampled["test"] == Resampled("utterance", 3, speakers=3)
    assert results.resampled["dev"] == Resampled("utterance", 3, speakers=None)
    lines = result.text.splitlines()
    assert "3 utterances of 3 speakers are too few to say whether distilling pays." in lines
    once = "Each net was trained with one seed only: one seed each cannot tell a better way to train a net from luck."
    unknown = "4 words of test (25\N{NO-BREAK SPACE}%) are outside the vocabulary: "
    assert once in lines and any(line.startswith(unknown) for line in lines)
    text = (result.path / "index.html").read_text(encoding="utf-8")
    head = text.partition("</header>")[0]
    assert once in head and unknown in head
    for name in ("index.html", "report.md"):
        text = (result.path / name).read_text(encoding="utf-8")
        assert not re.search(r"\b1 (utterances|seeds|words|minutes)\b|means over 1 |over the seeds|all seeds", text)


def test_nets_that_were_trained_once_are_named(finished_run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*finished_run).path / "results.json")
    systems = [replace(row, seeds=1) if row.name.endswith("-small") else row for row in results.systems]
    (caution,) = headline(replace(results, systems=systems)).cautions
    assert caution.startswith("direct-small and distilled-small were each trained with one seed only: ")


def test_the_table_has_the_pair_first_that_distilling_gave_most(finished_run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*finished_run).path / "results.json")
    for value, order in ((-0.5, ["distilled", "distilled-small"]), (0.5, ["distilled-small", "distilled"])):
        changed = _with(results, wer=_differing(value, value - 0.1, value + 0.1))
        table = _page(changed).partition('id="when"')[2].partition("</table>")[0]
        assert re.findall(r'<tr class="group"><th[^>]*><span>([^<]*)', table) == [
            "word error rate on test", "phone error rate on test", "frame accuracy on test"
        ]  # fmt: skip
        table = table.partition("phone error rate")[0]
        rows = re.findall(r"</i>(\S+?)</th>(.*)</tr>", table)
        assert [name for name, _ in rows] == order
        assert f"{100 * value:+.1f}".replace("-", "−") in rows[order.index("distilled")][1]
        first = changed.distillation
        assert first is not None
        share = first.sets["test"].metrics["wer"].share_kept
        assert share is not None and f"<td>{percent(share, 0)} (" in rows[order.index("distilled")][1]


def test_many_pairs_are_counted(finished_run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*finished_run).path / "results.json")
    small = results.comparisons[0]
    best = _with(results, wer=_differing(-0.9, -0.95, -0.8)).distillation
    lines = headline(replace(results, distillation=best, comparisons=[small] * 6)).lines
    assert lines[0] == "In word errors on test distilling pays for 1 of 7 nets, is unclear for 6."
    assert lines[1].startswith("Most: net of 330 parameters: ") and lines[2].startswith("Least: net of 141: ")
    assert len(lines) == 3


def test_nets_of_one_size_have_their_names(finished_run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*finished_run).path / "results.json")
    systems = [replace(row, parameters=330) if row.name.endswith("-small") else row for row in results.systems]
    lines = headline(replace(results, systems=systems)).lines
    assert [line.partition(":")[0] for line in lines] == [
        "Net of 330 parameters (distilled)", "Net of 330 (distilled-small)"
    ]  # fmt: skip


def test_columns_that_are_alike_are_left_out(finished_run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*finished_run).path / "results.json")

    def heads(changed: Results) -> list[str]:
        return re.findall(r'<th scope="col">([^<]*)', _page(changed).partition('id="when"')[2].partition("</thead>")[0])

    shown = heads(results)
    assert shown[:4] == ["net", "direct", "distilled", "distilling"] and shown[-1] == "param."
    assert "The teacher has 1.32\N{NO-BREAK SPACE}k parameters.".replace("\N{NO-BREAK SPACE}", " ") in plain(
        sentences(results).when()
    )
    systems = [replace(r, train_fraction=0.5) if r.name == "distilled" else r for r in results.systems]
    assert heads(replace(results, systems=systems)) == [*shown, "learnt from"]
    small = [replace(results.comparisons[0], teacher="direct")]
    assert heads(replace(results, comparisons=small)) == [*shown, "taught by"]


def test_speed_is_explained_beside_its_column(finished_run: tuple[Config, Workspace]) -> None:
    page = _page(read_results(report(*finished_run).path / "results.json"))
    after = page.partition('class="headline')[2].partition("</table>")[2]
    assert after.index("softer posteriors, as those of distilled nets are, keep more paths within the beam") < 600


def test_a_small_network_is_not_compared_with_one_that_learnt_from_less(finished_run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*finished_run).path / "results.json")
    results.row("distilled-small").wer["test"] = 0.1
    metric = error_metrics(results)[0]
    both = smaller_as_good(pairs(results, "test", metric))
    assert both is not None and (both[0].distilled.name, both[1].direct.name) == ("distilled-small", "direct")
    systems = [replace(row, train_fraction=0.1) if row.name == "direct" else row for row in results.systems]
    assert smaller_as_good(pairs(replace(results, systems=systems), "test", metric)) is None
    systems = [replace(r, extra={"podcasts": 9}) if r.name == "distilled-small" else r for r in results.systems]
    assert smaller_as_good(pairs(replace(results, systems=systems), "test", metric)) is None


def test_networks_of_two_kinds_do_not_differ_in_size_alone(finished_run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*finished_run).path / "results.json")
    assert {row.kind for row in results.systems} == {"dnn"}
    results.row("distilled-small").wer["test"] = 0.1
    metric = error_metrics(results)[0]
    assert lines(pairs(results, "test", metric)) == [[0, 1]]
    systems = [replace(row, kind="tdnn") if row.name.endswith("-small") else row for row in results.systems]
    of_set = pairs(replace(results, systems=systems), "test", metric)
    assert lines(of_set) == [[0], [1]] and smaller_as_good(of_set) is None
    alike, mixed = (draw(replace(results, systems=rows), "worth") for rows in (results.systems, systems))
    assert "tdnn" in mixed and "dnn" not in alike  # beside the sizes
    assert lines([of_set[0], of_set[0]]) == []  # two of one size: a line between them would stand upright


def test_a_network_that_two_of_one_size_are_compared_with_is_drawn_once(
    finished_run: tuple[Config, Workspace],
) -> None:
    results = read_results(report(*finished_run).path / "results.json")
    assert results.distillation is not None
    sizes = {row.name: row.parameters for row in results.systems}
    systems = [replace(row, parameters=sizes["distilled"]) if row.name == "distilled-small" else row
               for row in results.systems]  # fmt: skip
    shared = replace(results.comparisons[0], direct="direct")
    text = draw(replace(results, systems=systems, comparisons=[shared]), "worth")
    panels = len(error_metrics(results))
    for name, rate in ((name, 100 * results.row(name).wer["test"]) for name in ("direct", "distilled")):
        assert text.count(f">{name} {rate:.1f}%<") == 1  # there are as many labels of phones, with other rates
    assert [text.count(f">{name} ") for name in ("direct", "distilled", "distilled-small")] == [panels] * 3
    assert ">direct " not in draw(results, "worth")  # of two sizes, which say which is which


def test_untranscribed_sets_are_among_what_a_network_learnt_from(finished_run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*finished_run).path / "results.json")
    row, said = results.row("distilled"), sentences(results)
    assert plain(said.learnt_from(row)).strip() == "train"
    more = replace(row, extra={"podcasts": 9}, train_fraction=0.5)
    assert plain(said.learnt_from(more)).strip() == "50 % of train and podcasts (untranscribed)"
    assert "without transcripts" not in " ".join(headline(results).small)
    podcasts = replace(results.data.sets["train"], untranscribed=True, minutes=12.34)
    data = replace(results.data, sets=results.data.sets | {"podcasts": podcasts})
    systems = [replace(r, extra={"podcasts": 9}) if r.name.startswith("distilled") else r for r in results.systems]
    last = headline(replace(results, data=data, systems=systems)).small[-1]
    names = "distilled and distilled-small"
    assert last == (f"Beside train, {names} learnt from 12.3 minutes of speech without transcripts.")
    sets = data.sets | {"lectures": replace(podcasts, minutes=30.0)}
    more = [replace(r, extra={"lectures": 9}) if r.name == "distilled-small" else r for r in systems]
    last = headline(replace(results, data=replace(data, sets=sets), systems=more)).small[-1]
    assert last == (
        "Beside train, distilled-small learnt from 30 minutes of speech without transcripts, and "
        "distilled learnt from 12.3 minutes of speech without transcripts."
    )


def test_intervals_say_what_they_are_over(finished_run: tuple[Config, Workspace]) -> None:
    results = read_results(report(*finished_run).path / "results.json")
    assert vars(results.resampled["test"]) == {"over": "speaker", "number": 12, "speakers": 12}
    assert vars(results.resampled["dev"]) == {"over": "utterance", "number": 30, "speakers": None}
    said = plain(sentences(results).intervals())
    assert "over the 12 speakers of test (" in said and "over the seeds as well, with the same resamples" in said
    assert "other speakers of the same kind and with other seeds" in said and "fewer than ten" not in said
    few = replace(results, resampled=results.resampled | {"test": Resampled(over="utterance", number=30)})
    said = plain(sentences(few).intervals())
    assert "over the 30 utterances of test (" in said and "fewer than ten speakers of a set are known" in said
