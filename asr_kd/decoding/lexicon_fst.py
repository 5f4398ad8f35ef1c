"""L: phones to words, with all pronunciations, optional silence and the symbols that keep it determinizable."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from asr_kd.decoding.fst_io import Fst
from asr_kd.errors import UserError
from asr_kd.lang.lexicon import Lang


@dataclass(frozen=True)
class LexiconFst:
    """Input labels: phone index + 1, then the disambiguation symbols. Output labels: word id; backoff for #0."""

    fst: Fst
    disambiguation: range  # its input labels; the first is #0 (backoff of the language model)
    backoff: int  # the output label that goes with #0


def lexicon_fst(lang: Lang, silence_probability: float) -> LexiconFst:
    """The closure of all pronunciations of `lang.words`.

    Silence (phone 0) may stand at the start and after each word, each time with `silence_probability`. A pronunciation
    that another word shares, or that begins another one, ends in a symbol of its own (Mohri, Pereira, Riley 2008).

    Args:
      silence_probability: in [0, 1); 0: silence is only where it is a word's pronunciation.

    Raises:
      UserError: a word of the vocabulary has no pronunciation.
    """
    entries = []
    for index, spelling in enumerate(lang.words):
        pronunciations = sorted(set(lang.pronunciations.get(spelling, ())))
        if not pronunciations:
            raise UserError(f"the word {spelling!r} of the vocabulary has no pronunciation; add one to the lexicon.")
        entries += [(index + 1, pronunciation) for pronunciation in pronunciations]
    owners = Counter(pronunciation for _, pronunciation in entries)
    beginnings = {pronunciation[:length] for pronunciation in owners for length in range(1, len(pronunciation))}

    speech = -np.log1p(-silence_probability)
    silence = -np.log(silence_probability) if silence_probability > 0 else np.inf
    begin, loop, pause, after_pause = range(4)
    states = 4
    backoff_label = len(lang.phones) + 1  # #0
    word_label = backoff_label + 1  # #1; homophones of one pronunciation count upwards from it
    arcs: list[tuple[int, int, int, int, float]] = [(begin, loop, 0, 0, speech), (begin, pause, 0, 0, silence)]
    used: Counter[tuple[int, ...]] = Counter()
    for word, pronunciation in entries:
        labels = [phone + 1 for phone in pronunciation]
        if owners[pronunciation] > 1 or pronunciation in beginnings:
            labels.append(word_label + used[pronunciation])
            used[pronunciation] += 1
        source = loop
        for position, label in enumerate(labels):
            output = word if position == 0 else 0
            if position + 1 < len(labels):
                arcs.append((source, states, label, output, 0.0))
                source, states = states, states + 1
            else:
                arcs.append((source, loop, label, output, speech))
                arcs.append((source, pause, label, output, silence))
    pause_label = word_label + max(used.values(), default=0)
    arcs.append((pause, after_pause, 1, 0, 0.0))
    arcs.append((after_pause, loop, pause_label, 0, 0.0))
    arcs.append((loop, loop, backoff_label, len(lang.words) + 1, 0.0))

    arcs = [arc for arc in arcs if arc[4] < np.inf]
    src, dst, ilabel, olabel = np.array([arc[:4] for arc in arcs], np.int32).T
    final = np.full(states, np.inf, np.float32)
    final[loop] = 0.0
    fst = Fst(src, dst, ilabel, olabel, np.array([arc[4] for arc in arcs], np.float32), final, begin)
    return LexiconFst(fst, range(backoff_label, pause_label + 1), len(lang.words) + 1)
