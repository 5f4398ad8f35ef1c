"""L, from phones to words, and G, the back-off language model: what a decoding graph is composed of.

The labels of words are their index + 1; V + 1 is the symbol for backing off.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from asr_kd.decoding.fst_io import Fst
from asr_kd.errors import UserError
from asr_kd.lang.lexicon import Lang
from asr_kd.lang.ngram import BEGIN, END, Arpa, NGram

Arc = tuple[int, int, int, int, float]  # source, destination, input label, output label, cost


def lexicon_fst(lang: Lang, silence_probability: float) -> tuple[Fst, range]:
    """The closure of all pronunciations of `lang.words`, with optional silence and determinizable.

    Silence (phone 0) may stand at the start and after each word, each time with `silence_probability`. A pronunciation
    that another word shares, or that begins another one, ends in a symbol of its own (Mohri, Pereira, Riley 2008).

    Args:
      silence_probability: in [0, 1); 0: silence is only where it is a word's pronunciation.

    Returns:
      The transducer and its disambiguation symbols, which follow phone index + 1 among the input labels; the first of
      them, #0, is for backing off.

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
    arcs: list[Arc] = [(begin, loop, 0, 0, speech), (begin, pause, 0, 0, silence)]
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

    final = np.full(states, np.inf, np.float32)
    final[loop] = 0.0
    fst = _fst([arc for arc in arcs if arc[4] < np.inf], final, begin)
    return fst, range(backoff_label, pause_label + 1)


def grammar_fst(arpa: Arpa, words: tuple[str, ...]) -> Fst:
    """An acceptor of words but for its back-off arcs, which have no output; one state per history.

    A word of the model that is not among `words` is left out: it cannot be recognised.
    """
    ids = {word: index + 1 for index, word in enumerate(words)}
    known = ids.keys() | {BEGIN, END}
    levels = [{ngram: p for ngram, p in level.items() if known.issuperset(ngram)} for level in arpa.probabilities]
    # A history is a state if the model has an n-gram that continues it, or a back-off weight for it.
    histories = {ngram[:-1] for level in levels for ngram in level}
    histories |= {h for h in arpa.backoffs if known.issuperset(h) and len(h) < arpa.order and END not in h}
    histories.add(())
    states = {history: state for state, history in enumerate(sorted(histories, key=lambda h: (len(h), h)))}

    def state_of(history: NGram) -> int:
        while history not in states:
            history = history[1:]
        return states[history]

    arcs: list[Arc] = []
    final = np.full(len(states), np.inf, np.float32)
    for level in levels:
        for ngram, log_p in sorted(level.items()):
            source, word = states[ngram[:-1]], ngram[-1]
            if word == END:
                final[source] = -log_p
            elif word != BEGIN:
                target = state_of(ngram if len(ngram) < arpa.order else ngram[1:])
                arcs.append((source, target, ids[word], ids[word], -log_p))
    for history, state in states.items():
        if history:
            arcs.append((state, state_of(history[1:]), len(words) + 1, 0, -arpa.backoffs.get(history, 0.0)))
    return _fst(arcs, final, state_of((BEGIN,)))


def _fst(arcs: list[Arc], final: np.ndarray, start: int) -> Fst:
    src, dst, ilabel, olabel = np.array([arc[:4] for arc in arcs], np.int32).reshape(-1, 4).T
    return Fst(src, dst, ilabel, olabel, np.array([arc[4] for arc in arcs], np.float32), final, start)
