"""TIMIT in its makers' layout, made up here: sets, phones, manual times, and what may be wrong with them."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from lhotse.recipes.timit import get_phonemes, get_speakers

from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.corpora import timit
from asr_kd.corpora.listing import CorpusManifest, ReadRequest
from asr_kd.corpora.settings import TimitConfig
from asr_kd.corpora.timit_times import Span, mapped, read_phone_map, read_phones, read_words
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.lang.lexicon import read_lang
from asr_kd.lang.settings import LangConfig
from asr_kd.stages.features import make_features
from asr_kd.stages.prepare import prepare
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace

RATE = 16000
CONF = Path(__file__).parents[2] / "recipes" / "timit" / "conf"
CONFIG = Config(
    corpus=TimitConfig(sampling_rate=RATE, transcripts="phones", dev_speakers=2, test_speakers=2),
    lang=LangConfig(units="words", ngram_order=2),
)
PHN = "0 1600 h#\n1600 3200 sh\n3200 4800 ix\n4800 5600 q\n5600 7200 bcl\n7200 8000 b\n8000 9600 epi\n9600 12000 h#\n"
WRD = "1600 5600 she\n4800 8000 be's\n"
SPEAKERS = ("FAAA0", "FBBB0", "FCCC0", "FDDD0", "MAAA0", "MBBB0", "MCCC0", "MDDD0")


def put(
    root: Path, part: str, speaker: str, name: str, *, lower: bool = False, form: str = "WAV", **texts: str
) -> Path:
    """One sentence; returns its path without suffix."""
    folder = root / part / "DR1" / speaker
    if lower:
        folder = root / part.lower() / "dr1" / speaker.lower()
        name = name.lower()
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in {"PHN": PHN, "WRD": WRD, "TXT": "0 12000 She be's.\n", **texts}.items():
        if text:
            (folder / f"{name}.{suffix.lower() if lower else suffix}").write_text(text)
    samples = np.random.default_rng(len(name)).normal(0, 0.1, 12100)
    audio = folder / f"{name}.{'wav' if lower else 'WAV'}"
    soundfile.write(audio, samples, RATE, subtype="PCM_16", format=form)
    return folder / name


def read(root: Path, conf: Path, config: Config) -> CorpusManifest:
    words = config.alignment.labels == "words"
    return timit.read(ReadRequest(root, conf, config.corpus, config.sets, config.seed, words_for_phones=words))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A copy without TEST, as the sample that may be given away is."""
    root = tmp_path / "timit" / "data"
    for speaker in SPEAKERS:
        for name in ("SA1", "SI10", "SX20"):
            put(root, "TRAIN", speaker, name)
    return tmp_path / "timit"


def test_the_table_of_phones_is_that_of_lee_and_hon() -> None:
    for size in (48, 39):
        table, theirs = read_phone_map(CONF, size), get_phonemes(size)
        assert len(table) == 61 and table.keys() == theirs.keys() - {"sil"}
        for phone, label in table.items():
            assert (label or "").lower() == theirs[phone], phone
        assert len(set(table.values()) - {None}) == size
    all_phones = read_phone_map(CONF, 61)
    assert [phone for phone, label in all_phones.items() if label == "SIL"] == ["h#", "pau"]
    assert all_phones["q"] == "Q" and all_phones["epi"] == "EPI" and all_phones["bcl"] == "BCL"


def test_phones_of_another_set_keep_all_of_the_time() -> None:
    spans = [Span(0, 5, "q"), Span(5, 9, "aa"), Span(9, 12, "q"), Span(12, 20, "bcl"), Span(20, 30, "h#")]
    actual = mapped(spans, read_phone_map(CONF, 39))
    assert actual == [Span(0, 5, "SIL"), Span(5, 12, "AA"), Span(12, 30, "SIL")]


def test_a_copy_without_test_speakers_is_split_by_speaker(corpus: Path) -> None:
    listing = read(corpus, CONF, CONFIG)
    assert not listing.problems
    sets = {u.speaker: u.set for u in listing.utterances}
    assert Counter(sets.values()) == {"train": 4, "dev": 2, "test": 2}
    for name in ("dev", "test"):  # a woman and a man each
        assert sorted(speaker[0] for speaker, of in sets.items() if of == name) == ["F", "M"]
    assert sorted(u.id for u in listing.utterances if u.speaker == "FAAA0") == ["FAAA0-SI10", "FAAA0-SX20"]  # no SA
    assert listing.utterances[0].text == "SIL SH IX VCL B EPI SIL"
    again = read(corpus / "data", CONF, replace(CONFIG, seed=2))
    assert {u.speaker: u.set for u in again.utterances} != sets


