"""What decoding leaves in a folder: the words (or phones) of every utterance, and the counts of a set."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from asr_kd.decoding.decoder import Hypothesis
from asr_kd.decoding.scales import Scales
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import WORDS, Scoring
from asr_kd.evaluation.wer import Pair, align_words, count_errors, pooled
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import write_json_lines
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)


def write_results(
    folder: Path,
    config: Config,
    system: str,
    name: str,
    store: FrameStore,
    scales: Scales,
    seeds: Sequence[Sequence[Hypothesis]],
    seconds: Sequence[float],
    vocabulary: Iterable[str],
    scoring: Scoring = WORDS,
    **more: Any,
) -> None:
    """hyps.jsonl and summary.json of one system on one set.

    Args:
      seeds: [seed][utterance].
      seconds: that each seed took.
      more: what the summary is to tell besides.
    """
    rows = [
        _row(utterance, seed, text.split(), hypothesis, scoring)
        for seed, hypotheses in enumerate(seeds)
        for utterance, text, hypothesis in zip(store.ids, store.references, hypotheses, strict=True)
    ]
    failed = [(seed, utterance) for seed, of_seed in enumerate(seeds)
              for utterance, hypothesis in zip(store.ids, of_seed, strict=True) if hypothesis.failed]  # fmt: skip
    for seed, utterance in failed:
        log.warning("%s seed %d found no %ss for %s", system, seed, scoring.unit, utterance)
    known = set(scoring.scored(sorted(vocabulary)))
    oov = sum(word not in known for row in rows if row["seed"] == 0 for word in row["ref"])
    audio = float(store.durations.sum())
    total = _rates([row["alignment"] for row in rows], [row["seed"] for row in rows])
    summary = {
        "system": system,
        "set": name,
        "unit": scoring.unit,
        "acoustic_scale": scales.acoustic_scale,
        "word_penalty": scales.word_penalty,
        "prior_scale": config.decoding.prior_scale,
        "search_beam": config.decoding.search_beam,
        "seeds": len(seeds),
        **total,
        "rtf": sum(seconds) / len(seeds) / audio,
        "seconds": round(sum(seconds), 3),
        "audio_seconds": round(audio, 3),
        "retried": sum(row["retried"] is True for row in rows),
        "failed": list(dict.fromkeys(utterance for _, utterance in failed)),
        "oov_words": oov,
        "oov_rate": oov * len(seeds) / max(1, total["errors"]["words"]),
        **more,
    }
    if scoring.unit == "phone":
        with_silence = [align_words(row["with_silence"]["ref"], row["with_silence"]["hyp"]) for row in rows]
        summary["with_silence"] = _rates(with_silence, [row["seed"] for row in rows])
    write_json_lines(folder / "hyps.jsonl", rows)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def _row(utterance: str, seed: int, reference: list[str], hypothesis: Hypothesis, scoring: Scoring) -> dict[str, Any]:
    """What is scored, aligned; of phones also what was recognised, and what is scored where silence counts."""
    ref, hyp = scoring.scored(reference), scoring.scored(hypothesis.words)
    row = {"utterance": utterance, "seed": seed, "ref": ref, "hyp": hyp, "alignment": align_words(ref, hyp),
           "retried": hypothesis.retried}  # fmt: skip
    if scoring.unit == "word":
        return row
    both = {
        name: scoring.scored(words, silence=True) for name, words in (("ref", reference), ("hyp", hypothesis.words))
    }
    return row | {"recognised": hypothesis.words, "with_silence": both}


def _rates(alignments: Sequence[list[Pair]], seeds: Sequence[int]) -> dict[str, Any]:
    """Errors over all rows, and the rate of each seed."""
    per_seed = [
        pooled(count_errors(pairs) for pairs, seed in zip(alignments, seeds, strict=True) if seed == one)
        for one in range(max(seeds, default=-1) + 1)
    ]
    total = pooled(per_seed)
    return {
        "wer": total.errors / max(1, total.words),
        "wer_per_seed": [one.errors / max(1, one.words) for one in per_seed],
        "errors": total.as_dict(),
    }


def rate_name(summary: dict[str, Any]) -> str:
    """What its error rate is called."""
    return "PER" if summary.get("unit") == "phone" else "WER"


def decoded_folder(work: Workspace, system: str, name: str) -> Path:
    return work.exp(f"decode_{system}_{name}")


def rescored_folder(work: Workspace, system: str, name: str, lm: str) -> Path:
    """What a larger language model makes of a system's lists; `lm` is its file's name."""
    return work.exp(f"rescored_{system}_{name}_{model_name(lm)}")


def model_name(file: str) -> str:
    return file.removesuffix(".gz").removesuffix(".arpa")


def read_summary(work: Workspace, system: str, name: str) -> dict[str, Any]:
    """What decoding a system on a set gave; UserError where that was not done."""
    file = decoded_folder(work, system, name) / "summary.json"
    if not file.parent.exists():
        raise UserError(f"{file.parent} is not there yet; make it first: {work.command(f'decode --system {system}')}")
    try:
        summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{file} is missing or damaged; delete {file.parent} and decode again.") from None
    return summary
