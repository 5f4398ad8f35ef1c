"""Word and phone times for other tools: Praat's TextGrid and NIST's CTM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_kd.alignment.segments import read_alignment
from asr_kd.artifacts import Work, replacing_file, require
from asr_kd.frames.store import FRAME_SHIFT, FrameStore
from asr_kd.lang.lexicon import read_lang

SETS = ("train", "dev", "test")


@dataclass(frozen=True)
class Interval:
    start: float  # seconds
    end: float
    label: str  # "" is silence


@dataclass(frozen=True)
class Times:
    """One utterance; both tiers cover it from 0 to `duration` without gaps."""

    utterance: str
    duration: float
    words: list[Interval]
    phones: list[Interval]


def export(work: Work, form: str, directory: Path) -> int:
    """Writes one TextGrid per utterance, or words.ctm and phones.ctm for all; returns how many utterances.

    Altered copies of the training set are left out.
    """
    require(work.exp("align"), work, "align")
    directory.mkdir(parents=True, exist_ok=True)
    everything = [times for name in SETS for times in read_times(work, name)]
    if form == "textgrid":
        for times in everything:
            with replacing_file(directory / f"{times.utterance}.TextGrid") as temporary:
                temporary.write_text(textgrid(times), encoding="utf-8")
    else:
        for tier in ("words", "phones"):
            with replacing_file(directory / f"{tier}.ctm") as temporary:
                temporary.write_text("".join(ctm_lines(everything, tier)), encoding="utf-8")
    return len(everything)


def read_times(work: Work, name: str) -> Iterator[Times]:
    """The aligned, unaltered utterances of a set."""
    store, lang = FrameStore.open(work.frames(name)), read_lang(work.lang)
    segments = read_alignment(work.exp("align") / f"{name}.npz").segments
    bounds = np.searchsorted(segments[:, 0], np.arange(len(store.ids) + 1))
    for utterance, identity in enumerate(store.ids):
        rows = segments[bounds[utterance] : bounds[utterance + 1]]
        if len(rows) == 0 or store.speeds[utterance] != 1.0:
            continue
        duration = float(store.durations[utterance])
        words = store.texts[utterance].split()
        phones: list[Interval] = []
        spans: list[tuple[Interval, int]] = []
        for k, (_, phone, word, first, end) in enumerate(rows.tolist()):
            # the last frame may reach a little past the audio or end before it
            begin, stop = first * FRAME_SHIFT, duration if k == len(rows) - 1 else end * FRAME_SHIFT
            phones.append(Interval(begin, stop, "" if word < 0 else lang.phones[phone]))
            if spans and word >= 0 and spans[-1][1] == word:
                spans[-1] = (Interval(spans[-1][0].start, stop, words[word]), word)
            else:
                spans.append((Interval(begin, stop, "" if word < 0 else words[word]), word))
        yield Times(identity, duration, [span for span, _ in spans], phones)


def ctm_lines(everything: list[Times], tier: str) -> Iterator[str]:
    """`utterance channel start duration label`, sorted as NIST's tools want it; silence is left out."""
    for times in sorted(everything, key=lambda one: one.utterance):
        for interval in times.words if tier == "words" else times.phones:
            if interval.label:
                yield f"{times.utterance} 1 {interval.start:.2f} {interval.end - interval.start:.2f} {interval.label}\n"


def textgrid(times: Times) -> str:
    """Praat's long text format, with the tiers `words` and `phones`."""
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {times.duration:.4f}",
        "tiers? <exists>",
        "size = 2",
        "item []:",
    ]
    for number, (name, intervals) in enumerate((("words", times.words), ("phones", times.phones)), start=1):
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f'        name = "{name}"',
            "        xmin = 0",
            f"        xmax = {times.duration:.4f}",
            f"        intervals: size = {len(intervals)}",
        ]
        for k, interval in enumerate(intervals, start=1):
            label = interval.label.replace('"', '""')
            lines += [
                f"        intervals [{k}]:",
                f"            xmin = {interval.start:.4f}",
                f"            xmax = {interval.end:.4f}",
                f'            text = "{label}"',
            ]
    return "\n".join(lines) + "\n"
