"""Stores of made-up features, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asr_kd.frames.features import FeaturesConfig, frame_seconds
from asr_kd.frames.normalisation import Normalisation
from asr_kd.frames.store import FrameStore, FrameStoreWriter, StoredUtterance
from asr_kd.io.stamp import STAMP, Stamp


def write_store(
    folder: Path,
    utterances: list[tuple[str, np.ndarray]],
    *,
    texts: list[str] | None = None,
    scale: np.ndarray | None = None,
    groups: list[str] | None = None,
    speeds: list[float] | None = None,
    warps: list[float] | None = None,
    config: FeaturesConfig | None = None,
    training: Normalisation | None = None,
    sampling_rate: int = 16000,
) -> FrameStore:
    """A small store from features in memory, [(id, (T, D))]."""
    folder.mkdir(parents=True, exist_ok=True)
    num_dims = utterances[0][1].shape[1]
    if scale is not None:
        training = Normalisation(np.zeros((1, num_dims), np.float32), scale)
    with FrameStoreWriter(folder, num_dims, training, config) as writer:
        for u, (utterance_id, features) in enumerate(utterances):
            utterance = StoredUtterance(
                utterance_id,
                group=groups[u] if groups else utterance_id,
                text=texts[u] if texts else "",
                duration=len(features) * frame_seconds(sampling_rate),
                speed=speeds[u] if speeds else 1.0,
                warp=warps[u] if warps else 1.0,
            )
            writer.append(utterance, features)
    Stamp("features", {"given": True}, {name: str(len(features)) for name, features in utterances}).write(
        folder / STAMP
    )
    return FrameStore.open(folder)
