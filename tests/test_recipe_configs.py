"""The configs that the recipes ship."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from asr_kd.acoustic.settings import ModelConfig
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import load_config

RECIPES = Path(__file__).parents[1] / "recipes"
CONFIGS = sorted(path for path in RECIPES.glob("*/conf/*.yaml") if path.parts[-3] != "mnist")


def recipe(name: str) -> Config:
    return load_config(RECIPES / name)


def shape(model: ModelConfig) -> dict[str, Any]:
    """What a trained net is, without what only training sees."""
    return {key: value for key, value in asdict(model).items() if "dropout" not in key and key != "lda_dims"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_each_config_loads_and_compares_what_it_trains(path: Path) -> None:
    config = load_config(path)
    assert bool(config.systems) == bool(config.compare) or path.stem == "flat_start"  # one net is all of it
    for comparison in config.compare:
        direct, distilled = config.systems[comparison.direct], config.systems[comparison.distilled]
        assert direct.targets is None and distilled.targets is not None
        assert comparison.teacher in distilled.targets.source
        assert (direct.seeds, direct.train_fraction) == (distilled.seeds, distilled.train_fraction)
        assert shape(direct.model) == shape(distilled.model)


def test_few_labels_are_added_to_the_mini_run_and_change_nothing_of_it() -> None:
    mini, few = recipe("librispeech/conf/mini.yaml"), recipe("librispeech/conf/fewshot.yaml")
    added = {name: few.systems[name] for name in ("few-direct", "few-distilled")}
    assert few == replace(mini, systems=mini.systems | added, compare=few.compare)
    assert few.systems["few-distilled"].targets.name == mini.systems["distilled"].targets.name
    assert all(system.train_fraction == 0.03 for system in added.values())


def test_the_run_on_the_flat_starts_labels_is_minis_direct_net_but_for_realignment() -> None:
    mini, flat = recipe("librispeech/conf/mini.yaml"), recipe("librispeech/conf/flat_start.yaml")
    alignment = replace(mini.alignment, realign=replace(mini.alignment.realign, rounds=0))
    assert flat == replace(mini, alignment=alignment, systems={"direct": mini.systems["direct"]}, compare=())


@pytest.mark.parametrize(("name", "share"), [("semi", 0.5), ("semi10", 0.9)])
def test_runs_with_hidden_transcripts_are_minis_but_for_what_is_hidden(name: str, share: float) -> None:
    """Corpus, dev and test, and the models: so that mini's run is their oracle."""
    mini, semi = recipe("librispeech/conf/mini.yaml"), recipe(f"librispeech/conf/{name}.yaml")
    assert (semi.seed, semi.corpus, semi.sets, semi.lang) == (mini.seed, mini.corpus, mini.sets, mini.lang)
    assert semi.untranscribed["hidden"].share == share
    for system in ("teacher", "direct", "distilled"):
        settings = mini.systems[system]
        epochs = replace(semi.systems[system].training, epochs=settings.training.epochs)
        assert replace(semi.systems[system], training=epochs) == settings
    whole, apart = semi.systems["distilled-all"], mini.systems["distilled"]
    assert replace(whole, targets=replace(whole.targets, extra=())) == apart and whole.targets.extra == ("hidden",)


def test_timit_runs_differ_only_in_where_labels_come_from() -> None:
    manual = recipe("timit/conf/phones48.yaml")
    forced, words = recipe("timit/conf/phones48_own.yaml"), recipe("timit/conf/phones48_words.yaml")
    assert (manual.alignment.labels, forced.alignment.labels, words.alignment.labels) == ("manual", "forced", "words")
    assert replace(forced, alignment=manual.alignment) == manual
    assert replace(words, alignment=manual.alignment, lang=manual.lang) == manual
