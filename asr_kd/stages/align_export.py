"""Word and phone times for other tools: Praat's TextGrid and NIST's CTM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from asr_kd.alignment.textgrid import write_textgrid
from asr_kd.alignment.times import Times
from asr_kd.io.files import replacing_file
from asr_kd.stages.finished_alignment import read_times
from asr_kd.workspace.config import Config
from asr_kd.workspace.sets import all_sets
from asr_kd.workspace.work import Workspace, require


def export(config: Config, work: Workspace, form: str, directory: Path) -> int:
    """Writes one TextGrid per utterance, or words.ctm and phones.ctm for all; returns how many utterances.

    Altered copies of the training set are left out.
    """
    require(work.exp("align"), work, "align")
    directory.mkdir(parents=True, exist_ok=True)
    utterances = [times for name in all_sets(config, work) for times in read_times(work, name)]
    if form == "textgrid":
        for times in utterances:
            with replacing_file(directory / f"{times.utterance}.TextGrid") as temporary:
                write_textgrid(times, temporary)
    else:
        for tier in ("words", "phones"):
            with replacing_file(directory / f"{tier}.ctm") as temporary:
                temporary.write_text("".join(ctm_lines(utterances, tier)), encoding="utf-8")
    return len(utterances)


def ctm_lines(utterances: Sequence[Times], tier: str) -> Iterator[str]:
    """`utterance channel start duration label`, sorted as NIST's tools expect it; silence is left out."""
    for times in sorted(utterances, key=lambda times: times.utterance):
        for interval in times.words if tier == "words" else times.phones:
            if interval.label:
                yield f"{times.utterance} 1 {interval.start:.2f} {interval.end - interval.start:.2f} {interval.label}\n"
