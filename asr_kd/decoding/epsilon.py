"""Epsilon removal that loses no word: arcs that come to carry several words point into a table of word sequences.

An epsilon arc can be folded into the arcs that follow it or into those that lead to it; each state takes the cheaper
way. Backing off in a language model shows why: the unigram state has hundreds of arcs out, but few lead to a history.
"""

from __future__ import annotations

import numpy as np

from asr_kd.decoding.fst_io import Fst


class Outputs:
    """Output labels: 0 nothing, 1..V one word, above V the word sequence `sequences[label - V - 1]`."""

    def __init__(self, num_words: int) -> None:
        self.num_words = num_words
        self.sequences: list[tuple[int, ...]] = []
        self._labels: dict[tuple[int, ...], int] = {}

    def words(self, label: int) -> tuple[int, ...]:
        """The word ids of one label."""
        if label > self.num_words:
            return self.sequences[label - self.num_words - 1]
        return (label,) if label else ()

    def concatenate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(n,), (n,) int -> (n,) int32 labels of the words of `first`, then those of `second`."""
        result = np.where(first == 0, second, first).astype(np.int32)
        both = np.flatnonzero((first != 0) & (second != 0))
        if len(both):
            pairs, inverse = np.unique(np.stack([first[both], second[both]], 1), axis=0, return_inverse=True)
            labels = [self._label(self.words(int(a)) + self.words(int(b))) for a, b in pairs]
            result[both] = np.array(labels, np.int32)[inverse.ravel()]
        return result

    def _label(self, words: tuple[int, ...]) -> int:
        if words not in self._labels:
            self.sequences.append(words)
            self._labels[words] = self.num_words + len(self.sequences)
        return self._labels[words]


def remove_epsilon(fst: Fst, outputs: Outputs) -> Fst:
    """The same weighted relation without input epsilons, tropical semiring; the words of the empty input may be lost.

    Args:
      fst: input label 0 is epsilon; output labels are those of `outputs`. No state has words on an epsilon cycle.
      outputs: gets the word sequences that arcs come to carry.

    Raises:
      ValueError: there is an epsilon cycle.
    """
    real = fst.ilabel != 0
    src, dst, ilabel, olabel, cost = (x[real] for x in (fst.src, fst.dst, fst.ilabel, fst.olabel, fst.cost))
    states = fst.num_states
    first, last = _spans(src, states)  # arcs from epsilon-free arcs only; src is sorted below
    order = np.argsort(src, kind="stable")
    src, dst, ilabel, olabel, cost = (x[order] for x in (src, dst, ilabel, olabel, cost))
    fan_out = last - first
    fan_in = np.bincount(dst, minlength=states)

    sources = np.union1d(dst, [fst.start])
    at, to, words, weight = _closures(fst, sources, outputs)
    useful = (fan_out[to] > 0) | np.isfinite(fst.final[to])
    at, to, words, weight = at[useful], to[useful], words[useful], weight[useful]
    closure_first, closure_last = _spans(at, states)
    size = closure_last - closure_first

    # Forward: the state gets copies of all arcs that follow its epsilons; backward: each arc to it is copied instead.
    following = np.bincount(at, fan_out[to], minlength=states)
    forward = following - fan_out < fan_in * (size - 1)
    forward[at[(words != 0) & np.isfinite(fst.final[to])]] = False  # a final weight cannot carry words
    whole = forward.copy()
    whole[fst.start] = True  # no arc leads to the start that could be copied

    # State x keeps only its own arcs; state `states + x` is x with everything that its epsilons lead to.
    chosen = np.flatnonzero(whole[at])
    pick, entry = _repeat(first[to[chosen]], last[to[chosen]])
    entry = chosen[entry]
    from_full = (states + at[entry], dst[pick], ilabel[pick], outputs.concatenate(words[entry], olabel[pick]))
    cost_full = weight[entry] + cost[pick]
    new = [np.concatenate([a, b]) for a, b in zip((src, dst, ilabel, olabel), from_full, strict=True)]
    new_cost = np.concatenate([cost, cost_full])

    to_full = forward[new[1]]
    arc = np.flatnonzero(~to_full)
    pick, entry = _repeat(closure_first[new[1][arc]], closure_last[new[1][arc]])
    entry = arc[entry]
    src = np.concatenate([new[0][to_full], new[0][entry]])
    dst = np.concatenate([states + new[1][to_full], to[pick]])
    ilabel = np.concatenate([new[2][to_full], new[2][entry]])
    olabel = np.concatenate([new[3][to_full], outputs.concatenate(new[3][entry], words[pick])])
    cost = np.concatenate([new_cost[to_full], new_cost[entry] + weight[pick]])

    final = np.full(2 * states, np.inf, np.float32)
    final[:states] = fst.final
    np.minimum.at(final, states + at[chosen], weight[chosen] + fst.final[to[chosen]])

    order = np.lexsort((cost, olabel, ilabel, dst, src))
    key = np.stack([src, dst, ilabel, olabel], 1)[order]
    keep = order[np.concatenate([[True], (key[1:] != key[:-1]).any(1)])] if len(order) else order
    return Fst(
        src[keep].astype(np.int32),
        dst[keep].astype(np.int32),
        ilabel[keep],
        olabel[keep],
        cost[keep].astype(np.float32),
        final,
        states + fst.start,
    )


def _closures(fst: Fst, sources: np.ndarray, outputs: Outputs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Best epsilon paths: (n,) from, to, output label, cost, sorted by `from`; each source reaches itself at 0."""
    is_epsilon = np.flatnonzero(fst.ilabel == 0)
    is_epsilon = is_epsilon[np.argsort(fst.src[is_epsilon], kind="stable")]
    first, last = _spans(fst.src[is_epsilon], fst.num_states)
    nothing = np.zeros(len(sources), np.int32)
    frontier = (sources.astype(np.int32), sources.astype(np.int32), nothing, nothing.astype(np.float64))
    levels = [frontier]
    for _ in range(fst.num_states):
        at, to, words, cost = frontier
        pick, entry = _repeat(first[to], last[to])
        if not len(pick):
            at, to, words, cost = _best(*(np.concatenate(parts) for parts in zip(*levels, strict=True)))
            return at, to, words, cost
        arc = is_epsilon[pick]
        label = outputs.concatenate(words[entry], fst.olabel[arc])
        frontier = _best(at[entry], fst.dst[arc], label, cost[entry] + fst.cost[arc])
        levels.append(frontier)
    raise ValueError("the transducer has an epsilon cycle")


def _best(
    at: np.ndarray, to: np.ndarray, words: np.ndarray, cost: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The cheapest of each (at, to, words), sorted."""
    order = np.lexsort((cost, words, to, at))
    key = np.stack([at, to, words], 1)[order]
    keep = order[np.concatenate([[True], (key[1:] != key[:-1]).any(1)])]
    return at[keep], to[keep], words[keep], cost[keep]


def _spans(keys: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each key's rows begin and end once they are sorted by key: two (size,) int64."""
    last = np.cumsum(np.bincount(keys, minlength=size))
    return np.concatenate([[0], last[:-1]]), last


def _repeat(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers in the ranges [first, last), and for each the range it comes from."""
    lengths = last - first
    entry = np.repeat(np.arange(len(lengths)), lengths)
    return first[entry] + np.arange(len(entry)) - np.repeat(np.cumsum(lengths) - lengths, lengths), entry
