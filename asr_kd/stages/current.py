"""Whether a work folder is what the config says now: each command asks before it works on what earlier stages made.

A stage that runs again makes what the config changed. One that is called alone would take what is there, and a report
would print a config beside numbers that it did not make.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_kd.alignment.settings import flat_start_settings, realign_settings, tree_settings
from asr_kd.errors import UserError
from asr_kd.frames.features import FeaturesConfig
from asr_kd.io.stamp import first_difference, read_stamp
from asr_kd.lang.settings import LangConfig
from asr_kd.settings import to_mapping
from asr_kd.stages.training_set import trained_stamp, training_set_of
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.sets import speech_sets
from asr_kd.workspace.work import Workspace


def check_prepared(config: Config, work: Workspace) -> None:
    """Raises UserError where data/ was made with other settings than the config's."""
    _check_settings(work, work.data, {"lang": lang_settings(config)}, "prepare")


def check_features(config: Config, work: Workspace) -> None:
    """Checks that the features are of the cuts that are there now, and were made as the config says.

    Raises:
      UserError: they are not. A set without features is none: the stage that needs them says so.
    """
    check_prepared(config, work)
    for name in speech_sets(config, work):
        _check_settings(work, work.frames(name), features_settings(config, name), "features")
        check_cuts(work, name)


def check_cuts(work: Workspace, name: str) -> None:
    """Raises UserError where the features of a set are of other cuts than those that are there now."""
    frames, cuts = read_stamp(work.frames(name)), read_stamp(work.cuts_stamp(name))
    if frames is None or cuts is None or frames["inputs"].get("cuts") in (None, cuts["digest"]):
        return
    raise UserError(
        f"{work.frames(name)} was made from cuts {frames['inputs']['cuts']}, but {work.cuts(name)} has "
        f"{cuts['digest']} now; make the features again: {work.command('features')}"
    )


def check_aligned(config: Config, work: Workspace) -> None:
    """Raises UserError where the alignment, or what it was made from, is not what the config says."""
    check_features(config, work)
    settings = config.alignment
    for number in range(settings.realign_rounds + 1):
        of_aligner = realign_settings(settings) if number else flat_start_settings(settings)
        _check_settings(work, work.aligner(number), {"alignment": of_aligner}, "align")
    _check_settings(work, work.tree("tied"), {"alignment": tree_settings(settings)}, "align")


def check_trained(config: Config, work: Workspace, systems: Sequence[str] = ()) -> None:
    """Raises UserError where a trained system, or what it was made from, is not what the config says.

    Args:
      systems: none: all of the config. Those that are not trained are left to the stage that needs them.
    """
    check_aligned(config, work)
    if any(read_stamp(work.frames(name)) is None for name in (TRAIN, DEV, *config.untranscribed)):
        return  # whoever needs the space may delete what systems were trained on
    for name in systems or config.systems:
        if name in config.systems and read_stamp(work.exp(name)) is not None:
            trained_stamp(config, work, name, training_set_of(config, work, name))


def lang_settings(config: Config) -> LangConfig:
    """Returns the settings of the lexicon and the language model; files count by their content, not by their names."""
    return dataclasses.replace(config.lang, lexicon=LangConfig.lexicon, lm="", lm_text="")


def features_settings(config: Config, name: str) -> dict[str, Any]:
    """Returns the settings that the features of a set depend on."""
    return {
        "features": features_of(config, name),
        "sampling_rate": config.corpus.sampling_rate,
        "on_bad_utterance": config.corpus.on_bad_utterance,
    }


def features_of(config: Config, name: str) -> FeaturesConfig:
    """Returns how the features of a set are made: only sets that are learnt from have altered copies."""
    features = config.features
    if name in (TRAIN, *config.untranscribed):
        return features
    return dataclasses.replace(features, speeds=(1.0,), warps=(1.0,))


def _check_settings(work: Workspace, path: Path, settings: Mapping[str, Any], command: str) -> None:
    stamp = read_stamp(path)
    if stamp is None:
        return
    expected = to_mapping(settings, changed_only=True)
    made = {name: value for name, value in stamp["settings"].items() if name in expected}
    if (key := first_difference(made, {name: expected[name] for name in made})) is not None:
        raise UserError(
            f"{path} was made with another {key} than {work.config_path} has now; make it again, or put the setting "
            f"back: {work.command(command)}"
        )