BY_WORDS = replace(CONFIG, lang=LangConfig(units="phones", ngram_order=2), alignment=AlignmentConfig(labels="words"))


def test_where_words_give_the_labels_the_phones_are_the_reference(corpus: Path) -> None:
    listing = read(corpus, CONF, BY_WORDS)
    assert {(u.text, u.reference) for u in listing.utterances} == {("she be's", "SIL SH IX VCL B EPI SIL")}
    (corpus / "data" / "TRAIN" / "DR1" / "FBBB0" / "SX20.WRD").unlink()
    (problem,) = read(corpus, CONF, BY_WORDS).problems
    assert problem.utterance == "FBBB0-SX20" and "SX20.WRD is missing; fetch it again" in problem.reason


def test_where_words_give_the_labels_the_lexicons_phones_are_recognised(corpus: Path, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    shutil.copy(CONF / "phones.txt", conf)
    (conf / "lexicon.txt").write_text("SHE SH IY\nBE'S B IY Z\nBE'S B AH Z\n")
    work = Workspace(tmp_path / "work", conf / "t.yaml")
    with pytest.raises(UserError, match=r"t.yaml: alignment.labels: words needs a lexicon of phones"):
        prepare(replace(BY_WORDS, lang=LangConfig(units="words")), work, corpus_dir=corpus)
    result = prepare(BY_WORDS, work, corpus_dir=corpus)
    assert result.metadata["sets"]["train"]["words"] == 8 * 2 and result.metadata["sets"]["dev"]["oov_words"] == 0
    lang = read_lang(work.lang)
    assert lang.words == ("b", "iy", "sh", "sil", "z")
    said = {
        word: [[lang.phones[p] for p in variant] for variant in lang.pronunciations[word]] for word in ("sil", "iy")
    }
    assert said == {"sil": [["SIL"]], "iy": [["IY"]]} and len(lang.pronunciations["BE'S"]) == 2
    make_features(BY_WORDS, work, nj=1)
    store = FrameStore.open(work.frames("dev"))
    assert set(store.texts) == {"SHE BE'S"} and set(store.references) == {"SIL SH IX VCL B EPI SIL"}


def test_words_are_transcripts_too(corpus: Path) -> None:
    words = replace(CONFIG, corpus=replace(CONFIG.corpus, transcripts="words"))
    assert {u.text for u in read(corpus, CONF, words).utterances} == {"she be's"}  # as written


@pytest.mark.parametrize("lower", [False, True])
def test_a_whole_copy_has_the_official_sets(tmp_path: Path, lower: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    dev, test = ([name.upper() for name in names] for names in get_speakers())
    for speaker in ("FAAA0", "MAAA0"):
        put(tmp_path, "TRAIN", speaker, "SX20", lower=lower)
    for speaker in (dev[0], test[0], test[1], "MXXX0"):  # the last is in neither
        put(tmp_path, "TEST", speaker, "SX20", lower=lower, form="NIST")
        put(tmp_path, "TEST", speaker, "SA2", lower=lower)
    official = replace(CONFIG, corpus=replace(CONFIG.corpus, dev_speakers=0, test_speakers=0))
    with pytest.raises(UserError, match=r"not whole: 2 of 3696 train, 1 of 400 dev, 2 of 192 test"):
        read(tmp_path, CONF, official)
    with pytest.raises(UserError, match="official TEST speakers"):
        read(tmp_path, CONF, CONFIG)
    monkeypatch.setattr(timit, "UTTERANCES", {"train": 2, "dev": 1, "test": 2})
    listing = read(tmp_path, CONF, official)
    assert {(u.speaker, u.set) for u in listing.utterances} == {
        ("FAAA0", "train"), ("MAAA0", "train"), (dev[0], "dev"), (test[0], "test"), (test[1], "test"),
    }  # fmt: skip


def test_prepare_makes_sets_and_a_language_model_of_phones(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    shutil.copy(CONF / "phones.txt", tmp_path / "conf")
    work = Workspace(tmp_path / "work", tmp_path / "conf" / "t.yaml")
    result = prepare(CONFIG, work, corpus_dir=corpus)
    assert result.metadata["sets"]["train"]["words"] == 8 * 7 and result.metadata["lm"]["order"] == 2
    assert (work.lang / "phones.txt").read_text().split() == ["SIL", "B", "EPI", "IX", "SH", "VCL"]
    assert "SIL SIL" in (work.lang / "lexicon.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("suffix", "old", "new", "says"),
    [
        ("PHN", "3200 4800 ix", "3100 4800 ix", r"PHN:3: ix overlaps with the phone before, which ends at 3200"),
        ("PHN", "3200 4800 ix", "3300 4800 ix", r"PHN:3: ix leaves a gap after the phone before"),
        ("PHN", "9600 12000 h#", "9600 12200 h#", r"PHN:8: h# ends at 12200, but the recording has 12100 samples"),
        ("PHN", "7200 8000 b\n", "7200 8000 bb\n", r"PHN:6: bb is none of the phones of phones.txt"),
        ("PHN", "1600 3200 sh", "1600 sh", r"PHN:2: expected FIRST END LABEL, found '1600 sh'"),
        ("PHN", "1600 3200 sh", "-1 3200 sh", r"PHN:2: expected FIRST END LABEL"),
        ("PHN", "1600 3200 sh", "1600 1600 sh", r"PHN:2: sh ends at 1600, where it begins or before"),
        ("WRD", "4800 8000 be's", "800 8000 be's", r"WRD:2: be's begins before the word above it"),
    ],
)
def test_bad_times_are_named_with_file_and_line(corpus: Path, suffix: str, old: str, new: str, says: str) -> None:
    file = corpus / "data" / "TRAIN" / "DR1" / "FBBB0" / f"SX20.{suffix}"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    transcripts: Any = {"PHN": "phones", "WRD": "words"}[suffix]
    listing = read(corpus, CONF, replace(CONFIG, corpus=replace(CONFIG.corpus, transcripts=transcripts)))
    (problem,) = listing.problems
    assert problem.utterance == "FBBB0-SX20" and re.search(says, problem.reason)
    assert str(file) in problem.reason and "\n" not in problem.reason
    assert len(listing.utterances) == 2 * len(SPEAKERS) - 1


@pytest.mark.parametrize("gone", ["PHN", "WAV"])
def test_a_missing_file_is_a_problem_of_its_utterance(corpus: Path, gone: str) -> None:
    file = corpus / "data" / "TRAIN" / "DR1" / "FBBB0" / f"SX20.{gone}"
    file.unlink()
    listing = read(corpus, CONF, CONFIG)
    (problem,) = listing.problems
    assert problem.utterance == "FBBB0-SX20" and f"SX20.{gone} is missing" in problem.reason


def test_a_recording_that_was_cut_short_is_named(corpus: Path, tmp_path: Path) -> None:
    for form, name in (("WAV", "SX20"), ("NIST", "SI10")):
        file = put(corpus / "data", "TRAIN", "FBBB0", name, form=form).with_suffix(".WAV")
        file.write_bytes(file.read_bytes()[:-9000])
    (tmp_path / "conf").mkdir()
    shutil.copy(CONF / "phones.txt", tmp_path / "conf")
    with pytest.raises(UserError, match=r"FBBB0-S\w+: .*cut short.*\n.*FBBB0-S\w+: .*cut short"):
        prepare(CONFIG, Workspace(tmp_path / "work", tmp_path / "conf" / "t.yaml"), corpus_dir=corpus)


def test_what_is_no_timit_or_cannot_be_split(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder TRAIN"):
        read(corpus / "data" / "TRAIN", CONF, CONFIG)
    for dev, test, says in ((0, 2, "has no TEST: say how many"), (4, 4, "leave none of 8 to train on")):
        with pytest.raises(UserError, match=says):
            read(corpus, CONF, replace(CONFIG, corpus=replace(CONFIG.corpus, dev_speakers=dev, test_speakers=test)))
    with pytest.raises(UserError, match="put the table of phones beside the config"):
        read(corpus, tmp_path, CONFIG)
    empty = tmp_path / "x.PHN"
    empty.write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        read_phones(empty, {}, None)
    with pytest.raises(UserError, match="cannot be read"):
        read_words(tmp_path / "none.WRD", None)
