"""Epsilon removal that loses no word: arcs that come to carry several words point into a table of word sequences.

An epsilon arc can be folded into the arcs that follow it or into those that lead to it; each state takes the cheaper
way. Backing off in a language model shows why: the unigram state has hundreds of arcs out, but few lead to a history.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asr_kd.decoding.fst_io import Fst, numbers_in, spans

Paths = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # (n,) from, to, output label, cost


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
    states = fst.num_states
    real = _by_source(fst, fst.ilabel != 0)
    src, dst, ilabel, olabel, cost = (x[real] for x in (fst.src, fst.dst, fst.ilabel, fst.olabel, fst.cost))
    first, last = spans(src, states)
    fan_out = last - first
    fan_in = np.bincount(dst, minlength=states)

    sources = np.union1d(dst, [fst.start])
    at, to, words, weight = _closures(fst, sources, outputs)
    useful = (fan_out[to] > 0) | np.isfinite(fst.final[to])
    at, to, words, weight = at[useful], to[useful], words[useful], weight[useful]
    closure_first, closure_last = spans(at, states)
    size = closure_last - closure_first

    # Forward: the state gets copies of all arcs that follow its epsilons; backward: each arc to it is copied instead.
    following = np.bincount(at, fan_out[to], minlength=states)
    forward = following - fan_out < fan_in * (size - 1)
    forward[at[(words != 0) & np.isfinite(fst.final[to])]] = False  # a final weight cannot carry words
    whole = forward.copy()
    whole[fst.start] = True  # no arc leads to the start that could be copied

    # State x keeps only its own arcs; state `states + x` is x with everything that its epsilons lead to.
    chosen = np.flatnonzero(whole[at])
    pick, entry = numbers_in(first[to[chosen]], last[to[chosen]])
    entry = chosen[entry]
    from_full = (states + at[entry], dst[pick], ilabel[pick], outputs.concatenate(words[entry], olabel[pick]))
    cost_full = weight[entry] + cost[pick]
    new = [np.concatenate([a, b]) for a, b in zip((src, dst, ilabel, olabel), from_full, strict=True)]
    new_cost = np.concatenate([cost, cost_full])

    to_full = forward[new[1]]
    arc = np.flatnonzero(~to_full)
    pick, entry = numbers_in(closure_first[new[1][arc]], closure_last[new[1][arc]])
    entry = arc[entry]
    src = np.concatenate([new[0][to_full], new[0][entry]])
    dst = np.concatenate([states + new[1][to_full], to[pick]])
    ilabel = np.concatenate([new[2][to_full], new[2][entry]])
    olabel = np.concatenate([new[3][to_full], outputs.concatenate(new[3][entry], words[pick])])
    cost = np.concatenate([new_cost[to_full], new_cost[entry] + weight[pick]])

    final = np.full(2 * states, np.inf, np.float32)
    final[:states] = fst.final
    np.minimum.at(final, states + at[chosen], weight[chosen] + fst.final[to[chosen]])

    keep = _cheapest((src, dst, ilabel, olabel), cost)
    return Fst(
        src[keep].astype(np.int32),
        dst[keep].astype(np.int32),
        ilabel[keep],
        olabel[keep],
        cost[keep].astype(np.float32),
        final,
        states + fst.start,
    )


def _by_source(fst: Fst, chosen: np.ndarray) -> np.ndarray:
    """The numbers of the chosen arcs, sorted by source."""
    arcs = np.flatnonzero(chosen)
    return arcs[np.argsort(fst.src[arcs], kind="stable")]


def _closures(fst: Fst, sources: np.ndarray, outputs: Outputs) -> Paths:
    """Best epsilon paths, sorted by `from`; each source reaches itself at 0."""
    epsilons = _by_source(fst, fst.ilabel == 0)
    first, last = spans(fst.src[epsilons], fst.num_states)
    nothing = np.zeros(len(sources), np.int32)
    frontier = (sources.astype(np.int32), sources.astype(np.int32), nothing, nothing.astype(np.float64))
    levels = [frontier]
    for _ in range(fst.num_states):
        at, to, words, cost = frontier
        pick, entry = numbers_in(first[to], last[to])
        if not len(pick):
            return _best(*(np.concatenate(parts) for parts in zip(*levels, strict=True)))
        arc = epsilons[pick]
        label = outputs.concatenate(words[entry], fst.olabel[arc])
        frontier = _best(at[entry], fst.dst[arc], label, cost[entry] + fst.cost[arc])
        levels.append(frontier)
    raise ValueError("the transducer has an epsilon cycle")


def _best(at: np.ndarray, to: np.ndarray, words: np.ndarray, cost: np.ndarray) -> Paths:
    keep = _cheapest((at, to, words), cost)
    return at[keep], to[keep], words[keep], cost[keep]


def _cheapest(keys: Sequence[np.ndarray], cost: np.ndarray) -> np.ndarray:
    """The row with the lowest cost of all that have the same keys; sorted by the keys."""
    order = np.lexsort((cost, *reversed(keys)))
    sorted_keys = np.stack(keys, 1)[order]
    is_new = (sorted_keys[1:] != sorted_keys[:-1]).any(1)
    return order[np.concatenate([[True], is_new])] if len(order) else order
