"""What systems are trained on: the frames and labels of train and dev, and the systems they learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.io.stamp import first_difference
from asr_kd.settings import to_mapping
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.sets import open_frames
from asr_kd.workspace.work import Workspace, labels_of, require


@dataclass(frozen=True)
class TrainingSet:
    """Labelled frames of train and dev."""

    train: FrameStore
    dev: FrameStore
    tree: str  # of SystemConfig.tree
    tree_digest: str
    num_senones: int

    @property
    def labels(self) -> np.ndarray:
        """(N,) senone of each training frame; -1: none."""
        return np.asarray(self.train.array(labels_of(self.tree)))

    @property
    def dev_labels(self) -> np.ndarray:
        return np.asarray(self.dev.array(labels_of(self.tree)))

    @property
    def inputs(self) -> dict[str, str]:
        """Digests for a stamp."""
        digests = {"train frames": self.train.digest, "dev frames": self.dev.digest}
        for name, store in ((TRAIN, self.train), (DEV, self.dev)):
            stamp = store.array_stamp(labels_of(self.tree))
            assert stamp is not None  # open_training_set has read it
            digests[f"{name} senones"] = stamp["digest"]
        return digests


def open_training_set(work: Workspace, tree: str = "tied") -> TrainingSet:
    """Opens the FrameStores and the labels.

    Raises:
      UserError: an earlier stage has not run, or its artefacts do not fit together.
    """
    stamp = require(work.tree(tree), work, "align")
    stores = []
    for name in (TRAIN, DEV):
        store = open_frames(work, name)
        labels = store.array_stamp(labels_of(tree))
        if labels is None:
            raise UserError(f"{work.frames(name)} has no senone labels yet; make them first: {work.command('align')}")
        if labels["inputs"].get("tree") != stamp["digest"]:
            raise UserError(
                f"{work.frames(name)} is labelled with the senones of tree {labels['inputs'].get('tree')}, but "
                f"{work.tree(tree)} is {stamp['digest']}; label it again: {work.command('align')}"
            )
        stores.append(store)
    return TrainingSet(stores[0], stores[1], tree, stamp["digest"], int(stamp["metadata"]["num_senones"]))


def seeds_of(config: Config, name: str) -> list[int]:
    """One seed for each model of a system; single models of several systems start from the same seeds."""
    system = config.systems[name]
    if system.parts:
        return [seed for part in system.parts for seed in seeds_of(config, part)]
    if system.reuse:
        return seeds_of(config, system.reuse)[: system.num_models]
    reused = any(other.reuse == name for other in config.systems.values())
    first = 700 if system.folds else 0 if system.is_ensemble or reused else 500
    return [config.seed * 1000 + first + k for k in range(system.num_models)]


def training_settings(config: Config, name: str) -> dict[str, Any]:
    """For a stamp: the seeds say how many models there are."""
    system = to_mapping(config.systems[name], changed_only=True)
    for key in ("seeds", "reuse", "targets", *(() if config.systems[name].parts else ("members",))):
        system.pop(key, None)
    settings: dict[str, Any] = {"system": system, "seeds": seeds_of(config, name)}
    if (targets := config.systems[name].targets) is not None:
        settings["targets"] = to_mapping(targets, changed_only=True)
    return settings


def trained_stamp(
    config: Config, work: Workspace, system: str, data: TrainingSet, count: int | None = None
) -> dict[str, Any]:
    """The stamp of a system that was trained on these frames and labels, with the config's settings.

    Args:
      count: of its first models, which alone must be those of the config; None: all.

    Raises:
      UserError: it is not there, or was trained otherwise; what differs is named.
    """
    path, command = work.exp(system), f"train {system}"
    stamp = require(path, work, command)
    for name, digest in data.inputs.items():
        if stamp["inputs"].get(name) != digest:
            raise UserError(
                f"{path} was trained on {name} {stamp['inputs'].get(name)}, but they are {digest} now; train it "
                f"again: {work.command(command)}"
            )
    trained, expected = (
        _by_key(settings, count) for settings in (stamp["settings"], training_settings(config, system))
    )
    if (difference := first_difference(trained, expected)) is not None:
        raise UserError(
            f"{path} was trained with other settings than the config's {system} ({difference}); train it again: "
            f"{work.command(command)}"
        )
    for part in config.systems[system].parts:
        digest = trained_stamp(config, work, part, data)["digest"]
        if stamp["inputs"].get(part) != digest:
            raise UserError(
                f"{path} is an ensemble with {part} {stamp['inputs'].get(part)}, but that is {digest} now; train it "
                f"again: {work.command(command)}"
            )
    return stamp


def _by_key(settings: dict[str, Any], count: int | None) -> dict[str, Any]:
    """Settings of a stamp under the keys of the config."""
    return settings["system"] | {"targets": settings.get("targets"), "members or seeds": settings["seeds"][:count]}
