"""Speakers that are drawn for dev and test stay as long as the corpus does, and are named when they change."""

import shutil
from dataclasses import replace

import pytest
from lhotse import CutSet

from asr_kd.workspace.config_files import with_settings

from .conftest import Recipe, write_wav


def the_speaker(recipe: Recipe, name: str) -> str:
    (speaker,) = {cut.supervisions[0].speaker for cut in CutSet.from_file(recipe.work.cuts(name))}
    return str(speaker)


def test_speakers_that_are_drawn_anew_are_named_with_advice_that_works(
    folder_recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = folder_recipe.corpus
    for name in ("train", "dev", "test"):
        shutil.rmtree(corpus / name)
    for speaker in ("anna", "ben", "cleo", "dora"):
        write_wav(corpus / "train" / speaker / f"{speaker}1.wav")
        (corpus / "train" / speaker / f"{speaker}1.txt").write_text("hello")
    settings = {"corpus.folder_is_speaker": True, "corpus.dev": {"share": 0.25}, "corpus.test": {"share": 0.25}}
    drawing = with_settings(folder_recipe.config, settings | {"sets": {"train": ["train"], "dev": [], "test": []}})
    folder_recipe.config = drawing
    folder_recipe.prepare()
    before = the_speaker(folder_recipe, "test")
    write_wav(corpus / "train" / "anna" / "anna2.wav")
    (corpus / "train" / "anna" / "anna2.txt").write_text("hello world")
    folder_recipe.prepare()
    assert "do not compare" not in caplog.text  # a recording more of the same speakers

    shutil.rmtree(corpus / "train" / before)
    folder_recipe.prepare()
    now = the_speaker(folder_recipe, "test")
    assert f"test was {before}, is now {now}" in caplog.text
    assert (
        f": results before and after do not compare; put speakers into {corpus / 'test'} and {corpus / 'dev'} to keep "
        "them, and name these folders under sets:, in place of corpus.test and corpus.dev"
    ) in caplog.text
    caplog.clear()
    assert not folder_recipe.prepare().ran and not caplog.text

    developed = the_speaker(folder_recipe, "dev")
    for name, speaker in (("test", now), ("dev", developed)):
        (corpus / name).mkdir()
        (corpus / "train" / speaker).rename(corpus / name / speaker)
    own = replace(drawing.corpus, dev=None, test=None)  # type: ignore[call-arg]
    folder_recipe.config = replace(drawing, corpus=own, sets={name: (name,) for name in ("train", "dev", "test")})
    folder_recipe.prepare()
    write_wav(corpus / "train" / "emil" / "emil1.wav")
    (corpus / "train" / "emil" / "emil1.txt").write_text("hello")
    folder_recipe.prepare()
    assert "do not compare" not in caplog.text
    assert the_speaker(folder_recipe, "test") == now
