"""Text files for who decodes elsewhere: the tree, priors and phones.

Shapes:  P phones, C senones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from asr_kd.alignment.topology import NUM_HMM_STATES
from asr_kd.alignment.tree import Tree


def write_log_priors(path: Path, log_priors: np.ndarray) -> None:
    """(C,) natural log, as Kaldi writes a vector in text mode; read back, the numbers are the same in float32."""
    path.write_text(f" [ {' '.join(f'{value:.9g}' for value in log_priors)} ]\n", encoding="utf-8")


def write_phones(path: Path, phones: Sequence[str]) -> None:
    """Writes the phones and their numbers, as Kaldi numbers phones: 0 is <eps>, silence is 1."""
    lines = (f"{name} {number}\n" for number, name in enumerate(["<eps>", *phones]))
    path.write_text("".join(lines), encoding="utf-8")


def write_tree(path: Path, tree: Tree) -> None:
    """Lines of five columns with tabs between: senone, phone, HMM state from 1, left phones, right phones.

    A frame of this phone's state has this senone where the phone before it is one of the left and the phone after it
    one of the right ones. A senone has several lines where its contexts are no such product. Each context of each state
    is in one line.
    """
    any_phone = any_phone_sign(tree.phones)
    head = f"# senone, phone, HMM state, phones before, phones after; {any_phone} is any phone\n"
    lines = sorted(_lines(tree, any_phone))
    path.write_text(head + "".join(f"{senone}\t{rest}\n" for senone, rest in lines), encoding="utf-8")


def any_phone_sign(phones: Sequence[str]) -> str:
    """What stands for all phones: an asterisk, or as many as are no phone's name.

    >>> any_phone_sign(["SIL", "A"]), any_phone_sign(["SIL", "*"])
    ('*', '**')
    """
    return next(sign for sign in map("*".__mul__, itertools.count(1)) if sign not in phones)


def _lines(tree: Tree, any_phone: str) -> Iterator[tuple[int, str]]:
    names = np.array(tree.phones)

    def spell(chosen: np.ndarray) -> str:
        return any_phone if chosen.all() else " ".join(names[chosen])

    for phone, name in enumerate(tree.phones):
        for hmm_state in range(NUM_HMM_STATES):
            table = tree.tables[phone, hmm_state]
            for senone in np.unique(table):
                for left, right in _products(table == senone):
                    yield int(senone), f"{name}\t{hmm_state + 1}\t{spell(left)}\t{spell(right)}"


def _products(contexts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(P, P) bool [left, right] -> pairs of (P,) bool: contexts are the left ones times the right ones of each pair."""
    by_left = _equal_rows(contexts)
    by_right = [(left, right) for right, left in _equal_rows(contexts.T)]
    return min(by_left, by_right, key=len)


def _equal_rows(contexts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(which rows are the same, what they are) for each row that is not empty."""
    patterns, inverse = np.unique(contexts, axis=0, return_inverse=True)
    return [(inverse.ravel() == number, row) for number, row in enumerate(patterns) if row.any()]
