"""LibriSpeech in its makers' layout: sets from parts, dev from training speakers, and what is wrong with a copy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_kd.corpora import librispeech
from asr_kd.corpora.listing import CorpusManifest, ReadRequest
from asr_kd.corpora.settings import LibriSpeechConfig
from asr_kd.errors import UserError
from asr_kd.lang.g2p import G2P
from asr_kd.lang.lexicon import read_lang
from asr_kd.lang.settings import LangConfig
from asr_kd.stages.prepare import prepare
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import with_settings
from asr_kd.workspace.work import Workspace

RATE = 16000
TEXTS = {
    "train-clean-100": {
        "19-198": ["HELLO WORLD", "THE WORLD IS OLD"],
        "26-495": ["GOOD DAY", "THE OLD MAN", "A GOOD MAN"],
        "27-1": ["A DAY"],
    },
    "test-clean": {"61-70": ["THE DAY IS GOOD"]},
}


def write_part(folder: Path, chapters: dict[str, list[str]]) -> None:
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 2 * RATE)
    for chapter, texts in chapters.items():
        place = folder.joinpath(*chapter.split("-"))
        place.mkdir(parents=True)
        names = [f"{chapter}-{number:04d}" for number in range(len(texts))]
        for name in names:
            soundfile.write(place / f"{name}.flac", noise, RATE)
        lines = "".join(f"{name} {text}\n" for name, text in zip(names, texts, strict=True))
        (place / f"{chapter}.trans.txt").write_text(lines)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for part, chapters in TEXTS.items():
        write_part(tmp_path / "download" / "LibriSpeech" / part, chapters)
    return tmp_path / "download"


CONFIG = Config(
    corpus=LibriSpeechConfig(sampling_rate=RATE, dev_speakers=1),
    sets={"train": ("train-clean-100",), "dev": (), "test": ("test-clean",)},
    lang=LangConfig(guess_pronunciations=True),  # nobody names a lexicon, and there is none
)


def read(root: Path, config: Config) -> CorpusManifest:
    return librispeech.read(ReadRequest(root, root, config.corpus, config.sets, config.seed))


def sets(listing) -> dict[str, list[str]]:
    return {name: [u.id for u in listing.utterances if u.set == name] for name in ("train", "dev", "test")}


def test_dev_is_taken_from_the_speakers_with_the_least(corpus: Path) -> None:
    listing = read(corpus, CONFIG)
    assert sets(listing)["dev"] == ["27-1-0000"]
    assert len(sets(listing)["train"]) == 5 and sets(listing)["test"] == ["61-70-0000"]
    assert {u.speaker for u in listing.utterances} == {"19", "26", "27", "61"}
    assert listing.utterances[0].text == "HELLO WORLD" and not listing.problems
    assert sets(read(corpus / "LibriSpeech", CONFIG)) == sets(listing)  # either folder will do


def test_ties_between_speakers_are_settled_by_the_seed(tmp_path: Path) -> None:
    write_part(tmp_path / "train-clean-100", {f"{speaker}-1": ["A"] for speaker in range(10, 30)})
    write_part(tmp_path / "test-clean", {"61-70": ["A"]})
    taken = [
        tuple(sets(read(tmp_path, with_settings(CONFIG, {"seed": s, "corpus.dev_speakers": 4})))["dev"])
        for s in (1, 1, 2, 3)
    ]
    assert taken[0] == taken[1] and len(set(taken)) > 1
    assert all(len(dev) == 4 for dev in taken)


def test_what_is_wrong_with_one_utterance_is_a_problem_of_that_one(corpus: Path) -> None:
    chapter = corpus / "LibriSpeech/train-clean-100/26/495"
    (chapter / "26-495-0000.flac").unlink()
    lines = (chapter / "26-495.trans.txt").read_text().splitlines()
    (chapter / "26-495.trans.txt").write_text("\n".join(lines[:2]) + "\n")
    result = {problem.utterance: problem.reason for problem in read(corpus, CONFIG).problems}
    assert "26-495-0000.flac is missing" in result.pop("26-495-0000")
    assert "has no line in" in result.pop("26-495-0002")
    assert not result


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"sets.dev": ["dev-clean"]}, "no part 'dev-clean', only test-clean, train-clean-100; fetch it"),
        ({"sets.test": ["../LibriSpeech"]}, "no part '../LibriSpeech'"),
        ({"corpus.dev_speakers": 3}, "3 speakers were asked for dev, but training has 3; lower --dev-speakers"),
        ({"sets.dev": ["train-clean-100"]}, "utterance 19-198-0000 is in train-clean-100 too"),
    ],
)
def test_parts_that_cannot_be_had(corpus: Path, setting: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(corpus, with_settings(CONFIG, setting))


def test_a_copied_utterance_in_two_parts_is_named(corpus: Path) -> None:
    write_part(corpus / "LibriSpeech" / "dev-clean", {"19-198": ["HELLO WORLD"]})
    with pytest.raises(UserError, match="utterance 19-198-0000 is in train-clean-100 too; leave one of the parts out"):
        read(corpus, with_settings(CONFIG, {"sets.dev": ["dev-clean"]}))


@pytest.mark.parametrize("line", ["19-198-0000", "19_198 HELLO", "19-198-0001 ..."])
def test_a_malformed_transcript_names_file_and_line(corpus: Path, line: str) -> None:
    path = corpus / "LibriSpeech/train-clean-100/19/198/19-198.trans.txt"
    path.write_text(f"19-198-0001 FINE\n{line}\n")
    with pytest.raises(UserError, match=r"19-198\.trans\.txt:2: expected 'speaker-chapter-number WORDS'"):
        read(corpus, CONFIG)


def test_missing_transcripts_are_named(corpus: Path) -> None:
    path = corpus / "LibriSpeech/test-clean/61/70/61-70.trans.txt"
    path.unlink()
    with pytest.raises(UserError, match=r"61-70\.trans\.txt: cannot be read .*fetch the part again"):
        read(corpus, CONFIG)


def prepared(corpus: Path, **settings: object) -> dict:
    work = Workspace(corpus.parent, corpus.parent / "mini.yaml")
    config = with_settings(CONFIG, {key.replace("__", "."): value for key, value in settings.items()})
    return prepare(config, work, corpus_dir=corpus).metadata | {"lang": read_lang(work.lang)}


@pytest.mark.slow
def test_the_language_model_leaves_out_what_dev_and_test_say(corpus: Path) -> None:
    text = corpus.parent / "text"
    text.write_text("1-2-3 a day\n1-2-4 The day is good.\nthe man is good\nday day old\n")
    metadata = prepared(corpus, lang__lm_text=str(text))
    assert metadata["lm"]["sentences_left_out"] == 2
    assert metadata["lang"].words == ("DAY", "GOOD", "IS", "MAN", "OLD", "THE")
    assert metadata["sets"]["dev"]["oov_words"] == 1  # A
    assert metadata["sets"]["test"]["oov_words"] == 0


@pytest.mark.slow
def test_a_smaller_vocabulary_holds_the_most_frequent_words(corpus: Path) -> None:
    metadata = prepared(corpus, lang__vocabulary=3)
    assert metadata["lang"].words == ("GOOD", "MAN", "OLD")  # the first of five words that are there twice each
    assert metadata["lm"]["words"] == 3


@pytest.mark.slow
def test_words_in_no_lexicon_are_guessed_listed_and_told(corpus: Path) -> None:
    path = corpus / "LibriSpeech/train-clean-100/19/198/19-198.trans.txt"
    path.write_text("19-198-0000 HELLO BLORPLING\n19-198-0001 THE WORLD IS OLD\n")
    with pytest.raises(UserError, match="19-198-0000: the word BLORPLING has no pronunciation"):
        prepared(corpus, lang__guess_pronunciations=False, lang__lexicon=str(_empty(corpus.parent / "lexicon.txt")))
    metadata = prepared(corpus)
    assert list(metadata["guessed_pronunciations"]) == ["BLORPLING"]
    assert len(metadata["lang"].pronunciations["BLORPLING"]) == 1


def test_speakers_in_training_and_test_are_a_warning_that_stays(corpus: Path) -> None:
    write_part(corpus / "LibriSpeech" / "test-other", {"19-9": ["GOOD DAY"]})
    metadata = prepared(corpus, sets__test=["test-other"])
    assert metadata["shared_speakers"] == ["19"]


@pytest.mark.slow
def test_an_arpa_file_with_words_that_nobody_can_say(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = prepared(corpus)
    arpa = corpus.parent / "data/lm/G.arpa"
    given = corpus.parent / "given.arpa"
    given.write_text(arpa.read_text().replace("WORLD", "BLORPLING"))
    with pytest.raises(UserError, match=r"given\.arpa: 1 word of the language model cannot be recognised \(BLORP"):
        prepared(corpus, lang__lm=str(given), lang__guess_pronunciations=False,
                 lang__lexicon=str(_empty(corpus.parent / "lexicon.txt")))  # fmt: skip
    monkeypatch.setattr(G2P, "pronounce", lambda self, word: None)  # as of letters that no word it knows has
    with pytest.raises(UserError, match=r"given\.arpa: 1 word .* to .*lexicon.txt; or take such words out of it\.$"):
        prepared(corpus, lang__lm=str(given))
    monkeypatch.undo()
    again = prepared(corpus, lang__lm=str(given))
    assert set(again["lang"].words) ^ set(metadata["lang"].words) == {"WORLD", "BLORPLING"}


def test_a_large_arpa_file_is_judged_by_its_header(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepared(corpus)
    given = corpus.parent / "given.arpa"
    given.write_text((corpus.parent / "data/lm/G.arpa").read_text())
    monkeypatch.setattr("asr_kd.stages.language.available_memory", lambda: 1e8)  # enough to read it
    with caplog.at_level("WARNING"):
        prepared(corpus, lang__lm=str(given))
    assert "stage 7 will not be possible" in caplog.text and "no graph fits" in caplog.text
    given.write_text("\\data\\\nngram 1=200003\nngram 2=79000000\n\n\\1-grams:\n")  # what follows is not reached
    with pytest.raises(UserError, match=r"given.arpa: reading its 79,200,003 n-grams takes about 35.6 GB"):
        prepared(corpus, lang__lm=str(given))


def test_the_file_of_an_option_must_be_there(corpus: Path) -> None:
    for name in ("lexicon", "lm", "lm_text"):
        with pytest.raises(UserError, match=f"nothing: there is no such file; name another as lang.{name}"):
            prepared(corpus, **{f"lang__{name}": str(corpus / "nothing")})


def _empty(path: Path) -> Path:
    path.write_text("")
    return path


def test_replacing_one_part_makes_the_cuts_anew(corpus: Path) -> None:
    work = Workspace(corpus.parent, corpus.parent / "mini.yaml")
    assert prepare(CONFIG, work, corpus_dir=corpus).ran
    assert not prepare(CONFIG, work, corpus_dir=corpus).ran
    other = replace(CONFIG, corpus=replace(CONFIG.corpus, dev_speakers=2))
    assert prepare(other, work, corpus_dir=corpus).ran


def test_a_set_without_transcripts_does_not_read_them(corpus: Path) -> None:
    part = corpus / "LibriSpeech" / "train-clean-100"
    written = sorted(path.stem for path in part.rglob("*.flac"))
    for path in part.rglob("*.trans.txt"):
        path.write_text("not a line of transcripts")
    request = ReadRequest(
        corpus, corpus, LibriSpeechConfig(), {"more": ("train-clean-100",)}, untranscribed=frozenset({"more"})
    )
    listing = librispeech.read(request)
    assert not listing.problems and not listing.transcripts
    assert sorted(u.id for u in listing.utterances) == written and {u.text for u in listing.utterances} == {""}
