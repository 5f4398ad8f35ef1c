"""What the results say, in sentences and plain-text columns: the same for the page, the Markdown, the terminal.

Rates of errors are of words (WER), or of phones (PER) where the corpus is recognised as phones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asr_kd.evaluation.confusions import most_confused
from asr_kd.report.style import human_bytes

Results = dict[str, Any]


def percent(value: float | None, digits: int = 1) -> str:
    """0.2345 -> "23.5 %", with a no-break space; None -> a dash."""
    return "–" if value is None else f"{value * 100:.{digits}f}\N{NO-BREAK SPACE}%".replace("-", "−")


def probability(value: float, *, above: str = ">", below: str = "<") -> str:
    """Two digits, but never a certainty that a finite number of resamples cannot give: "> 0.99"."""
    if value > 0.995:
        return f"{above}\N{NO-BREAK SPACE}0.99"
    return f"{below}\N{NO-BREAK SPACE}0.01" if value < 0.005 else f"{value:.2f}"


def _in_words(value: float) -> str:
    return probability(value, above="above", below="below")


def plural(number: int, what: str) -> str:
    """1, "seed" -> "1 seed"; 2 -> "2 seeds"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def human_count(number: float) -> str:
    """1234567 -> "1.23 M"."""
    for unit in ("", " k", " M", " G"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T"


def human_seconds(seconds: float) -> str:
    """75.2 -> "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def rows_of(results: Results) -> dict[str, dict[str, Any]]:
    """System -> its row."""
    return {row["name"]: row for row in results["systems"]}


def rate_name(results: Results) -> str:
    """What the rate of errors is called."""
    return "PER" if results["unit"] == "phone" else "WER"


def labels(results: Results) -> str:
    """What the networks were trained on."""
    return {
        "manual": "phone times set by hand",
        "words": "the forced alignment of the words",
    }.get(results["alignment"]["labels"], "the forced alignment")


def sentences(results: Results) -> list[str]:
    """Three sentences: what was done, what it gave frame by frame, and what it gave in words."""
    rows, distillation = rows_of(results), results["distillation"]
    direct, ensemble, distilled = rows["direct"], rows["ensemble"], rows["distilled"]
    seeds = distilled["seeds"]
    done = (
        f"On the corpus “{results['corpus']}”, the mean of {ensemble['members']} networks "
        f"({human_count(ensemble['parameters'])} parameters together) taught one network of "
        f"{human_count(distilled['parameters'])} parameters through soft targets at temperature "
        f"{distillation['temperature']:g}; the same network was also trained directly on {labels(results)}, "
        f"{plural(seeds, 'seed')} of each."
    )
    kept = distillation["gain_kept"]["frame_accuracy"]
    if kept is None:
        frames = (
            f"In frame accuracy on test the ensemble ({percent(ensemble['frame_accuracy']['test'])}) is not above the "
            f"direct network ({percent(direct['frame_accuracy']['test'])}), so there is no gain of which the distilled "
            f"network ({percent(distilled['frame_accuracy']['test'])}) could keep a share."
        )
    else:
        share = (
            f"distilling keeps {percent(kept, 0)} of the ensemble's gain" if kept > 0 else "distilling keeps no gain"
        )
        frames = (
            f"In frame accuracy on test the distilled network reaches {percent(distilled['frame_accuracy']['test'])}, "
            f"the direct one {percent(direct['frame_accuracy']['test'])} and the ensemble "
            f"{percent(ensemble['frame_accuracy']['test'])}: {share}."
        )
    words = (
        f"It makes {percent(distilled['wer']['test'])} {results['unit']} errors where the direct network makes "
        f"{percent(direct['wer']['test'])} and the ensemble {percent(ensemble['wer']['test'])}; the probability that "
        f"it is better than the direct one (paired bootstrap over the test utterances) is "
        f"{_in_words(distillation['p_distilled_better'])}."
    )
    return [done, frames, words]


def small_pair(results: Results) -> str | None:
    """What a device would run; None where the run has no second pair."""
    rows = rows_of(results)
    if "distillation_small" not in results:
        return None
    direct, distilled, ensemble = rows["direct-small"], rows["distilled-small"], rows["ensemble"]
    found = results["distillation_small"]
    accuracy = [percent(row["frame_accuracy"]["test"]) for row in (direct, distilled)]
    return (
        f"For a device: with {human_count(distilled['parameters'])} parameters ({human_bytes(distilled['bytes'])}, a "
        f"{round(ensemble['parameters'] / distilled['parameters'])}th of the ensemble's), distilling takes the "
        f"{results['unit']} error rate on test from {percent(direct['wer']['test'])} to "
        f"{percent(distilled['wer']['test'])} and the frame accuracy from {accuracy[0]} to {accuracy[1]}; "
        f"the probability that the distilled one is better in {results['unit']}s is "
        f"{_in_words(found['p_distilled_better'])}."
    )


def monophone_control(results: Results) -> str | None:
    """What tying states over contexts is worth; None where the run has no control."""
    rows = rows_of(results)
    if "monophone" not in rows:
        return None
    mono, direct = rows["monophone"], rows["direct"]
    return (
        f"The control: the direct network on {mono['states']} context-independent states instead of "
        f"{direct['states']} tied ones makes {percent(mono['wer']['test'])} {results['unit']} errors (tied: "
        f"{percent(direct['wer']['test'])}). Its frame accuracy and cross-entropy are over other, fewer classes and "
        f"cannot be held against the others'."
    )


def phones(results: Results) -> str | None:
    """How phones are scored, and which are most confused; None where words are."""
    if results["unit"] != "phone":
        return None
    sets, confused = results["phones"], results["confusions"]
    worst = ", ".join(
        f"{t.lower()} as {h.lower()} ({n})" for t, h, n in most_confused(confused["counts"], 6) if t and h
    )
    classes = f"trained as {sets['trained']} and scored as {sets['scored']} classes"
    return (
        f"Phones are {classes} (Lee and Hon 1989), both sides mapped before they are held together. PER leaves "
        f"silence, closures among it, out of both; beside it stands the rate where silence counts as a phone, silences "
        f"that meet as one. Scales were chosen by the former. What {confused['system']} takes for something else most "
        f"often on test, all seeds together: {worst}."
    )


def _pairing(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """How direct and distilled networks of one number belong together."""
    taken = [name for name in ("direct", "direct-small") if name in rows and rows[name]["of_ensemble"]]
    trained = [name for name in ("direct", "direct-small") if name in rows and name not in taken]
    parts = [f"those of {name} are the ensemble's first ones" for name in taken]
    if trained:
        whose = "" if not taken else " of the small pair" if trained == ["direct-small"] else " of the other pair"
        parts.append(f"direct and distilled seeds of one number{whose} start from the same weights")
    return "; ".join(parts)


def notes(results: Results) -> list[str]:
    """How far the numbers can be trusted, and what they do not say."""
    rows, distillation = rows_of(results), results["distillation"]
    test = rows["direct"]["errors"]["test"]
    seeds, unit = distillation["seeds"], results["unit"]
    words = test["words"] // max(1, rows["direct"]["seeds"])
    low, high = distillation["wer_difference"]["ci95"]
    difference = f"{100 * low:+.2f} to {100 * high:+.2f} points".replace("-", "−")
    told = (
        f"it holds 0, so these {unit}s are too few to tell the two apart"
        if low <= 0 <= high
        else "it does not hold 0, so the difference is more than the choice of test utterances"
    )
    found = [
        f"Each number of a direct or distilled network is the mean over "
        f"{plural(seeds, 'seed')}; {_pairing(rows)}. "
        f"Insertions, deletions and substitutions are sums over the seeds. The ensemble is one system.",
        f"Intervals are 95 % bootstrap intervals over the test utterances ({plural(words, unit)}; the same resamples "
        f"for all seeds and systems). They say how far the rates would move with other utterances of the same kind, "
        f"not with other speakers, and not with other seeds.",
        _of_frames(results),
        f"The {rate_name(results)} of distilled minus direct has the interval {difference}: {told}. The paired "
        f"probability counts the resamples in which the distilled network makes fewer errors (a tie counts one half).",
        f"Chosen on dev alone: each network's epoch, each system's acoustic scale and {unit} penalty (table below), "
        "and then used on test as they are. Sizes, temperature, soft weight and numbers of epochs are the recipe's: "
        "what they were chosen on, its own documents must say.",
        "Frame accuracy is agreement with tied states inside phone times set by hand; where in a phone its three "
        "states begin is this run's own finding."
        if results["alignment"]["labels"] == "manual"
        else "Frame accuracy is agreement with the tied states of this run's own forced alignment, not with a human's.",
    ]
    found += _of_the_data(results)
    oov = rows["direct"]["oov"]["test"]
    if oov["words"]:
        found.append(
            f"{plural(oov['words'], unit)} of the test set ({percent(oov['rate'])}), out of the decoder's "
            f"vocabulary, cannot be got right by any system."
        )
    if retried := {name: row["retried"]["test"] for name, row in rows.items() if row["retried"]["test"]}:
        told = ", ".join(f"{name} {count:,}" for name, count in retried.items())
        found.append(
            f"Utterances of the test set in which nothing was found at first, and that were decoded alone with a wider "
            f"beam (over all seeds): {told}."
        )
    if distillation["gain_kept"]["frame_accuracy"] is None:
        found.append("The share of the gain kept is not defined here: the ensemble has no gain in frame accuracy.")
    return found


def _of_frames(results: Results) -> str:
    """Intervals of frame accuracy, and its seeds."""
    rows, gains = rows_of(results), results["distillation"]["frame_difference"]
    each = []
    for name in ("direct", "ensemble", "distilled"):
        low, high = rows[name]["frame_accuracy_ci95"]["test"]
        seeds = "; ".join(percent(value, 2) for value in rows[name]["each"]["frame_accuracy"]["test"])
        each.append(
            f"{name} {100 * low:.1f} to {percent(high)} ({'its members' if name == 'ensemble' else 'seeds'}: {seeds})"
        )
    more = [
        f"{name} {100 * one['test']:+.2f} points ({100 * one['ci95'][0]:+.2f} to {100 * one['ci95'][1]:+.2f})"
        for name, one in gains.items()
    ]
    text = (
        f"Frame accuracy on test, with intervals got in the same way: {', '.join(each)}. Against direct on the "
        f"same utterances: {', '.join(more)}."
    )
    return text.replace(" -", " −").replace("(-", "(−")


def _of_the_data(results: Results) -> list[str]:
    """What a reader must know of the corpus before believing the numbers."""
    data, found = results["data"], []
    if shared := data["shared_speakers"]:
        found.append(
            f"Warning: {plural(len(shared), 'speaker')} of the test set ({', '.join(shared)}) can be heard in training "
            f"or dev too, so the rates do not say what strangers would get."
        )
    if guessed := data["guessed_pronunciations"]:
        found.append(
            f"{plural(guessed, 'word')} are in no lexicon; how they are said was guessed from their letters, and those "
            f"of the test set are recognised the worse for every wrong guess."
        )
    if left_out := data["lm"].get("sentences_left_out"):
        found.append(
            f"The language model was estimated without {plural(left_out, 'sentence')} of its text that are also said "
            f"in dev or test."
        )
    alignment = results["alignment"]
    if "words" in alignment:
        words, phones = alignment["words"], alignment["boundaries"]
        found.append(
            f"Against a second opinion on {plural(alignment['compared'], 'utterance')}, "
            f"{percent(words.get('within_20ms'))} of {words['boundaries']:,} word boundaries and "
            f"{percent(phones.get('within_20ms'))} of {phones['boundaries']:,} phone boundaries are within 20 ms."
        )
    return found


def headline_table(results: Results) -> str:
    """The headline table in aligned columns, for the terminal."""
    head = [
        "system",
        "nets",
        "param.",
        "size",
        "frame acc. %",
        "cross-ent.",
        f"{rate_name(results)} %",
        f"{rate_name(results)} test, 95 %",
        "ins/del/sub",
        "RTF",
    ]
    under = ["", "", "", "", "dev   test", "dev  test", "dev", "", "test", ""]
    lines = [head, under]
    for row in results["systems"]:
        accuracy, entropy, wer = row["frame_accuracy"], row["cross_entropy"], row["wer"]
        low, high = row["wer_ci95"]["test"]
        errors = row["errors"]["test"]
        lines.append(
            [
                row["name"],
                str(row["members"]),
                human_count(row["parameters"]),
                human_bytes(row["bytes"]),
                f"{100 * accuracy['dev']:.1f}   {100 * accuracy['test']:.1f}",
                f"{entropy['dev']:.2f}  {entropy['test']:.2f}",
                f"{100 * wer['dev']:.1f}",
                f"{100 * wer['test']:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
                f"{errors['ins']}/{errors['del']}/{errors['sub']}",
                f"{row['rtf']:.3f}",
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = [
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width) for k, (cell, width) in enumerate(zip(line, widths))
        )
        for line in lines
    ]
    text.insert(2, "-" * len(text[0]))
    distillation = results["distillation"]
    text.append("")
    text.append(
        f"share of the ensemble's frame-accuracy gain kept: {percent(distillation['gain_kept']['frame_accuracy'], 0)}; "
        f"probability that distilled beats direct in {results['unit']}s: "
        f"{probability(distillation['p_distilled_better'])}"
    )
    if "distillation_small" in results:
        text[-1] += f" (small pair: {probability(results['distillation_small']['p_distilled_better'])})"
    text.append(f"means over {plural(distillation['seeds'], 'seed')}; ins/del/sub are their sums")
    if results["unit"] == "phone":
        rates = ", ".join(f"{r['name']} {percent(r['with_silence']['wer']['test'])}" for r in results["systems"])
        text.append(f"PER leaves silence out; with silence counted, on test: {rates}")
    return "\n".join(line.rstrip() for line in text)
