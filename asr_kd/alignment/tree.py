"""The phonetic decision tree: which (phone, HMM state, left phone, right phone) share a senone.

Shapes:  P phones, C senones (tied states), N frames; tables are (P, 3, P, P): [phone, HMM state, left phone, right
phone].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.topology import NUM_HMM_STATES
from asr_kd.errors import UserError
from asr_kd.io.files import DAMAGED_ARRAYS

TREE = "tree.npz"
_FRAMES_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Tree:
    """Contexts -> senones, with the number of training frames of each senone."""

    phones: tuple[str, ...]
    tables: NDArray[np.int32]  # (P, 3, P, P) senone
    counts: NDArray[np.int64]  # (C,) frames of the training set

    @property
    def num_senones(self) -> int:
        return len(self.counts)

    def log_priors(self) -> NDArray[np.float32]:
        """(C,) natural log of each senone's share of the training frames; one without frames counts as one frame."""
        counts = np.maximum(self.counts, 1)
        return np.log(counts / counts.sum()).astype(np.float32)

    def senones_of(self, context_keys: NDArray[np.int32]) -> NDArray[np.int32]:
        """(T,) keys as `topology.context_key` gives them -> (T,) senones."""
        senones: NDArray[np.int32] = self.tables.reshape(-1)[context_keys]
        return senones

    def senone_blocks(self, contexts: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
        """(N,) context keys of a set, -1 where there is none -> its senones in order and block by block, -1 likewise.

        The keys may be a memory map: only one block is in memory.
        """
        for first in range(0, len(contexts), _FRAMES_AT_ONCE):
            keys = np.asarray(contexts[first : first + _FRAMES_AT_ONCE])
            yield np.where(keys >= 0, self.senones_of(np.maximum(keys, 0)), -1).astype(np.int32)

    def with_counts_of(self, contexts: NDArray[np.int32]) -> Tree:
        """The same tree with the number of frames that each senone has among these context keys (N,)."""
        counts = np.zeros(self.num_senones, np.int64)
        for senones in self.senone_blocks(contexts):
            counts += np.bincount(senones[senones >= 0], minlength=self.num_senones)
        return replace(self, counts=counts)

    def name(self, senone: int) -> str:
        """Phone and HMM state (1 to 3), and the contexts that lead to this senone, where not all do."""
        phone, hmm_state = np.argwhere((self.tables == senone).any((2, 3)))[0]
        contexts = self.tables[phone, hmm_state] == senone
        sides = [("left", contexts.any(1)), ("right", contexts.any(0))]
        notes = [f"{side} {self._phone_names(phones)}" for side, phones in sides if not phones.all()]
        return f"{self.phones[phone]}.{hmm_state + 1}" + (f" ({', '.join(notes)})" if notes else "")

    def _phone_names(self, selected: NDArray[np.bool_]) -> str:
        names = [self.phones[k] for k in np.flatnonzero(selected)]
        return " ".join(names) if len(names) <= 4 else f"{' '.join(names[:3])} and {len(names) - 3} more"


def monophone_tree(phones: tuple[str, ...]) -> Tree:
    """Untied, context-independent states; all counts are zero."""
    size = len(phones)
    states = np.arange(size * NUM_HMM_STATES, dtype=np.int32).reshape(size, NUM_HMM_STATES, 1, 1)
    tables = np.broadcast_to(states, (size, NUM_HMM_STATES, size, size)).copy()
    return Tree(phones, tables, np.zeros(size * NUM_HMM_STATES, np.int64))


def write_tree(tree: Tree, folder: Path) -> None:
    np.savez_compressed(folder / TREE, phones=np.array(tree.phones, np.str_), tables=tree.tables, counts=tree.counts)


def read_tree(folder: Path) -> Tree:
    """Raises UserError where the tree is missing or damaged."""
    try:
        with np.load(folder / TREE, allow_pickle=False) as file:
            return Tree(tuple(file["phones"].tolist()), file["tables"], file["counts"])
    except FileNotFoundError:
        raise UserError(f"{folder} holds no {TREE}; delete {folder} and align again.") from None
    except DAMAGED_ARRAYS as error:
        raise UserError(f"{folder}/{TREE} is damaged ({error}); delete {folder} and align again.") from None
