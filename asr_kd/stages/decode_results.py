"""What decoding leaves in a folder: the words (or phones) of every utterance, and the counts of a set."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.decoding.decoder import Hypothesis
from asr_kd.decoding.scales import Scales
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import Scoring
from asr_kd.evaluation.wer import Pair, align_words, characters, count_errors, pooled
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import read_json, write_json, write_json_lines
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)

Reference = list[str] | None  # the words or phones of an utterance; None: not known, it is not scored


@dataclass(frozen=True)
class Recognised:
    """What a system recognised in a set.

    Attributes:
      references: [utterance of the store].
      seeds: [seed][utterance of the store].
      seconds: of one core, for each seed.
    """

    system: str
    set: str
    store: FrameStore
    references: Sequence[Reference]
    scales: Scales
    seeds: Sequence[Sequence[Hypothesis]]
    seconds: Sequence[float]


def write_results(
    folder: Path,
    recognised: Recognised,
    decoding: DecodingConfig,
    scoring: Scoring,
    vocabulary: Collection[str],
    **more: Any,
) -> None:
    """Writes hyps.jsonl and summary.json.

    Args:
      vocabulary: all words that could be recognised.
      more: further entries of the summary.
    """
    store, seeds = recognised.store, recognised.seeds
    scored = [(n, name, ref) for n, (name, ref) in enumerate(zip(store.ids, recognised.references, strict=True))
              if ref is not None]  # fmt: skip
    rows = [
        _row(utterance, seed, reference, hypotheses[number], scoring)
        for seed, hypotheses in enumerate(seeds)
        for number, utterance, reference in scored
    ]
    failed = [
        (seed, utterance)
        for seed, hypotheses in enumerate(seeds)
        for number, utterance, _ in scored
        if hypotheses[number].failed
    ]
    for seed, utterance in failed:
        log.warning("%s seed %d found no %ss for %s", recognised.system, seed, scoring.unit, utterance)
    if len(scored) < len(store.ids):
        known = {utterance for _, utterance, _ in scored}
        more["unaligned"] = [utterance for utterance in store.ids if utterance not in known]
    in_vocabulary = set(scoring.scored(sorted(vocabulary)))
    oov = sum(word not in in_vocabulary for row in rows if row["seed"] == 0 for word in row["ref"])
    audio, seconds = float(store.durations.sum()), sum(recognised.seconds)
    rates = _rates([row["alignment"] for row in rows], [row["seed"] for row in rows])
    summary = {
        "system": recognised.system,
        "set": recognised.set,
        "unit": scoring.unit,
        "acoustic_scale": recognised.scales.acoustic_scale,
        "word_penalty": recognised.scales.word_penalty,
        "prior_scale": decoding.prior_scale,
        "search_beam": decoding.search_beam,
        "seeds": len(seeds),
        **rates,
        "rtf": seconds / len(seeds) / audio,
        "seconds": round(seconds, 3),
        "audio_seconds": round(audio, 3),
        "retried": sum(row["retried"] is True for row in rows),
        "failed": list(dict.fromkeys(utterance for _, utterance in failed)),
        "oov_words": oov,
        "oov_rate": oov * len(seeds) / max(1, rates["errors"]["words"]),
        **more,
    }
    if scoring.unit == "phone":
        with_silence = [align_words(row["with_silence"]["ref"], row["with_silence"]["hyp"]) for row in rows]
        summary["with_silence"] = _rates(with_silence, [row["seed"] for row in rows])
    if scoring.characters:
        of_characters = [align_words(characters(row["ref"]), characters(row["hyp"])) for row in rows]
        summary["characters"] = _rates(of_characters, [row["seed"] for row in rows])
    write_json_lines(folder / "hyps.jsonl", rows)
    write_json(folder / "summary.json", summary)


def _row(utterance: str, seed: int, reference: list[str], hypothesis: Hypothesis, scoring: Scoring) -> dict[str, Any]:
    """What is scored, aligned; of phones also what was recognised, and what is scored where silence counts."""
    ref, hyp = scoring.scored(reference), scoring.scored(hypothesis.words)
    row = {"utterance": utterance, "seed": seed, "ref": ref, "hyp": hyp, "alignment": align_words(ref, hyp),
           "retried": hypothesis.retried}  # fmt: skip
    if scoring.unit != "phone":
        return row
    with_silence = {
        "ref": scoring.scored(reference, silence=True),
        "hyp": scoring.scored(hypothesis.words, silence=True),
    }
    return row | {"recognised": hypothesis.words, "with_silence": with_silence}


def _rates(alignments: Sequence[list[Pair]], seeds: Sequence[int]) -> dict[str, Any]:
    """Errors over all rows, and the rate of each seed."""
    per_seed = [
        pooled(count_errors(pairs) for pairs, of_row in zip(alignments, seeds, strict=True) if of_row == seed)
        for seed in range(max(seeds, default=-1) + 1)
    ]
    total = pooled(per_seed)
    return {
        "wer": total.errors / max(1, total.words),
        "wer_per_seed": [counts.errors / max(1, counts.words) for counts in per_seed],
        "errors": total.as_dict(),
    }


def read_summary(work: Workspace, system: str, name: str) -> dict[str, Any]:
    """What decoding a system on a set gave; raises UserError where that was not done."""
    return read_summary_file(work.decoded(system, name), work.command(f"decode --system {system} --set {name}"))


def read_summary_file(folder: Path, command: str) -> dict[str, Any]:
    """summary.json of a folder that `command` makes."""
    if not folder.exists():
        raise UserError(f"{folder} is not there yet; make it first: {command}")
    return read_json(folder / "summary.json", dict, f"delete {folder}, then: {command}")
