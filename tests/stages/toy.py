"""A work folder with frames and labels of toys: what systems are trained on, without speech or alignment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.frames.store import FrameStore
from asr_kd.io.stamp import Stamp
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import from_mapping
from asr_kd.workspace.executor import RunOptions
from asr_kd.workspace.work import Workspace, labels_of

from ..stores import write_store

OPTIONS = RunOptions(device="cpu", quiet=True)
DIMS, SENONES = 3, 6
TRAINING = {"epochs": 2, "batch_size": 64, "learning_rate": 1e-2, "precision": "float32"}
MODEL = {"layers": 1, "width": 8, "left_context": 2, "right_context": 1}
HARD = {"model": MODEL, "training": TRAINING}


def soft(**targets: Any) -> dict[str, Any]:
    """A system that learns from whole distributions, unless `targets` says otherwise."""
    return HARD | {"targets": {"keep_mass": 1.0, "max_entries": SENONES} | targets}


@dataclass(frozen=True)
class Toy:
    work: Workspace

    def config(self, **systems: Any) -> Config:
        return from_mapping(Config, {"systems": systems}, "toy.yaml")

    @property
    def train(self) -> FrameStore:
        return FrameStore.open(self.work.frames("train"))

    def weights(self, system: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.work.exp(system).glob("member_*.safetensors"))]

    def label(self, tree: str = "tied", seed: int = 0, num_senones: int = SENONES) -> None:
        """Labels that depend on the frame, and one utterance without any."""
        stamp = Stamp("align", {"seed": seed}, {})
        self.work.tree(tree).mkdir(parents=True, exist_ok=True)
        stamp.write(self.work.tree(tree) / "stamp.json", {"num_senones": num_senones})
        directions = np.random.default_rng(seed).normal(size=(DIMS, num_senones))
        for name in ("train", "dev"):
            store = FrameStore.open(self.work.frames(name))
            labels = (store.normalised(0, len(store.ids)) @ directions).argmax(1).astype(np.int32)
            labels[store.span(1)] = -1
            store.attach(labels_of(tree), [labels], np.int32, Stamp("align", {}, {"tree": stamp.digest}))


def make_toy(root: Path, utterances: int = 12) -> Toy:
    """Each training utterance has a copy at another speed."""
    rng = np.random.default_rng(1)
    (root / "conf").mkdir(parents=True)
    toy = Toy(Workspace(root, root / "conf" / "toy.yaml"))
    for name, count, speeds in (("train", utterances, (1.0, 0.9)), ("dev", 3, (1.0,))):
        names = [f"{name}{k}{'' if speed == 1 else f'_sp{speed:g}'}" for speed in speeds for k in range(count)]
        arrays = [(utterance, rng.normal(size=(10 + 3 * (k % 4), DIMS))) for k, utterance in enumerate(names)]
        write_store(toy.work.frames(name), arrays, speeds=[speed for speed in speeds for _ in range(count)])
    toy.label()
    return toy
