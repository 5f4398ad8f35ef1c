"""Growing the tree: single Gaussians, questions from phone clustering, greedy gain in likelihood (Young et al. 1994).

Shapes:  P phones, K contexts that occur, F features of a frame, Q questions (sets of phones), N frames of a set.
"""

from __future__ import annotations

import heapq
import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.alignment.topology import NUM_HMM_STATES, SIL
from asr_kd.alignment.transcripts import TranscribedFrames
from asr_kd.alignment.tree import Tree

log = logging.getLogger(__name__)

NUM_CEPSTRA = 13
VARIANCE_FLOOR = 0.01  # of the global variance

Array = NDArray[np.float64]


def cepstra(log_mel: NDArray[np.float32]) -> NDArray[np.float64]:
    """(T, D) log-mel -> (T, 39): 13 cepstra (DCT-II), whose covariance is nearly diagonal, and two differences."""
    bins = log_mel.shape[1]
    basis = np.cos(np.pi / bins * np.outer(np.arange(bins) + 0.5, np.arange(NUM_CEPSTRA))) * np.sqrt(2 / bins)
    static = log_mel.astype(np.float64) @ basis
    first = _delta(static)
    return np.concatenate([static, first, _delta(first)], axis=1)


def _delta(values: Array) -> Array:
    padded = np.pad(values, ((2, 2), (0, 0)), mode="edge")
    count = len(values)
    return (2 * (padded[4:] - padded[:count]) + (padded[3 : count + 3] - padded[1 : count + 1])) / 10


class Statistics:
    """Sufficient statistics of each context that occurs: counts (K,), sums and sums of squares (K, F).

    Args:
      keys: (K,) context keys, sorted.
    """

    def __init__(self, phones: tuple[str, ...], keys: NDArray[np.int32], num_features: int) -> None:
        self.phones, self.keys = phones, keys
        self.count = np.zeros(len(keys))
        self.sums, self.squares = np.zeros((2, len(keys), num_features))

    def add(self, keys: NDArray[np.int32], features: Array) -> None:
        """(T,) contexts and (T, F) features of some frames."""
        place = np.searchsorted(self.keys, keys)
        order = np.argsort(place, kind="stable")
        where, first = np.unique(place[order], return_index=True)
        ordered = features[order]
        self.count[where] += np.diff(np.append(first, len(keys)))
        self.sums[where] += np.add.reduceat(ordered, first)
        self.squares[where] += np.add.reduceat(ordered**2, first)


@dataclass
class _Node:
    """Contexts of one (phone, HMM state) that are not split yet: rows of the statistics."""

    rows: NDArray[np.int64]
    side: int = -1  # 0: asks about the left phone, 1: the right; -1: a leaf
    question: int = -1
    yes: int = -1
    no: int = -1


def grow_tree_of_set(
    data: TranscribedFrames, contexts: NDArray[np.int32], settings: AlignmentConfig, *, seed: int
) -> Tree:
    """A tree from up to `settings.subset_hours` of a set's utterances, with the frame counts of the whole set.

    Args:
      contexts: (N,) as in `set_alignment`.
    """
    phones = data.lang.phones
    chosen = [u for u in data.choose_subset(settings.subset_hours, seed) if contexts[data.frames.offsets[u]] >= 0]
    of_utterances = [_context_independent_silence(contexts[data.span(u)], len(phones)) for u in chosen]
    statistics = Statistics(phones, np.unique(np.concatenate(of_utterances)), 3 * NUM_CEPSTRA)
    for utterance, keys in zip(chosen, of_utterances, strict=True):
        statistics.add(keys, cepstra(data.frames.normalised(utterance)))
    tree = grow_tree(statistics, leaves=settings.leaves, min_count=settings.min_count)
    log.info("the tree has %d senones for %d contexts", tree.num_senones, len(statistics.keys))
    if tree.num_senones > settings.leaves:
        log.warning(
            "alignment.leaves is %d, but no tree has fewer than one senone for each state of each phone: %d",
            settings.leaves,
            tree.num_senones,
        )
    return tree.with_counts_of(contexts)


