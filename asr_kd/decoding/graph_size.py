"""How much memory a decoding graph will take to compile, said before it is begun."""

from __future__ import annotations

from pathlib import Path

from asr_kd.capacity import human_bytes
from asr_kd.errors import UserError
from asr_kd.lang.ngram import Arpa

# Peaks of benchmarks/bench_graph.py: 423 thousand n-grams over 20 thousand words 2.4 GB, 469 thousand over 60 thousand
# 2.6 GB. The n-grams decide, not the words.
_FIXED, _PER_NGRAM = 0.5e9, 4.6e3


def bytes_to_compile(num_ngrams: int) -> float:
    """About the most memory at once."""
    return _FIXED + _PER_NGRAM * num_ngrams


def available_bytes() -> float | None:
    """Memory that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def check_memory(arpa: Arpa, path: Path) -> None:
    """Raises UserError where the graph of a language model would not fit; `path` is the model's file."""
    count = sum(map(len, arpa.probabilities))
    needed, free = bytes_to_compile(count), available_bytes()
    if free is None or needed <= free:
        return
    fits = max(0.0, free - _FIXED) / _PER_NGRAM
    smaller = f"one of about {fits:,.0f} n-grams fits" if fits >= 1 else "none fits"
    raise UserError(
        f"{path}: the graph of its {count:,} n-grams takes about {human_bytes(needed)} of memory to compile, but "
        f"{human_bytes(free)} are free; {smaller}: raise lang.prune, lower lang.vocabulary, or name a smaller "
        "--lm, and prepare again."
    )
