"""Word and phone times for other tools: Praat's TextGrid and NIST's CTM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asr_kd.alignment.textgrid import write_textgrid
from asr_kd.alignment.times import Times
from asr_kd.io.files import replacing_file
from asr_kd.stages.finished_alignment import SETS, read_times
from asr_kd.workspace.work import Workspace, require


def export(work: Workspace, form: str, directory: Path) -> int:
    """Writes one TextGrid per utterance, or words.ctm and phones.ctm for all; returns how many utterances.

    Altered copies of the training set are left out.
    """
    require(work.exp("align"), work, "align")
    directory.mkdir(parents=True, exist_ok=True)
    everything = [times for name in SETS for times in read_times(work, name)]
    if form == "textgrid":
        for times in everything:
            with replacing_file(directory / f"{times.utterance}.TextGrid") as temporary:
                temporary.write_text(write_textgrid(times), encoding="utf-8")
    else:
        for tier in ("words", "phones"):
            with replacing_file(directory / f"{tier}.ctm") as temporary:
                temporary.write_text("".join(ctm_lines(everything, tier)), encoding="utf-8")
    return len(everything)


def ctm_lines(everything: list[Times], tier: str) -> Iterator[str]:
    """`utterance channel start duration label`, sorted as NIST's tools want it; silence is left out."""
    for times in sorted(everything, key=lambda one: one.utterance):
        for interval in times.words if tier == "words" else times.phones:
            if interval.label:
                yield f"{times.utterance} 1 {interval.start:.2f} {interval.end - interval.start:.2f} {interval.label}\n"
