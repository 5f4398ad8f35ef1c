"""A text of any size as numbers, in blocks of whole sentences that need not be in memory.

Shapes:  T tokens of a block, V words.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from asr_kd.io.files import full_disk_is_an_error
from asr_kd.lang.ngram import BEGIN, END

BLOCK_TOKENS = 8_000_000  # counting takes about 40 bytes of memory for each token of a block
UNKNOWN = "<UNK>"
_SMALL = 1_000_000  # bytes that are not worth a file
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass
class Scratch:
    """Keeps large arrays: in memory, or in files of a folder, which the operating system reads as it needs.

    The files have no name, so that a killed process leaves none.
    """

    folder: Path | None = None

    def keep(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """The same array, perhaps in a file.

        Raises:
          FullDiskError: the folder's disk is full.
        """
        if self.folder is None or values.nbytes < _SMALL:
            return values
        with full_disk_is_an_error(self.folder), tempfile.TemporaryFile(dir=self.folder) as file:
            values.tofile(file)
            kept: NDArray[Scalar] = np.asarray(np.memmap(file, values.dtype, "r+", shape=values.shape))
        return kept


@dataclass(frozen=True)
class NumberedText:
    """Sentences as numbers of words, each between the numbers of <s> and </s>.

    Attributes:
      words: the vocabulary, sorted, with both sentence marks; a word's number is its place here.
      blocks: (T,) int32 each; a sentence is in one block.
    """

    words: tuple[str, ...]
    blocks: list[NDArray[np.int32]]
    scratch: Scratch = field(default_factory=Scratch)

    @classmethod
    def of(
        cls, sentences: Iterable[Sequence[str]], vocabulary: Iterable[str] = (), scratch: Scratch | None = None
    ) -> NumberedText:
        """Numbers the words of sentences, without sentence marks; those of `vocabulary` get numbers in any case.

        >>> text = NumberedText.of([["b", "a"], ["a"]])
        >>> text.words, text.blocks[0].tolist()
        (('</s>', '<s>', 'a', 'b'), [1, 3, 2, 0, 1, 2, 0])
        """
        scratch = scratch or Scratch()
        numbers = {BEGIN: 0, END: 1}
        for word in vocabulary:
            numbers.setdefault(word, len(numbers))
        blocks = [scratch.keep(block) for block in _blocks(sentences, numbers)]
        words = sorted(numbers)
        place = np.empty(len(words), np.int32)
        place[[numbers[word] for word in words]] = np.arange(len(words), dtype=np.int32)
        del numbers
        return cls(tuple(words), [scratch.keep(place[block]) for block in blocks], scratch)

    @property
    def tokens(self) -> int:
        """The number of tokens, sentence marks included."""
        return sum(map(len, self.blocks))

    def number(self, word: str) -> int:
        return self.words.index(word)

    def counts(self) -> NDArray[np.int64]:
        """(V,) how often each word occurs."""
        counts = np.zeros(len(self.words), np.int64)
        for block in self.blocks:
            counts += np.bincount(block, minlength=len(counts))
        return counts

    def limited(self, size: int) -> NumberedText:
        """All but the `size` most frequent words become <UNK>; of equally frequent ones the alphabet's first stay."""
        marks = [self.number(BEGIN), self.number(END)]
        frequent = np.argsort(-self.counts(), kind="stable")
        stay = frequent[~np.isin(frequent, marks)][:size]
        if len(stay) == len(self.words) - len(marks):
            return self
        known = {self.words[number]: number for number in (*marks, *stay)}
        words = sorted({UNKNOWN, *known})
        place = np.full(len(self.words), words.index(UNKNOWN), np.int32)
        for number, word in enumerate(words):
            if word in known:
                place[known[word]] = number
        return NumberedText(tuple(words), [self.scratch.keep(place[block]) for block in self.blocks], self.scratch)


def _blocks(sentences: Iterable[Sequence[str]], numbers: dict[str, int]) -> Iterator[NDArray[np.int32]]:
    """Gives new words the next numbers."""
    tokens: Any = array("i")
    begin, end = numbers[BEGIN], numbers[END]
    for sentence in sentences:
        tokens.append(begin)
        for word in sentence:
            number = numbers.get(word)
            if number is None:
                number = numbers[word] = len(numbers)
            tokens.append(number)
        tokens.append(end)
        if len(tokens) >= BLOCK_TOKENS:
            yield np.array(tokens, np.int32)
            tokens = array("i")
    if tokens:
        yield np.array(tokens, np.int32)
