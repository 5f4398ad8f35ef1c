"""Every bad input gives one sentence that names it and the fix, and nothing is written; or it is skipped."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.corpora.audio import AudioFormat, BadAudio, check_audio
from asr_kd.corpora.settings import CorpusConfig, CutsConfig, FolderConfig, KaldiConfig, TableConfig
from asr_kd.errors import UserError
from asr_kd.frames.features import FeaturesConfig
from asr_kd.workspace.config_files import with_settings

from .conftest import RATE, Recipe, write_wav


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def rewrite(samples: np.ndarray) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, samples, RATE, subtype="FLOAT")


def with_nan() -> np.ndarray:
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, RATE)
    samples[100] = np.nan
    return samples


BAD_AUDIO = {
    "missing": (Path.unlink, "t1.wav .*is missing"),
    "truncated": (truncate, "t1.wav is cut short: its header promises 16000 bytes, 15000 are there"),
    "cut in its header": (lambda path: path.write_bytes(path.read_bytes()[:30]), "t1.wav is cut short"),
    "empty file": (lambda path: path.write_bytes(b""), "t1.wav is empty; record it again"),
    "no samples": (rewrite(np.zeros(0)), "t1.wav holds no samples"),
    "no audio": (lambda path: path.write_text("hello\n"), "t1.wav is in no format that libsndfile reads"),
    "wrong rate": (lambda path: write_wav(path, rate=16000), "t1.wav has 16000 Hz, the config says 8000"),
    "stereo": (lambda path: write_wav(path, channels=2), "t1.wav has 2 channels"),
    "NaN": (rewrite(with_nan()), "t1.wav holds samples that are not finite"),
    "silence": (rewrite(np.zeros(RATE)), "t1.wav is digital silence"),
    "too short": (lambda path: write_wav(path, 0.2), r"t1.wav is 0.20 s long, its words need 0.24 s"),
}
BAD_TEXT = {
    "unknown word": ("t1 hello qqqqx\nt2 press one\nt3 good bye\n", "t1", "the word QQQQX has no pronunciation"),
    "empty": ("t1\nt2 press one\nt3 good bye\n", "t1", "its transcript in .* is empty"),
    "no transcript": ("t2 press one\nt3 good bye\n", "t1", "t1.wav has no transcript"),
    "no audio": ("t1 hello\nt2 press one\nt3 good bye\nt4 more\n", "t4", "t4.wav .*is missing"),
}


def assert_refused_then_skipped(recipe: Recipe, utterance: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe.prepare()
    message = str(caught.value)
    assert re.search(f"1 utterance cannot be used: {utterance}: .*{says}", message), message
    assert "on_bad_utterance: skip" in message and "\n" not in message
    assert not recipe.work.data.exists()

    result = recipe.prepare("skip")
    assert [bad["utterance"] for bad in result.metadata["left_out"]] == [utterance]
    assert re.search(says, result.metadata["left_out"][0]["reason"])
    assert f"left out {utterance}" in str(result)
    assert not recipe.prepare("skip").ran
    with pytest.raises(UserError):  # what was skipped is no longer accepted once it must not be
        recipe.prepare()


@pytest.mark.parametrize("kind", BAD_AUDIO)
def test_a_bad_recording(folder_recipe: Recipe, kind: str) -> None:
    spoil, says = BAD_AUDIO[kind]
    spoil(folder_recipe.corpus / "train" / "t1.wav")
    assert_refused_then_skipped(folder_recipe, "t1", says)


@pytest.mark.parametrize("kind", BAD_TEXT)
def test_a_bad_transcript(folder_recipe: Recipe, kind: str) -> None:
    text, utterance, says = BAD_TEXT[kind]
    (folder_recipe.corpus / "train" / "text").write_text(text)
    assert_refused_then_skipped(folder_recipe, utterance, says)


def test_the_fastest_copy_must_be_long_enough_too(folder_recipe: Recipe) -> None:
    write_wav(folder_recipe.corpus / "train" / "t2.wav", 0.3)  # press one: 7 phones of 30 ms
    write_wav(folder_recipe.corpus / "dev" / "d1.wav", 0.3)  # the other sets have no copies
    assert folder_recipe.prepare().ran
    features = FeaturesConfig(speeds=(1.0, 2.0))
    faster = replace(folder_recipe, config=replace(folder_recipe.config, features=features))
    faster.work.cuts_stamp("train").unlink()
    says = r"t2\.wav is 0\.30 s long and 0\.15 s at speed 2, its words need 0\.21 s; .* or lower features\.speeds"
    with pytest.raises(UserError, match=says):
        faster.prepare()


def test_a_speaker_is_missing(folder_recipe: Recipe) -> None:
    (folder_recipe.corpus / "train" / "utt2spk").write_text("t2 ben\nt3 ann\n")
    assert_refused_then_skipped(folder_recipe, "t1", "has no speaker")


@pytest.mark.parametrize(
    ("spoil", "utterance", "says"),
    [
        (lambda r: (r.corpus / "sounds/digits/1.wav").unlink(), "digits-1", "1.wav is missing, but core-sounds-en.txt"),
        (lambda r: write_wav(r.corpus / "sounds/new.wav"), "new", "new.wav has no transcript"),
        (lambda r: edit(r.corpus / "core-sounds-en.txt", ": one", ":"), "digits-1", "transcript in .* is empty"),
        (lambda r: edit(r.conf / "en" / "split.tsv", "digits/1\ttrain\n", ""), "digits-1", "is in no set"),
        (lambda r: edit(r.conf / "en" / "split.tsv", "hello\t", "gone\ttrain\nhello\t"), "gone", "has no text in"),
        (lambda r: truncate(r.corpus / "sounds/digits/1.wav"), "digits-1", "1.wav is cut short"),
    ],
)
def test_a_bad_prompt(prompts_recipe: Recipe, spoil: Callable[[Recipe], None], utterance: str, says: str) -> None:
    spoil(prompts_recipe)
    assert_refused_then_skipped(prompts_recipe, utterance, says)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda r: edit(r.corpus / "core-sounds-en.txt", "hello: ", "hello "), r"core-sounds-en.txt:5: expected 'name"),
        (lambda r: edit(r.corpus / "core-sounds-en.txt", "hello:", "digits/1:"), "digits/1 appears twice"),
        (lambda r: (r.corpus / "core-sounds-en.txt").unlink(), "core-sounds-en.txt: cannot be read .*download_prompts"),
        (lambda r: edit(r.conf / "en" / "split.tsv", "hello\tdev", "hello\ttrain"), "hello.* have the same text"),
        (lambda r: edit(r.conf / "en" / "split.tsv", "hello\tdev", "hello\tdevel"), "split.tsv:3: expected"),
        (lambda r: edit(r.conf / "en" / "split.tsv", "\ttest", "\ttrain"), "the test set has no usable utterance"),
        (lambda r: (r.conf / "lexicon.txt").write_bytes(b"\xff\xfe"), "lexicon.txt: this is not UTF-8"),
        (lambda r: edit(r.conf / "en" / "corrections.txt", "\t", " "), "corrections.txt:2: expected"),
        (lambda r: (r.corpus / "sounds").rename(r.corpus / "noises"), "sounds: there is no such folder"),
        (lambda r: r.corpus.rename(r.root / "x"), "download: there is no such folder; fetch the corpus first"),
    ],
)
def test_a_malformed_corpus_stops_even_when_skipping(
    prompts_recipe: Recipe, spoil: Callable[[Recipe], None], says: str
) -> None:
    spoil(prompts_recipe)
    with pytest.raises(UserError, match=says):
        prompts_recipe.prepare("skip")
    assert not prompts_recipe.work.data.exists()


@pytest.mark.parametrize("corpus", [FolderConfig(), TableConfig(), KaldiConfig(), CutsConfig()])
def test_a_folder_of_own_speech_that_is_not_there_was_misspelled(folder_recipe: Recipe, corpus: CorpusConfig) -> None:
    folder_recipe.corpus.rename(folder_recipe.root / "x")
    folder_recipe.config = replace(folder_recipe.config, corpus=corpus)
    with pytest.raises(UserError, match=r"download: there is no such folder; correct --corpus-dir\.$"):
        folder_recipe.prepare()


def test_an_utterance_in_two_sets_or_with_two_recordings(folder_recipe: Recipe) -> None:
    (folder_recipe.corpus / "dev" / "text").write_text("t1 hello\nd1 hello\n")
    with pytest.raises(UserError, match="t1 is in train too"):
        folder_recipe.prepare()
    (folder_recipe.corpus / "dev" / "text").write_text("d1 hello\n")
    write_wav(folder_recipe.corpus / "dev" / "d1.flac")
    with pytest.raises(UserError, match=r"d1.wav: there is .*one recording"):
        folder_recipe.prepare()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("t1 hello\nt/2 press\n", "train/text:2: expected an utterance's id, which has no slash, .*found 't/2 press'"),
        ("t1 hello\n\nt1 press\n", "train/text:3: t1 appears twice; delete one of the lines"),
    ],
)
def test_a_malformed_line_of_own_transcripts_is_named(folder_recipe: Recipe, text: str, says: str) -> None:
    (folder_recipe.corpus / "train" / "text").write_text(text)
    with pytest.raises(UserError, match=says):
        folder_recipe.prepare("skip")


def test_several_bad_utterances_have_a_line_each_and_equal_advice_is_given_once(folder_recipe: Recipe) -> None:
    lines = "".join(f"x{i:02} hello\n" for i in range(12))
    test = folder_recipe.corpus / "test"
    (test / "text").write_text(f"e1 press one\n{lines}")
    for name in ("x00", "x02"):
        (test / f"{name}.m4a").touch()
    with pytest.raises(UserError) as caught:
        folder_recipe.prepare()
    missing = "wav (or .flac, .mp3, ...) is missing"
    skip = "(corpus.on_bad_utterance: skip leaves such utterances out)"
    assert str(caught.value).splitlines() == [
        f"{folder_recipe.corpus}: 12 utterances cannot be used {skip}:",
        f"  x00: {test}/x00.m4a: this format cannot be read; convert it, for example with ffmpeg -i x00.m4a x00.wav",
        f"  x01: {test}/x01.{missing}; put it there, or delete its transcript",
        f"  x02: {test}/x02.m4a: this format cannot be read",
        *(f"  x{i:02}: {test}/x{i:02}.{missing}" for i in range(3, 10)),
        "  and 2 more",
    ]


def test_bad_input_leaves_what_was_made_before(folder_recipe: Recipe) -> None:
    folder_recipe.prepare()
    before = {p: p.read_bytes() for p in folder_recipe.work.data.rglob("*") if p.is_file()}
    truncate(folder_recipe.corpus / "train" / "t1.wav")
    with pytest.raises(UserError):
        folder_recipe.prepare()
    assert {p: p.read_bytes() for p in folder_recipe.work.data.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("units", ["phones", "characters", "bpe"])
def test_a_training_set_of_a_format_that_cannot_be_read_says_so(folder_recipe: Recipe, units: str) -> None:
    train = folder_recipe.corpus / "train"
    for recording in train.glob("*.wav"):
        recording.rename(recording.with_suffix(".m4a"))
    folder_recipe.config = with_settings(folder_recipe.config, {"lang.units": units})
    convert = "t1.m4a: this format cannot be read; convert it, for example with ffmpeg -i t1.m4a t1.wav"
    with pytest.raises(UserError, match=f"3 utterances cannot be used .*:\n  t1: {train}/{convert}\n  t2: "):
        folder_recipe.prepare()
    with pytest.raises(UserError, match="the train set has no usable utterance"):
        folder_recipe.prepare("skip")


def test_a_recording_of_a_format_that_cannot_be_read(folder_recipe: Recipe) -> None:
    recording = folder_recipe.corpus / "train" / "t1.wav"
    recording.rename(recording.with_suffix(".m4a"))
    assert_refused_then_skipped(folder_recipe, "t1", r"t1\.m4a: this format cannot be read; convert it, .* t1\.wav")


@given(st.data())
def test_a_wav_cut_short_anywhere_is_noticed(tmp_path_factory, data) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("wav") / "x.wav"
    write_wav(path, 0.05)
    whole = path.read_bytes()
    assert check_audio(path, AudioFormat(RATE)).num_samples == 400
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(BadAudio, match=r"x\.wav"):
        check_audio(path, AudioFormat(RATE))


def test_a_flac_cut_short_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, RATE), RATE)
    assert check_audio(path, AudioFormat(RATE)).num_samples == RATE
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(BadAudio, match=r"x\.flac"):
        check_audio(path, AudioFormat(RATE))


def test_names_that_are_no_utf8_are_refused_with_their_bytes(folder_recipe: Recipe) -> None:
    """One beside the transcribed recordings, one in whose folder a transcribed recording lies."""
    train = folder_recipe.corpus / "train"
    shutil.copy(train / "t1.wav", train / os.fsdecode(b"caf\xe9.wav"))
    (train / os.fsdecode(b"\xe9t\xe9")).mkdir()
    (train / "t3.wav").rename(train / os.fsdecode(b"\xe9t\xe9") / "t3.wav")
    with pytest.raises(UserError) as error:
        folder_recipe.prepare()
    sentence = str(error.value)
    head, cafe, t3 = sentence.splitlines()
    assert "2 utterances cannot be used" in head and cafe.endswith(
        "caf\\xe9: the name of its recording is not UTF-8; rename it"
    )
    assert t3.startswith("  t3: ") and "\\xe9t\\xe9/t3.wav: the name of its recording is not UTF-8" in t3
    assert all(line.isprintable() for line in (head, cafe, t3))
    assert "left out caf\\xe9: the name of its recording is not UTF-8" in str(folder_recipe.prepare("skip"))
