"""G: the back-off language model as an acceptor of words."""

from __future__ import annotations

import numpy as np

from asr_kd.decoding.fst_io import Fst
from asr_kd.lang.ngram import BEGIN, END, Arpa, NGram


def grammar_fst(arpa: Arpa, words: tuple[str, ...]) -> Fst:
    """One state per history; labels are word ids (index + 1), and V + 1 on the input of back-off arcs.

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

    arcs: list[tuple[int, int, int, int, float]] = []
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
    src, dst, ilabel, olabel = np.array([arc[:4] for arc in arcs], np.int32).reshape(-1, 4).T
    cost = np.array([arc[4] for arc in arcs], np.float32)
    return Fst(src, dst, ilabel, olabel, cost, final, state_of((BEGIN,)))
