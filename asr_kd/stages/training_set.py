"""What systems are trained on: the frames and labels of train and dev, untranscribed speech, and their teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from asr_kd.errors import UserError
from asr_kd.frames.source import FrameSource, InterleavedFrames
from asr_kd.frames.store import FrameStore
from asr_kd.io.stamp import first_difference, identity
from asr_kd.settings import to_mapping
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.sets import open_frames
from asr_kd.workspace.work import Workspace, labels_of, require


@dataclass(frozen=True)
class TrainingSet:
    """Labelled frames of train and dev, and frames of untranscribed sets, which have no labels.

    Shapes:  N frames of train and of the untranscribed sets, which are spread evenly between those of train.
    """

    train: FrameStore
    dev: FrameStore
    tree: str  # of SystemConfig.tree
    tree_digest: str
    num_senones: int
    extra: Mapping[str, FrameStore] = field(default_factory=dict)  # untranscribed set -> its frames

    @cached_property
    def together(self) -> InterleavedFrames | None:
        """All N frames; None where there are those of train alone."""
        return InterleavedFrames([*self.stores.values()]) if self.extra else None

    @property
    def frames(self) -> FrameSource:
        """All N frames."""
        return self.together or self.train

    @property
    def stores(self) -> dict[str, FrameStore]:
        """Set -> its frames: those of train, then those of the untranscribed sets in their order."""
        return {TRAIN: self.train, **self.extra}

    @property
    def train_labels(self) -> np.ndarray:
        """(frames of train,) int32 senones; -1: none."""
        return np.asarray(self.train.array(labels_of(self.tree)))

    def with_extra(self, of_train: np.ndarray, value: Any) -> np.ndarray:
        """(..., N) of an array of the frames of train; frames of untranscribed sets have this value."""
        if self.together is None:
            return of_train
        filled = np.asarray(value, of_train.dtype)
        lengths = [store.num_frames for store in self.extra.values()]
        return self.together.spread(
            [of_train, *(np.broadcast_to(filled, (*of_train.shape[:-1], length)) for length in lengths)]
        )

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


def open_training_set(work: Workspace, tree: str = "tied", extra: Sequence[str] = ()) -> TrainingSet:
    """Opens the FrameStores and the labels.

    Args:
      extra: untranscribed sets that are learnt from too.

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
    of_extra = {name: open_frames(work, name) for name in extra}
    for store in of_extra.values():
        if not np.array_equal(store.scale, stores[0].scale):
            raise UserError(
                f"{store.folder} is scaled by another training set than {stores[0].folder}; make the features again: "
                f"{work.command('features')}"
            )
    return TrainingSet(stores[0], stores[1], tree, stamp["digest"], int(stamp["metadata"]["num_senones"]), of_extra)


def training_set_of(config: Config, work: Workspace, system: str) -> TrainingSet:
    """What a system of the config is trained on; see `open_training_set`."""
    targets = config.systems[system].targets
    return open_training_set(work, config.systems[system].tree, () if targets is None else targets.extra)


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
    """Returns a system's settings for a stamp; its seeds say how many models there are."""
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
        digest = identity(trained_stamp(config, work, part, data))
        if stamp["inputs"].get(part) != digest:
            raise UserError(
                f"{path} is an ensemble with {part} {stamp['inputs'].get(part)}, but that is {digest} now; train it "
                f"again: {work.command(command)}"
            )
    return stamp


def _by_key(settings: dict[str, Any], count: int | None) -> dict[str, Any]:
    """Settings of a stamp under the keys of the config."""
    return settings["system"] | {"targets": settings.get("targets"), "members or seeds": settings["seeds"][:count]}
