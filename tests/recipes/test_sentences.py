"""Sentences of README and RESULTS.md have the numbers of the results.json that is kept, filled in here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .documented import (
    IN_DETAIL,
    RECIPES,
    ROOT,
    comparisons_of,
    count,
    kept,
    percent,
    points,
    prose,
    results_of,
    saved,
    section,
    systems_of,
)

README = prose((ROOT / "README.md").read_text(encoding="utf-8"))
LIBRISPEECH, TIMIT, PROMPTS = (RECIPES / name / "RESULTS.md" for name in ("librispeech", "timit", "prompts"))


def rate(results: str, system: str, metric: str = "wer") -> str:
    """On test."""
    return percent(systems_of(results)[system][metric]["test"])


def minutes(results: str, *names: str) -> str:
    sets = results_of(results)["data"]["sets"]
    return f"{sum(sets[name]['minutes'] for name in names):.1f}"


def seconds(results: str) -> Mapping[str, str]:
    return {call: f"{taken:.0f}" for call, taken in results_of(results)["seconds"].items()}


def test_the_readme_says_what_distilling_was_worth() -> None:
    mini, semi, half = "librispeech/mini", "librispeech/semi10", "librispeech/semi"
    large, small = (comparisons_of(mini)[name]["wer"] for name in ("distilled", "distilled-small"))
    points, ends = saved(large["difference"])
    points_small, ends_small = saved(small["difference"])
    on_timit, ends_on_timit = saved(comparisons_of("timit/phones48")["distilled"]["wer"]["difference"])
    parameters = count(systems_of(mini)["distilled"]["parameters"])
    for sentence in (
        f"a net of {parameters} parameters makes **{rate(mini, 'distilled')} %** word errors where it learns from two "
        f"time-delay nets, and {rate(mini, 'direct')} % where it learns from the transcripts alone.",
        f"distilling is worth {points} points of the word error rate (95 % interval {ends}) to the fully connected "
        f"net, and {points_small} ({ends_small}) to the time-delay net.",
        f"{minutes(semi, 'train').partition('.')[0]} minutes of one speaker with transcripts, "
        f"{minutes(semi, 'hidden').partition('.')[0]} minutes of others without: {rate(semi, 'distilled-all')} % word "
        f"errors; on the 20 minutes, distilled {rate(semi, 'distilled')} %, directly {rate(semi, 'direct')} %",
        f"{float(minutes(half, 'train')):.0f} minutes of 150 speakers with, {float(minutes(half, 'hidden')):.0f} "
        f"of others without: distilled {rate(half, 'distilled-all')} %, directly {rate(half, 'direct')} %",
        f"{rate(mini, 'teacher')} and {rate(mini, 'direct')} %: the small net keeps a quarter of the "
        f"{percent(-large['gain']['value'])} points between them",
        f"two time-delay nets {on_timit} ({ends_on_timit})",
    ):
        assert sentence in README
    assert 0.23 < large["share_kept"] < 0.27  # a quarter


def test_the_results_of_librispeech_say_what_the_nets_learnt() -> None:
    systems, written = systems_of("librispeech/mini"), results_of("librispeech/mini")
    single = [percent(end) for end in written["members_curve"]["dev"][0]["range"]]
    worth = prose(section(LIBRISPEECH, "What distilling was worth"))
    assert f"| {percent(systems['teacher']['frame_accuracy']['dev'])} % ({single[0]} and {single[1]} % each) |" in worth
    learnt = {name: percent(system["last_epoch"]["train_accuracy"], 0) for name, system in systems.items()}
    dev = {name: percent(system["frame_accuracy"]["dev"]) for name, system in systems.items()}
    assert (
        f"The distilled net has {learnt['distilled']} % of its training labels right and {dev['distilled']} % of dev's,"
        f" the small one {learnt['distilled-small']} and {dev['distilled-small']} %:"
    ) in prose(section(LIBRISPEECH, "What they do not show"))


def test_the_results_of_untranscribed_speech_say_what_it_was_worth() -> None:
    name = "librispeech/semi10"
    text = prose(section(LIBRISPEECH, "Untranscribed speech"))
    both = comparisons_of(name)
    points, ends = saved(both["distilled-all"]["wer"]["difference"])
    frames, words, phones = (kept(both["distilled-all"][metric]) for metric in ("frame_accuracy", "wer", "per"))
    alone = [percent(both["distilled"][metric]["share_kept"], 0) for metric in ("frame_accuracy", "wer", "per")]
    frames = frames.replace("(", "in frames (").replace("in frames", "of the teacher's gain in frames")
    assert (
        f"is {points} points better than the same net trained directly (95 % interval {ends}), and keeps {frames}, "
        f"{words.replace('(', 'in words (')} and {phones.replace('(', 'in phones (')}; distilled on the one speaker "
        f"it keeps {alone[0]}, {alone[1]} and {alone[2]} %."
    ) in text
    took = seconds(name)
    assert (
        f"Prepare {took['prepare']}, features {took['features']}, alignment {took['align']}, teachers "
        f"{took['train --teachers']}, soft targets {took['soft-targets']} and students {took['train']} seconds"
    ) in prose(section(IN_DETAIL, "semi10.yaml"))


def test_the_results_of_half_of_the_transcripts_say_what_it_was_worth() -> None:
    name, oracle = "librispeech/semi", "librispeech/mini"
    both = comparisons_of(name)
    points, ends = saved(both["distilled-all"]["wer"]["difference"])
    points_left, ends_left = saved(both["distilled"]["wer"]["difference"])
    frames, words, phones = (kept(both["distilled-all"][metric]) for metric in ("frame_accuracy", "wer", "per"))
    for sentence in (
        f"{minutes(name, 'train')} minutes of 150 speakers with transcripts, {minutes(name, 'hidden')} minutes of 41",
        f"is {points} points better than trained directly (95 % interval {ends}), and distilled on what is left "
        f"{points_left} ({ends_left}).",
        f"It keeps {frames} of the teacher's gain in frames, {words} in words and {phones} in phones.",
        f"With all transcripts the direct net makes {rate(oracle, 'direct')} %, the distilled one "
        f"{rate(oracle, 'distilled')} %.",
    ):
        assert sentence in prose(section(LIBRISPEECH, "Half of the transcripts"))


def test_the_results_on_other_speakers_say_what_distilling_was_worth() -> None:
    name = "librispeech/kept_back"
    on_test, on_others = (comparisons_of(name, scored)["distilled"] for scored in ("test", "kept-back"))
    words, phones, frames = (
        [points(metrics[metric]["difference"]) for metrics in (on_others, on_test)]
        for metric in ("wer", "per", "frame_accuracy")
    )
    text = prose(section(LIBRISPEECH, "Other speakers"))
    for sentence in (
        "108.4 minutes of 41 speakers",
        f"in words {words[0]} points on them and {words[1]} on test",
        f"in phones {phones[0]} and {phones[1]}",
        f"in frames {frames[0]} and {frames[1]}",
    ):
        assert sentence in text
    assert minutes(name, "kept-back") == "108.4"


def test_the_results_of_timit_say_what_distilling_was_worth() -> None:
    runs = [f"timit/phones48{kind}" for kind in ("", "_own", "_words")]
    metrics: list[dict[str, Any]] = [comparisons_of(run)["distilled"] for run in runs]
    by_hand, own, words = (
        (*saved(entry["wer"]["difference"]), entry["wer"]["p_distilled_better"]) for entry in metrics
    )
    frames = [percent(entry["frame_accuracy"]["difference"]["value"]) for entry in metrics]
    systems = [systems_of(run) for run in runs]
    dev = [percent(each["direct"]["wer"]["dev"] - each["distilled"]["wer"]["dev"]) for each in systems]
    text = prose(section(TIMIT, "What they show"))
    for sentence in (
        f"distilling is worth {by_hand[0]} points of the phone error rate (95 % interval {by_hand[1]}), with a "
        f"probability of {by_hand[2]:.2f} that distilled beats direct; the distilled net keeps "
        + kept(metrics[0]["wer"]).replace("(", "of the teacher's gain ("),
        f"On dev it is worth {dev[0]}, {dev[1]} and {dev[2]} points",
        f"In frames distilling gains {frames[0]}, {frames[1]} and {frames[2]} points",
    ):
        assert sentence in text
    assert (
        f"it is worth {own[0]} points of the phone error rate with the phones' order ({own[1]}, probability "
        f"{own[2]:.2f}) and {words[0]} with the words ({words[1]}, {words[2]:.2f})."
    ) in prose(section(TIMIT, "What they do not show"))


def test_the_results_of_the_prompts_say_what_the_nets_learn_from_and_keep() -> None:
    name = "prompts/demo"
    text = prose(section(PROMPTS, "Results"))
    kept_in_phones = [
        percent(comparisons_of(name)[system]["per"]["share_kept"], 0) for system in ("distilled", "distilled-small")
    ]
    test, took = results_of(name)["data"]["sets"]["test"], seconds(name)
    for sentence in (
        f"the teacher and the direct nets learn from {minutes(name, 'train')} minutes, the distilled nets from "
        f"{minutes(name, 'train', 'hidden')}.",
        f"Test: {test['utterances']} prompts, {systems_of(name)['teacher']['errors']['test']['words']} words",
        f"({rate(name, 'teacher')} and {rate(name, 'distilled')} %) and more with seed 3",
        f"With seed 1 the nets keep {kept_in_phones[0]} and {kept_in_phones[1]} % of the teacher's gain in phones.",
        f"context-independent ones in phones ({rate(name, 'direct', 'per')} and {rate(name, 'monophone', 'per')} %;",
        f"In words ({rate(name, 'direct')} and {rate(name, 'monophone')},",
        f"prepare {took['prepare']}, features {took['features']}, align {took['align']}, teachers "
        f"{took['train --teachers']}, soft targets {took['soft-targets']}, the other systems {took['train']}, decoding "
        f"with k2 {took['decode']} seconds.",
    ):
        assert sentence in text
