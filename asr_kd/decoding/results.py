"""What decoding leaves in a folder: the words of every utterance, and the counts of a set."""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from asr_kd.artifacts import Work, write_json_lines
from asr_kd.config import Config
from asr_kd.decoding.decoder import Hypothesis
from asr_kd.decoding.scales import Scales
from asr_kd.decoding.wer import WordErrors, align_words, count_errors, pooled
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore

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
    vocabulary: Container[str],
    **more: Any,
) -> None:
    """hyps.jsonl and summary.json of one system on one set.

    Args:
      seeds: [seed][utterance].
      seconds: that each seed took.
      more: what the summary is to tell besides.
    """
    references = [text.split() for text in store.texts]
    words = sum(map(len, references))
    oov = sum(word not in vocabulary for reference in references for word in reference)
    rows: list[dict[str, Any]] = []
    per_seed: list[WordErrors] = []
    failed: dict[str, None] = {}
    for seed, hypotheses in enumerate(seeds):
        counts = []
        for utterance, reference, hypothesis in zip(store.ids, references, hypotheses, strict=True):
            alignment = align_words(reference, hypothesis.words)
            counts.append(count_errors(alignment))
            rows.append(
                {"utterance": utterance, "seed": seed, "ref": reference, "hyp": hypothesis.words,
                 "alignment": alignment, "retried": hypothesis.retried}
            )  # fmt: skip
            if hypothesis.failed:
                failed[utterance] = None
                log.warning("%s seed %d found no words for %s", system, seed, utterance)
        per_seed.append(pooled(counts))
    audio = float(store.durations.sum())
    total = pooled(per_seed)
    summary = {
        "system": system,
        "set": name,
        "acoustic_scale": scales.acoustic_scale,
        "word_penalty": scales.word_penalty,
        "prior_scale": config.decoding.prior_scale,
        "search_beam": config.decoding.search_beam,
        "seeds": len(seeds),
        "wer": total.errors / max(1, total.words),
        "wer_per_seed": [one.errors / max(1, one.words) for one in per_seed],
        "errors": total.as_dict(),
        "rtf": sum(seconds) / len(seeds) / audio,
        "seconds": round(sum(seconds), 3),
        "audio_seconds": round(audio, 3),
        "retried": sum(row["retried"] is True for row in rows),
        "failed": list(failed),
        "oov_words": oov,
        "oov_rate": oov / max(1, words),
        **more,
    }
    write_json_lines(folder / "hyps.jsonl", rows)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def decoded_folder(work: Work, system: str, name: str) -> Path:
    return work.exp(f"decode_{system}_{name}")


def read_summary(work: Work, system: str, name: str) -> dict[str, Any]:
    """What decoding a system on a set gave; UserError where that was not done."""
    file = decoded_folder(work, system, name) / "summary.json"
    if not file.parent.exists():
        raise UserError(f"{file.parent} is not there yet; make it first: {work.command(f'decode --system {system}')}")
    try:
        summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{file} is missing or damaged; delete {file.parent} and decode again.") from None
    return summary
