"""The phonetic decision tree: which (phone, HMM state, left phone, right phone) share a tied state.

Shapes:  P phones, C tied states; tables are (P, 3, P, P): [phone, HMM state, left phone, right phone].
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.topology import NUM_HMM_STATES
from asr_kd.errors import UserError


@dataclass(frozen=True)
class Tree:
    """Contexts -> tied states, with the frames that each state has in training."""

    phones: tuple[str, ...]
    tables: NDArray[np.int32]  # (P, 3, P, P) tied state
    counts: NDArray[np.int64]  # (C,) frames of the training set

    @property
    def num_states(self) -> int:
        return len(self.counts)

    def log_priors(self) -> NDArray[np.float32]:
        """(C,) natural log of each state's share of the training frames; a state never seen counts as one frame."""
        counts = np.maximum(self.counts, 1)
        return np.log(counts / counts.sum()).astype(np.float32)

    def states_of(self, context_keys: NDArray[np.int32]) -> NDArray[np.int32]:
        """(T,) keys as `topology.context_key` makes them -> (T,) tied states."""
        found: NDArray[np.int32] = self.tables.reshape(-1)[context_keys]
        return found

    def name(self, state: int) -> str:
        """Phone and HMM state (1 to 3), and the contexts that lead here, as far as they matter."""
        phone, hmm = np.argwhere((self.tables == state).any((2, 3)))[0]
        here = self.tables[phone, hmm] == state
        sides = [("left", here.any(1)), ("right", here.any(0))]
        notes = [f"{side} {self._set(found)}" for side, found in sides if not found.all()]
        return f"{self.phones[phone]}.{hmm + 1}" + (f" ({', '.join(notes)})" if notes else "")

    def _set(self, found: NDArray[np.bool_]) -> str:
        names = [self.phones[k] for k in np.flatnonzero(found)]
        return " ".join(names) if len(names) <= 4 else f"{' '.join(names[:3])} and {len(names) - 3} more"


def monophone_tree(phones: tuple[str, ...]) -> Tree:
    """Untied, context-independent states; counts are zero until `with_counts`."""
    size = len(phones)
    states = np.arange(size * NUM_HMM_STATES, dtype=np.int32).reshape(size, NUM_HMM_STATES, 1, 1)
    tables = np.broadcast_to(states, (size, NUM_HMM_STATES, size, size)).copy()
    return Tree(phones, tables, np.zeros(size * NUM_HMM_STATES, np.int64))


def with_counts(tree: Tree, counts: NDArray[np.int64]) -> Tree:
    return Tree(tree.phones, tree.tables, counts)


def write_tree(tree: Tree, folder: Path) -> None:
    np.savez_compressed(
        folder / "tree.npz", phones=np.array(tree.phones, np.str_), tables=tree.tables, counts=tree.counts
    )


def read_tree(folder: Path) -> Tree:
    """Raises UserError where the tree is missing or damaged."""
    try:
        with np.load(folder / "tree.npz", allow_pickle=False) as file:
            return Tree(tuple(file["phones"].tolist()), file["tables"], file["counts"])
    except FileNotFoundError:
        raise UserError(f"{folder} holds no tree yet; make it with asr-kd align.") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder}/tree.npz is damaged ({error}); delete {folder} and align again.") from None
