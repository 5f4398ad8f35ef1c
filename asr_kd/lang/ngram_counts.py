"""Counts of n-grams of a text of any size: sorted block by block, then merged.

An n-gram is a row of a table: the row of its history in the table of n-grams one word shorter, and its last word. So
each takes the same bytes at any order, and a block of positions is sorted as plain integers.

Shapes:  T tokens of a block, V words, N n-grams of one length.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_kd.errors import UserError
from asr_kd.io.progress import progress_bar
from asr_kd.lang.ngram import BEGIN
from asr_kd.lang.ngram_text import BLOCK_TOKENS, NumberedText, Scratch

_NOT_HERE = -1  # of a position at which no n-gram of this length ends
Keys = NDArray[np.int64]


@dataclass(frozen=True)
class NGramCounts:
    """The n-grams of one length, sorted by history, then by word.

    Attributes:
      history: (N,) int32: the row of the n-gram without its last word, in the table of shorter ones.
      word: (N,) int32: the number of the last word.
      suffix: (N,) int32: the row of the n-gram without its first word.
      count: (N,) int64.
    """

    history: NDArray[np.int32]
    word: NDArray[np.int32]
    suffix: NDArray[np.int32]
    count: NDArray[np.int64]


def kneser_ney_counts(text: NumberedText, order: int, progress: str | None = None) -> list[NGramCounts]:
    """Per length: how often an n-gram occurs if it is the longest or begins a sentence, else after how many words.

    The first table has a row for each word of the vocabulary, <s> included, which is a history only: its count is 0.

    Args:
      progress: label of the progress bar; None: no bar.
    """
    words = len(text.words)
    begin = text.number(BEGIN)
    nothing, every = np.zeros(words, np.int32), np.arange(words, dtype=np.int32)
    tables = [NGramCounts(nothing, every, nothing, text.counts())]
    rows = text.blocks  # of the n-grams that end at each position
    steps = max(1, (2 * order - 3) * len(text.blocks))
    with progress_bar(progress, steps, "block") as bar:
        for n in range(2, order + 1):
            runs = []
            for tokens, shorter in zip(text.blocks, rows, strict=True):
                positions = _Positions(tokens, shorter, begin, words)
                runs.append(positions.counted(text.scratch))
                bar.update()
            merged = _merge(runs, text.scratch)
            tables.append(merged.table(words, text.scratch))
            if n < order:
                longer = []
                for tokens, shorter in zip(text.blocks, rows, strict=True):
                    longer.append(text.scratch.keep(_Positions(tokens, shorter, begin, words).rows(merged.keys)))
                    bar.update()
                rows = longer
    _count_after_words(tables, begin)
    return tables


def _count_after_words(tables: list[NGramCounts], begin: int) -> None:
    """Replaces the counts of shorter n-grams inside sentences by the number of words that they follow."""
    begins = np.zeros(len(tables[0].word), bool)
    begins[begin] = True
    for table, longer in itertools.pairwise(tables):
        if table is not tables[0]:
            begins = begins[table.history]
        after = np.bincount(longer.suffix, minlength=len(table.count))
        table.count[:] = np.where(begins, table.count, after)
    tables[0].count[begin] = 0


@dataclass(frozen=True)
class _Run:
    """Different n-grams, sorted by key."""

    keys: Keys  # history * V + word
    suffix: NDArray[np.int32]
    count: NDArray[np.int64]

    def part(self, first: int, last: int) -> _Run:
        return _Run(self.keys[first:last], self.suffix[first:last], self.count[first:last])

    def table(self, words: int, scratch: Scratch) -> NGramCounts:
        if len(self.keys) > np.iinfo(np.int32).max:
            raise UserError(
                f"the text has {len(self.keys):,} n-grams of one length, too many to number; set lang.vocabulary, or "
                "lower lang.ngram_order."
            )
        history = scratch.keep((self.keys // words).astype(np.int32))
        word = scratch.keep((self.keys % words).astype(np.int32))
        return NGramCounts(history, word, self.suffix, self.count)


@dataclass(frozen=True)
class _Positions:
    """The places of a block at which an n-gram ends, and the row of the shorter n-gram that ends at each."""

    tokens: NDArray[np.int32]  # (T,)
    shorter: NDArray[np.int32]  # (T,)
    begin: int  # the number of <s>
    words: int

    @property
    def _ends(self) -> NDArray[np.bool_]:
        """(T - 1,) whether one ends at each token but the first: its history is in the same sentence."""
        return (self.tokens[1:] != self.begin) & (self.shorter[:-1] != _NOT_HERE)

    def _keys(self, ends: NDArray[np.bool_]) -> Keys:
        history = self.shorter[:-1][ends].astype(np.int64)
        return history * self.words + self.tokens[1:][ends]

    def counted(self, scratch: Scratch) -> _Run:
        """The different n-grams of the block."""
        ends = self._ends
        keys = self._keys(ends)
        order = np.argsort(keys)
        keys = keys[order]
        first = _first_of_each(keys)
        suffix = self.shorter[1:][ends][order[first]]
        count = np.diff(first, append=len(keys)).astype(np.int64)
        return _Run(scratch.keep(keys[first]), scratch.keep(suffix), scratch.keep(count))

    def rows(self, table: Keys) -> NDArray[np.int32]:
        """(T,) the row of the n-gram that ends at each position in a table that has all of them."""
        ends = self._ends
        keys = self._keys(ends)
        order = np.argsort(keys)  # searching in order reads the table once from front to back
        keys = keys[order]
        first = _first_of_each(keys)
        table_rows = np.empty(len(keys), np.int32)
        table_rows[order] = np.repeat(np.searchsorted(table, keys[first]), np.diff(first, append=len(keys)))
        rows = np.full(len(self.tokens), _NOT_HERE, np.int32)
        rows[1:][ends] = table_rows
        return rows


def _first_of_each(keys: Keys) -> NDArray[np.int64]:
    """Returns the position of the first occurrence of each distinct key; the keys are sorted."""
    return np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)


def _merge(runs: list[_Run], scratch: Scratch) -> _Run:
    """One run of several, whose counts are summed."""
    if len(runs) == 1:
        return runs[0]
    parts = [_merge_in_memory(parts) for parts in _ranges(runs)]
    return _Run(
        scratch.keep(np.concatenate([part.keys for part in parts] or [np.zeros(0, np.int64)])),
        scratch.keep(np.concatenate([part.suffix for part in parts] or [np.zeros(0, np.int32)])),
        scratch.keep(np.concatenate([part.count for part in parts] or [np.zeros(0, np.int64)])),
    )


def _ranges(runs: list[_Run]) -> Iterator[list[_Run]]:
    """The runs in ranges of keys, the smallest first, each of about a block's size."""
    step = max(1, BLOCK_TOKENS // (8 * max(1, len(runs))))  # a range is at most an eighth larger than it should be
    sample = np.sort(np.concatenate([run.keys[::step] for run in runs]))
    bounds = np.unique(sample[8 * len(runs) :: 8 * len(runs)])
    cuts = [[0, *np.searchsorted(run.keys, bounds), len(run.keys)] for run in runs]
    for k in range(len(bounds) + 1):
        yield [run.part(cut[k], cut[k + 1]) for run, cut in zip(runs, cuts, strict=True)]


def _merge_in_memory(runs: list[_Run]) -> _Run:
    keys = np.concatenate([run.keys for run in runs])
    order = np.argsort(keys)
    keys = keys[order]
    first = _first_of_each(keys)
    suffix = np.concatenate([run.suffix for run in runs])[order[first]]
    count = np.concatenate([run.count for run in runs])[order]
    return _Run(keys[first], suffix, np.add.reduceat(count, first) if len(first) else count)