def _context_independent_silence(keys: NDArray[np.int32], size: int) -> NDArray[np.int32]:
    """Silence sounds alike between all phones: its left and right phone become silence."""
    base = keys // (size * size)
    return np.where(base // NUM_HMM_STATES == SIL, base * size * size + SIL * size + SIL, keys).astype(np.int32)


def grow_tree(statistics: Statistics, *, leaves: int, min_count: float) -> Tree:
    """Makes the split that gains most likelihood again and again, up to `leaves` senones.

    Silence keeps its three states. No split leaves fewer than `min_count` frames on a side.
    """
    size = len(statistics.phones)
    total = statistics.count.sum()
    mean = statistics.sums.sum(0) / total
    floor = VARIANCE_FLOOR * (statistics.squares.sum(0) / total - mean**2)
    base, right = np.divmod(statistics.keys.astype(np.int64), size)
    base, left = np.divmod(base, size)  # base: 3 * phone + HMM state
    questions = _questions(statistics, base, floor)
    sides = (left, right)
    nodes: list[_Node] = []
    heap: list[tuple[float, int, int, int]] = []  # minus gain, node, side, question

    def add(rows: NDArray[np.int64], may_split: bool) -> int:
        nodes.append(_Node(rows))
        if may_split and len(rows) > 1:
            gain, side, question = _best_split(statistics, rows, sides, questions, floor, min_count)
            if gain > 0:
                heapq.heappush(heap, (-gain, len(nodes) - 1, side, question))
        return len(nodes) - 1

    roots = [
        add(np.flatnonzero(base == state), state // NUM_HMM_STATES != SIL) for state in range(size * NUM_HMM_STATES)
    ]
    count = len(roots)
    while heap and count < leaves:
        _, index, side, question = heapq.heappop(heap)
        node = nodes[index]
        answer = questions[question][sides[side][node.rows]]
        node.side, node.question = side, question
        node.yes, node.no = add(node.rows[answer], True), add(node.rows[~answer], True)
        count += 1
    return Tree(statistics.phones, _tables(nodes, roots, questions, size), np.zeros(count, np.int64))


def _tables(nodes: list[_Node], roots: list[int], questions: NDArray[np.bool_], size: int) -> NDArray[np.int32]:
    tables = np.empty((len(roots), size, size), np.int32)
    next_senone = 0
    for root_number, root in enumerate(roots):
        everywhere = np.ones(size, bool)
        stack = [(root, everywhere, everywhere)]
        while stack:
            index, left, right = stack.pop()
            node = nodes[index]
            if node.side < 0:
                tables[root_number][np.ix_(left, right)] = next_senone
                next_senone += 1
                continue
            asked = questions[node.question]
            for child, answer in ((node.no, ~asked), (node.yes, asked)):
                stack.append((child, left & answer, right) if node.side == 0 else (child, left, right & answer))
    return tables.reshape(size, NUM_HMM_STATES, size, size)


def _log_likelihood(count: Array, sums: Array, squares: Array, floor: Array) -> Array:
    """(...,) of frames under the Gaussian with their own mean and variance, up to a constant per frame."""
    mean = sums / np.maximum(count, 1e-8)[..., None]
    variance = np.maximum(squares / np.maximum(count, 1e-8)[..., None] - mean**2, floor)
    value: Array = -0.5 * count * (np.log(variance).sum(-1))
    return value


def _best_split(
    statistics: Statistics,
    rows: NDArray[np.int64],
    sides: tuple[NDArray[np.int64], NDArray[np.int64]],
    questions: NDArray[np.bool_],
    floor: Array,
    min_count: float,
) -> tuple[float, int, int]:
    count, sums, squares = statistics.count[rows], statistics.sums[rows], statistics.squares[rows]
    whole = _log_likelihood(count.sum()[None], sums.sum(0)[None], squares.sum(0)[None], floor)[0]
    best = (0.0, -1, -1)
    asked = questions.astype(np.float64)
    for side, phones in enumerate(sides):
        per_phone = _sum_by(phones[rows], questions.shape[1], count, sums, squares)
        yes = [asked @ part for part in per_phone]
        no = [part.sum(0) - has for part, has in zip(per_phone, yes, strict=True)]
        gain = sum(_log_likelihood(n, s, q, floor) for n, s, q in (yes, no)) - whole
        gain[(yes[0] < min_count) | (no[0] < min_count)] = -1.0
        question = int(gain.argmax())
        if gain[question] > best[0]:
            best = (float(gain[question]), side, question)
    return best


def _sum_by(phones: NDArray[np.int64], size: int, *values: Array) -> tuple[Array, ...]:
    """Sums each (K,) or (K, F) array over the rows with the same phone."""
    select = np.zeros((size, len(phones)))
    select[phones, np.arange(len(phones))] = 1.0
    return tuple(select @ value for value in values)


def _questions(statistics: Statistics, base: NDArray[np.int64], floor: Array) -> NDArray[np.bool_]:
    """(Q, P): every cluster of a bottom-up clustering of the phones (by their middle states) is a question."""
    size = len(statistics.phones)
    middle = np.flatnonzero(base % NUM_HMM_STATES == 1)
    phones = base[middle] // NUM_HMM_STATES
    count, sums, squares = _sum_by(
        phones, size, statistics.count[middle], statistics.sums[middle], statistics.squares[middle]
    )
    clusters = {frozenset([p]): (count[p], sums[p], squares[p]) for p in range(size) if count[p] > 0}
    questions_so_far = list(clusters)
    while len(clusters) > 2:
        names = list(clusters)
        n, s, q = (np.stack([clusters[name][i] for name in names]) for i in range(3))
        alone = _log_likelihood(n, s, q, floor)
        merged = _log_likelihood(n[:, None] + n, s[:, None] + s, q[:, None] + q, floor)
        loss = alone[:, None] + alone - merged
        loss[np.tril_indices(len(names))] = np.inf
        first, second = np.unravel_index(loss.argmin(), loss.shape)
        parts = [clusters.pop(names[k]) for k in (first, second)]
        both = names[first] | names[second]
        clusters[both] = tuple(a + b for a, b in zip(*parts, strict=True))
        questions_so_far.append(both)
    questions = np.zeros((len(questions_so_far), size), bool)
    for row, members in enumerate(questions_so_far):
        questions[row, list(members)] = True
    return questions
