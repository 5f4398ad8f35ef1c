"""How much memory compiling a decoding graph takes, estimated before it begins."""

from __future__ import annotations

from pathlib import Path

from asr_kd.errors import UserError
from asr_kd.io.formatting import human_bytes
from asr_kd.io.resources import available_memory

# Peaks of benchmarks/bench_graph.py: 423 thousand n-grams over 20 thousand words 2.36 GB, 1.27 million over 120
# thousand 6.57 GB. The number of n-grams decides, not that of words. The model itself is included: 0.44 kB an n-gram.
_FIXED, _PER_NGRAM = 0.3e9, 5.0e3
_READ_PER_NGRAM = 0.45e3
ARCS_PER_NGRAM, _BYTES_OF_ARC = 14.0, 20.0  # of the finished graph


def bytes_to_compile(num_ngrams: int) -> float:
    """About the most memory at once."""
    return _FIXED + _PER_NGRAM * num_ngrams


def bytes_on_disk(num_ngrams: int) -> float:
    """About what the finished graph takes."""
    return _BYTES_OF_ARC * ARCS_PER_NGRAM * num_ngrams


def bytes_to_read(num_ngrams: int) -> float:
    """About what a language model takes in memory."""
    return _READ_PER_NGRAM * num_ngrams


def too_large(num_ngrams: int, path: Path, *, given: bool, reading: bool = False) -> str | None:
    """One sentence where memory does not suffice for the graph of a language model, with what would fit; else None.

    Args:
      path: the language model's file.
      reading: whether it suffices for the model itself.
      given: the model is a file that the user brought, whose pruning and vocabulary the config does not set.
    """
    free, needed = available_memory(), (bytes_to_read if reading else bytes_to_compile)(num_ngrams)
    if free is None or needed <= free:
        return None
    what = "reading its" if reading else "the graph of its"
    fits = max(0.0, free - _FIXED) / _PER_NGRAM
    smaller = f"the graph of about {fits:,.0f} n-grams fits" if fits >= 1 else "no graph fits"
    advice = (
        "name a smaller --lm (OpenSLR's 3-gram.pruned.3e-7 has about 1.4 million), or have one estimated from --lm-text"
        if given
        else "raise lang.prune or lower lang.vocabulary"
    )
    return (
        f"{path}: {what} {num_ngrams:,} n-grams takes about {human_bytes(needed)} of memory, but {human_bytes(free)} "
        f"are free; {smaller}: {advice}, and prepare again."
    )


def check_compiling(num_ngrams: int, path: Path, *, given: bool) -> None:
    """Raises UserError where the graph of a language model would not fit; arguments as of `too_large`."""
    if (sentence := too_large(num_ngrams, path, given=given)) is not None:
        raise UserError(sentence)


def check_reading(num_ngrams: int, path: Path) -> None:
    """Raises UserError where a language model that the user brought would not fit."""
    if (sentence := too_large(num_ngrams, path, given=True, reading=True)) is not None:
        raise UserError(sentence)
