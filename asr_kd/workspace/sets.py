"""The sets of a work folder, those of the config and those that were added for scoring later, and their FrameStores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from asr_kd.corpora.settings import LibriSpeechConfig, OwnSpeechConfig
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore, FrameStoreError
from asr_kd.io.files import read_json, write_json
from asr_kd.settings import to_mapping
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.config_files import with_settings
from asr_kd.workspace.work import Workspace, default_root, labels_of, require

_ADDED = "added_sets.json"


def all_sets(config: Config, work: Workspace) -> dict[str, tuple[str, ...]]:
    """Set with transcripts -> the corpus's parts: the config's, then those that `add_set` noted."""
    return config.sets | added_sets(work)


def speech_sets(config: Config, work: Workspace) -> tuple[str, ...]:
    """All sets that have features: those with transcripts, then those without.

    Raises:
      UserError: a set without transcripts has the name of one that `add_set` noted.
    """
    for name in config.untranscribed:
        if name in added_sets(work):
            raise UserError(
                f"{work.config_path}: untranscribed.{name}: a set {name} was added to this run by prepare --add-set, "
                "and is scored; give this one another name."
            )
    return (*all_sets(config, work), *config.untranscribed)


def scored_sets(config: Config, work: Workspace) -> tuple[str, ...]:
    """dev, on which scales are chosen, and every test set, added ones included."""
    return (DEV, *(name for name in all_sets(config, work) if name not in (TRAIN, DEV)))


def with_parts(config: Config, parts: Mapping[str, Sequence[str]], dev_speakers: int | None = None) -> Config:
    """The config with other parts of some of its sets.

    Where dev can consist of parts or of training speakers, the two exclude each other: giving one overrides the other
    in the config.

    Args:
      parts: set -> its parts.
      dev_speakers: `corpus.dev_speakers`, of speech of one's own `corpus.dev.speakers`; None: the config's.

    Raises:
      UserError: the config has no such set, or the corpus no such setting.
    """
    sets = {name: list(of_set) for name, of_set in config.sets.items()}
    untranscribed = to_mapping(config.untranscribed)
    for name, of_set in parts.items():
        if name in untranscribed:
            untranscribed[name] = list(of_set)
            continue
        if name not in sets:
            raise UserError(
                f"--set {name}: the config's sets are {', '.join([*sets, *untranscribed])}; add others to the config "
                "under sets:, or to a finished run by asr-kd prepare --add-set."
            )
        sets[name] = list(of_set)
    config = with_settings(config, {"untranscribed": untranscribed}, "--set")
    if isinstance(config.corpus, (LibriSpeechConfig, OwnSpeechConfig)) and dev_speakers and DEV not in parts:
        sets[DEV] = []
    if isinstance(corpus := config.corpus, OwnSpeechConfig):
        dev = None if parts.get(DEV) or dev_speakers == 0 else corpus.dev
        corpus = replace(corpus, dev=dev, test=None if parts.get("test") else corpus.test)
        drawn = {"speakers": dev_speakers} if dev_speakers else None
        return with_settings(replace(config, corpus=corpus), {"sets": sets, "corpus.dev": drawn})
    if isinstance(config.corpus, LibriSpeechConfig) and dev_speakers is None and parts.get(DEV):
        dev_speakers = 0
    return with_settings(config, {"sets": sets, "corpus.dev_speakers": dev_speakers})


def name_of_speech(config: Config, work: Workspace) -> str:
    """What a report calls the speech: the corpus, or, where it is anyone's, the config or the folder of its recipe."""
    if not isinstance(config.corpus, OwnSpeechConfig):
        return config.corpus.name
    path = work.config_path
    return (default_root(path).name if path.stem == "config" else path.stem) or config.corpus.name


def prepared(config: Config, work: Workspace) -> dict[str, Any]:
    """What stage 1 noted about the language model and about each set, in one mapping.

    Raises:
      UserError: stage 1 has not run for some set.
    """
    stamp = require(work.data, work, "prepare")
    learnt: dict[str, Any] = stamp["metadata"]
    sets = {
        name: require(work.cuts_stamp(name), work, prepare_command(work, name))["metadata"]
        for name in speech_sets(config, work)
    }
    perplexity = {name: entries["perplexity"] for name, entries in sets.items() if "perplexity" in entries}
    guessed = learnt["guessed_pronunciations"]
    for entries in sets.values():
        guessed = guessed | entries["guessed_pronunciations"]
    return learnt | {
        "sets": sets,
        "lm": learnt["lm"] | {"perplexity": perplexity},
        "guessed_pronunciations": guessed,
        "shared_speakers": sorted({speaker for entries in sets.values() for speaker in entries["shared_speakers"]}),
        # added when the lexicon or the language model was another one
        "outdated_sets": [
            name for name, entries in sets.items() if entries.get("measured_by", stamp["digest"]) != stamp["digest"]
        ],
        "left_out": [bad for entries in sets.values() for bad in entries["left_out"]],
    }


def add_set(work: Workspace, name: str, parts: Sequence[str]) -> None:
    """Notes a test set that is scored beside those of the config."""
    write_json(work.data / _ADDED, added_sets(work) | {name: tuple(parts)})


def added_sets(work: Workspace) -> dict[str, tuple[str, ...]]:
    """Set -> the corpus's parts, of those that `add_set` noted."""
    path = work.data / _ADDED
    if not path.exists():
        return {}
    added = read_json(path, dict, "delete it and add the sets again (asr-kd prepare --add-set).")
    return {name: tuple(parts) for name, parts in added.items()}


def forget_added_sets(config: Config, work: Workspace) -> None:
    """Leaves to the config the sets that it has under `sets:` itself now."""
    added = added_sets(work)
    if own := added.keys() & config.sets.keys():
        write_json(work.data / _ADDED, {name: parts for name, parts in added.items() if name not in own})


def prepare_command(work: Workspace, name: str) -> str:
    """The one that makes the cuts of a set, for `Workspace.command`: an added set has its own."""
    added = added_sets(work)
    return f"prepare --add-set {name}={','.join(added[name])}" if name in added else "prepare"


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
