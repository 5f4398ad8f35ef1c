"""The FrameStores of a work folder, with errors that name the command that makes what is missing."""

from __future__ import annotations

import numpy as np

from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore, FrameStoreError
from asr_kd.workspace.work import Workspace, labels_of, require


def open_frames(work: Workspace, name: str) -> FrameStore:
    """The features of a set; raises UserError where they are missing or damaged."""
    require(work.frames(name), work, "features")
    try:
        return FrameStore.open(work.frames(name))
    except FrameStoreError as error:
        raise UserError(f"{error} Make the features again: {work.command('features')}") from None


def open_labels(work: Workspace, store: FrameStore, tree: str) -> np.memmap:
    """(N,) int32, the senone of each frame of a store, -1 where there is none.

    Args:
      tree: of `SystemConfig.tree`.

    Raises:
      UserError: they are missing, damaged, or of other features.
    """
    try:
        return store.array(labels_of(tree))
    except FrameStoreError as error:
        raise UserError(f"{error} Align again: {work.command('align')}") from None
