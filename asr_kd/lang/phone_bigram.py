"""A language model of phones: what phones are recognised with where no word may help.

Each phone is a word of its own, and so is silence, as in Kaldi's recipe for TIMIT: the bigram knows where speakers
pause, and needs no pause between any two phones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from asr_kd.lang.kneser_ney import estimate
from asr_kd.lang.lexicon import Lang
from asr_kd.lang.ngram import Arpa

ORDER = 2


def phone_bigram(utterances: Iterable[Sequence[int] | NDArray[np.int32]], phones: Sequence[str]) -> Arpa:
    """Estimates a bigram of phones, as word n-grams are estimated.

    A phone that no utterance has cannot be recognised: no model has learnt it.

    Args:
      utterances: indices into `phones`, silence included; empty ones (without an alignment) are left out.

    Raises:
      ValueError: all are empty.

    >>> bigram = phone_bigram([[0, 1, 2, 0], [], [1, 2]], ["SIL", "S", "IY", "ZH"])
    >>> bigram.words, bigram.order
    (('IY', 'S', 'SIL'), 2)
    """
    return estimate(([phones[phone] for phone in utterance] for utterance in utterances if len(utterance)), ORDER)


def phones_as_words(phones: Sequence[str], arpa: Arpa) -> Lang:
    """The lexicon for a decoding graph of phones: each phone of the bigram is a word, pronounced as itself.

    Raises:
      ValueError: the bigram has a phone that is not among `phones`.

    >>> phones_as_words(("SIL", "S", "IY"), phone_bigram([[0, 1]], ("SIL", "S", "IY"))).pronunciations
    {'S': ((1,),), 'SIL': ((0,),)}
    """
    index = {phone: number for number, phone in enumerate(phones)}
    if unknown := [phone for phone in arpa.words if phone not in index]:
        raise ValueError(f"the phone bigram has {unknown[0]}, which is no phone of the lexicon")
    return Lang(tuple(phones), arpa.words, {phone: ((index[phone],),) for phone in arpa.words})
