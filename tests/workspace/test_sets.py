"""Parts of sets from the command line, sets that are added, and what stage 1 noted of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from asr_kd.corpora.settings import FolderConfig, HeldOut, LibriSpeechConfig, TimitConfig, UntranscribedConfig
from asr_kd.errors import UserError
from asr_kd.workspace.config import Config
from asr_kd.workspace.sets import add_set, all_sets, name_of_speech, scored_sets, speech_sets, with_parts
from asr_kd.workspace.work import Workspace

BY_SPEAKERS = Config(
    corpus=LibriSpeechConfig(dev_speakers=60),
    sets={"train": ("train-clean-100",), "dev": (), "test": ("test-clean",)},
)


def dev_of(config: Config) -> tuple[tuple[str, ...], int]:
    return config.sets["dev"], config.corpus.dev_speakers  # type: ignore[attr-defined]


def test_dev_by_parts_and_dev_by_speakers_override_each_other() -> None:
    assert dev_of(with_parts(BY_SPEAKERS, {})) == ((), 60)
    by_parts = with_parts(BY_SPEAKERS, {"dev": ("dev-clean",)})
    assert dev_of(by_parts) == (("dev-clean",), 0)
    assert dev_of(with_parts(by_parts, {}, 7)) == ((), 7)
    assert dev_of(with_parts(BY_SPEAKERS, {"dev": ()})) == ((), 60)
    assert dev_of(with_parts(BY_SPEAKERS, {"dev": ("dev-clean",)}, 7)) == (("dev-clean",), 7)  # both are named
    timit = Config(corpus=TimitConfig())  # its parts are chosen by speaker
    assert dev_of(with_parts(timit, {}, 2)) == (("dev",), 2)


def test_what_is_drawn_from_speech_of_ones_own_and_parts_override_each_other() -> None:
    drawn = Config(corpus=FolderConfig(dev=HeldOut(share=0.1), test=HeldOut(speakers=2)))
    assert with_parts(drawn, {}) == drawn
    assert with_parts(drawn, {}, 3).corpus == replace(drawn.corpus, dev=HeldOut(speakers=3))
    assert with_parts(drawn, {}, 3).sets["dev"] == ()
    assert with_parts(drawn, {}, 0).corpus == replace(drawn.corpus, dev=None)
    by_parts = with_parts(drawn, {"dev": ("a",), "test": ("b", "c")})
    assert by_parts.corpus == FolderConfig() and by_parts.sets["dev"] == ("a",)


def test_parts_are_those_of_sets_that_the_config_has() -> None:
    assert with_parts(BY_SPEAKERS, {"test": ("a", "b")}).sets["test"] == ("a", "b")
    with pytest.raises(UserError, match=r"--set tset: the config's sets are train, dev, test; .*--add-set"):
        with_parts(BY_SPEAKERS, {"tset": ("a",)})


def test_added_sets_are_scored_beside_the_configs(tmp_path: Path) -> None:
    work = Workspace(tmp_path, tmp_path / "c.yaml")
    assert scored_sets(BY_SPEAKERS, work) == ("dev", "test")
    add_set(work, "more", ("m1", "m2"))
    add_set(work, "other", ("o",))
    assert all_sets(BY_SPEAKERS, work) == {**BY_SPEAKERS.sets, "more": ("m1", "m2"), "other": ("o",)}
    assert scored_sets(BY_SPEAKERS, work) == ("dev", "test", "more", "other")
    (work.data / "added_sets.json").write_text("[1")
    with pytest.raises(UserError, match=r"added_sets\.json is damaged; delete it and add the sets again"):
        scored_sets(BY_SPEAKERS, work)


def test_parts_of_a_set_without_transcripts_may_be_named_too(tmp_path: Path) -> None:
    hidden = replace(BY_SPEAKERS, untranscribed={"more": UntranscribedConfig(share=0.5)})
    named = with_parts(hidden, {"more": ("a", "b")})
    assert named.untranscribed["more"].parts == ("a", "b") and named.sets == hidden.sets
    work = Workspace(tmp_path, tmp_path / "c.yaml")
    assert speech_sets(named, work) == ("train", "dev", "test", "more")
    assert "more" not in all_sets(named, work) and "more" not in scored_sets(named, work)
    with pytest.raises(UserError, match="the config's sets are train, dev, test, more;"):
        with_parts(hidden, {"tset": ("a",)})


@pytest.mark.parametrize(
    ("config", "path", "name"),
    [
        (BY_SPEAKERS, "recipes/librispeech/conf/mini.yaml", "librispeech"),
        (Config(corpus=FolderConfig()), "mine/conf/config.yaml", "mine"),
        (Config(corpus=FolderConfig()), "mine/conf/large.yaml", "large"),
    ],
)
def test_a_report_calls_speech_of_ones_own_by_the_name_of_its_recipe(config: Config, path: str, name: str) -> None:
    assert name_of_speech(config, Workspace(Path("work"), Path(path))) == name
