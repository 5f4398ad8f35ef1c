"""What prepare writes, when it writes again, and that it is all or nothing."""

import errno
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from lhotse import CutSet

from asr_kd.cli import main
from asr_kd.corpora import cuts
from asr_kd.errors import UserError
from asr_kd.io.stamp import read_stamp
from asr_kd.lang.lexicon import read_lang
from asr_kd.lang.ngram import read_arpa
from asr_kd.stages.features import make_features
from asr_kd.stages.prepare import AddSetResult, add_set
from asr_kd.workspace.config_files import with_settings
from asr_kd.workspace.freshness import check_inputs_unmodified
from asr_kd.workspace.sets import added_sets, all_sets, prepared

from .conftest import Recipe, write_wav

MODULES = {
    "write_cuts": "asr_kd.stages.set_cuts",
    "write_lang": "asr_kd.stages.prepare",
    "write_arpa": "asr_kd.stages.prepare",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_prompts_become_cuts_lexicon_and_language_model(prompts_recipe: Recipe) -> None:
    result = prompts_recipe.prepare()
    work = prompts_recipe.work
    train = CutSet.from_file(work.cuts("train"))
    assert [(cut.id, cut.supervisions[0].text, cut.supervisions[0].speaker) for cut in train] == [
        ("digits-1", "ONE", "allison"),
        ("digits-a-m", "A M", "allison"),
    ]
    assert train[0].recording.sources[0].source == "download/sounds/digits/1.wav"  # relative to the work folder
    assert train[0].duration == 1.0 and train[0].num_samples == 8000
    lang = read_lang(work.lang)
    assert lang.words == ("A", "M", "ONE")  # of the training transcripts alone
    assert "HELLO" in lang.pronunciations  # dev's
    assert "DAHDI" not in lang.pronunciations  # nothing of a test set is in what models depend on
    assert "DAHDI" in read_lang(work.lang, work.lexicon("test")).pronunciations
    assert read_arpa(work.lm / "G.arpa").words == lang.words
    assert "dev: 2 utterances, 2 words, " in str(result) and "test: 1 utterance, 1 word, " in str(result)
    assert "left out 1 utterance released without recording or transcript" in str(result)
    assert result.ran and result.metadata["not_speech"] == ["beep"]
    assert result.metadata["known_missing"] == ["pls-try-call-later"]
    assert result.metadata["sets"]["dev"]["oov_words"] == 2
    assert "train: 2 utterances, 3 words" in str(result)


def test_what_is_there_is_not_made_again(folder_recipe: Recipe) -> None:
    assert folder_recipe.prepare().ran
    before = contents(folder_recipe.work.data)
    again = folder_recipe.prepare()
    assert not again.ran and str(again)
    assert contents(folder_recipe.work.data) == before


def test_the_same_corpus_gives_the_same_bytes(folder_recipe: Recipe) -> None:
    folder_recipe.prepare()
    before = contents(folder_recipe.work.data)
    (folder_recipe.work.data / "stamp.json").unlink()
    assert folder_recipe.prepare().ran
    assert contents(folder_recipe.work.data) == before


@pytest.mark.parametrize("what", ["audio", "text", "lexicon", "file gone"])
def test_a_changed_input_is_noticed(folder_recipe: Recipe, what: str) -> None:
    folder_recipe.prepare()
    if what == "audio":
        write_wav(folder_recipe.corpus / "train" / "t1.wav", 1.5)
    elif what == "text":
        (folder_recipe.corpus / "dev" / "text").write_text("d1 world\n")
    elif what == "lexicon":
        (folder_recipe.conf / "lexicon.txt").write_text("HELLO HH AH L OW\n")
    else:
        folder_recipe.work.cuts("test").unlink()
    assert folder_recipe.prepare().ran
    assert not folder_recipe.prepare().ran


def test_other_things_in_data_stay(folder_recipe: Recipe) -> None:
    frames = folder_recipe.work.frames("train")
    frames.mkdir(parents=True)
    (frames / "features.npy").write_text("frames")
    folder_recipe.prepare()
    assert (frames / "features.npy").read_text() == "frames"


@pytest.mark.parametrize("killed_in", MODULES)
def test_a_run_killed_between_two_files_is_done_again(
    folder_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    folder_recipe.prepare()
    good = contents(folder_recipe.work.data)
    (folder_recipe.corpus / "train" / "text").write_text("t1 hello\nt2 press\nt3 good\n")

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[MODULES[killed_in]], killed_in, die)
        with pytest.raises(KeyboardInterrupt):
            folder_recipe.prepare()
    assert read_stamp(folder_recipe.work.data) is None  # first away, last back
    assert folder_recipe.prepare().ran
    assert set(contents(folder_recipe.work.data)) == set(good)
    assert read_lang(folder_recipe.work.lang).words == ("GOOD", "HELLO", "PRESS")


def test_a_full_disk_is_one_sentence_and_the_next_run_mends_it(
    folder_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("asr_kd.stages.set_cuts.write_cuts", full)
        with pytest.raises(UserError, match="the disk is full"):
            folder_recipe.prepare()
    assert contents(folder_recipe.work.data) == {}
    assert folder_recipe.prepare().ran


def test_a_large_corpus_is_compared_by_size_and_time(folder_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "_HASHED_BYTES", 100)
    folder_recipe.prepare()
    assert not folder_recipe.prepare().ran
    write_wav(folder_recipe.corpus / "train" / "t1.wav", 1.2)
    assert folder_recipe.prepare().ran


def test_speakers_are_read_and_unknown_ones_are_the_utterances(folder_recipe: Recipe) -> None:
    (folder_recipe.corpus / "train" / "utt2spk").write_text("t1 ann\nt2 ben\nt3 ann\n")
    metadata = folder_recipe.prepare().metadata
    assert metadata["sets"]["train"]["speakers"] == 2
    dev = CutSet.from_file(folder_recipe.work.cuts("dev"))
    assert dev[0].supervisions[0].speaker == "d1"
    stamp = json.loads(folder_recipe.work.cuts_stamp("train").read_text())
    assert stamp["metadata"] == metadata["sets"]["train"]


def changed(folder: Path, before: dict[str, bytes]) -> set[str]:
    return {name for name, data in contents(folder).items() if before.get(name) != data}


def test_another_test_set_changes_nothing_that_is_learnt(folder_recipe: Recipe) -> None:
    folder_recipe.prepare()
    before = contents(folder_recipe.work.data)
    (folder_recipe.corpus / "test" / "text").write_text("e1 good hello\n")
    assert folder_recipe.prepare().ran
    assert changed(folder_recipe.work.data, before) == {
        "cuts_test.jsonl.gz", "cuts_test.stamp.json", "lexicon_test.txt", "files.json",
    }  # fmt: skip


def add(recipe: Recipe, texts: dict[str, str]) -> AddSetResult:
    """The set `more`, with these utterances."""
    for utterance in texts:
        write_wav(recipe.corpus / "others" / f"{utterance}.wav")
    lines = "".join(f"{utterance} {text}\n" for utterance, text in texts.items())
    (recipe.corpus / "others" / "text").write_text(lines)
    return add_set(recipe.config, recipe.work, "more", ["others"], corpus_dir=recipe.corpus)


def test_a_set_is_added_and_nothing_else_changes(folder_recipe: Recipe) -> None:
    folder_recipe.prepare()
    data = folder_recipe.work.data
    before = contents(data)
    result = add(folder_recipe, {"m1": "hello world", "m2": "good man", "m3": "qqqqx"})
    new = {"cuts_more.jsonl.gz", "cuts_more.stamp.json", "lexicon_more.txt", "files_more.json"}
    assert changed(data, before) == {*new, "added_sets.json"}
    assert set(all_sets(folder_recipe.config, folder_recipe.work)) == {"train", "dev", "test", "more"}
    assert [cut.id for cut in CutSet.from_file(folder_recipe.work.cuts("more"))] == ["m1", "m2", "m3"]
    assert result.metadata["oov_words"] == 2 and "2 words outside the vocabulary (MAN, QQQQX)" in str(result)
    assert "warning: 40% of the words of more are outside the vocabulary, and cannot be recognised" in str(result)
    assert result.metadata["without_pronunciation"] == 1 and result.metadata["sentences_in_lm_text"] == 1
    assert "MAN" in read_lang(folder_recipe.work.lang, folder_recipe.work.lexicon("more")).pronunciations
    assert not add(folder_recipe, {"m1": "hello world", "m2": "good man", "m3": "qqqqx"}).ran
    assert not folder_recipe.prepare().ran
    assert prepared(folder_recipe.config, folder_recipe.work)["sets"]["more"] == result.metadata


def test_all_words_outside_the_vocabulary_are_counted(folder_recipe: Recipe) -> None:
    folder_recipe.prepare()
    said = str(
        add(
            folder_recipe,
            {"m1": "one two three four five", "m2": "six seven eight nine ten", "m3": "eleven twelve two", "m4": "two"},
        )
    )
    # ONE is known
    assert (
        "more: 4 utterances, 14 words, 0.1 minutes, 13 words (11 different ones) outside the vocabulary (TWO, " in said
    )
    assert " and 6 more)" in said


def test_a_set_that_was_added_with_another_language_model_is_named(folder_recipe: Recipe) -> None:
    folder_recipe.prepare()
    add(folder_recipe, {"m1": "hello world"})
    assert "add it again" not in str(folder_recipe.prepare())
    recipe = replace(folder_recipe, config=with_settings(folder_recipe.config, {"lang.ngram_order": 1}))
    assert "warning: more was added with another lexicon or language model" in str(recipe.prepare())
    assert add(recipe, {"m1": "hello world"}).ran
    assert "add it again" not in str(recipe.prepare())


def test_a_set_is_added_with_the_lexicon_of_the_others(folder_recipe: Recipe) -> None:
    folder_recipe.prepare()
    other = folder_recipe.conf / "other.txt"
    other.write_text("HELLO HH AH L OW\n")
    recipe = replace(folder_recipe, config=with_settings(folder_recipe.config, {"lang.lexicon": str(other)}))
    with pytest.raises(
        UserError, match="was prepared with another lexicon file, or with none; give the same --lexicon"
    ):
        add(recipe, {"m1": "hello world"})
    assert not recipe.work.cuts("more").exists()


def test_an_added_set_whose_transcripts_changed_is_named_with_its_command(folder_recipe: Recipe) -> None:
    folder_recipe.prepare()
    add(folder_recipe, {"m1": "hello world"})
    check_inputs_unmodified(folder_recipe.work)
    (folder_recipe.corpus / "others" / "text").write_text("m1 hello\n")
    says = r"others/text changed after .*asr-kd prepare --add-set more=others --config .* --corpus-dir DIR"
    with pytest.raises(UserError, match=says):
        check_inputs_unmodified(folder_recipe.work)


def test_a_set_that_was_added_and_is_in_the_config_now_is_the_configs(folder_recipe: Recipe) -> None:
    """Else each of the two commands would send the user to the other one."""
    folder_recipe.prepare()
    add(folder_recipe, {"m1": "hello world"})
    sets = {name: list(parts) for name, parts in folder_recipe.config.sets.items()} | {"more": ["others"]}
    recipe = replace(folder_recipe, config=with_settings(folder_recipe.config, {"sets": sets}))
    recipe.prepare()
    assert added_sets(recipe.work) == {}
    (recipe.corpus / "others" / "text").write_text("m1 hello\n")
    with pytest.raises(UserError, match=r"others/text changed after .*asr-kd prepare --config"):
        check_inputs_unmodified(recipe.work)
    assert recipe.prepare().ran
    check_inputs_unmodified(recipe.work)


def other_time(path: Path, seconds: float) -> None:
    """`touch -d '+2 hours'`, where it is two hours."""
    time = path.stat().st_mtime + seconds
    os.utime(path, (time, time))


@pytest.mark.parametrize("seconds", [7200, -7200])
@pytest.mark.parametrize("hashed", [True, False])
def test_what_prepare_read_counts_and_no_clock(
    folder_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, seconds: float, hashed: bool
) -> None:
    """A recording from the future, or from the past, is not read again for ever."""
    if not hashed:
        monkeypatch.setattr(cuts, "_HASHED_BYTES", 100)
    folder_recipe.prepare()
    for file in ("t1.wav", "text"):
        other_time(folder_recipe.corpus / "train" / file, seconds)
    if hashed:
        check_inputs_unmodified(folder_recipe.work)  # the content is the same
        assert not folder_recipe.prepare().ran
    else:  # a large corpus: its recordings are not read to compare them
        with pytest.raises(UserError, match=r"train/t1\.wav changed after"):
            check_inputs_unmodified(folder_recipe.work)
        assert folder_recipe.prepare().ran
    check_inputs_unmodified(folder_recipe.work)


@pytest.mark.parametrize("seconds", [0, -7200])
@pytest.mark.parametrize("file", ["t1.wav", "text"])
def test_a_file_that_changed_is_named_until_it_is_read_again(folder_recipe: Recipe, file: str, seconds: float) -> None:
    """Also where it is older than what was made from it, as a file that was moved here is."""
    folder_recipe.prepare()
    path = folder_recipe.corpus / "train" / file
    if file == "text":
        path.write_text("t1 hello\nt2 press 1\nt3 good bye\n")
    else:
        write_wav(path, 1.5)
    other_time(path, seconds)
    with pytest.raises(UserError, match=rf"train/{file} changed after .*data was made; .* asr-kd prepare --config"):
        check_inputs_unmodified(folder_recipe.work)
    assert folder_recipe.prepare().ran
    check_inputs_unmodified(folder_recipe.work)
    path.unlink()  # whoever needs the space may delete it
    check_inputs_unmodified(folder_recipe.work)


READERS: dict[str, Callable[[Recipe], object]] = {
    "files.json": lambda recipe: check_inputs_unmodified(recipe.work),
    "lang/phones.txt": lambda recipe: read_lang(recipe.work.lang),
    "lang/words.txt": lambda recipe: read_lang(recipe.work.lang),
    "lang/lexicon.txt": lambda recipe: read_lang(recipe.work.lang),
    "lexicon_test.txt": lambda recipe: read_lang(recipe.work.lang, recipe.work.lexicon("test")),
    "cuts_train.jsonl.gz": lambda recipe: make_features(recipe.config, recipe.work),
    "cuts_test.stamp.json": lambda recipe: make_features(recipe.config, recipe.work),
}


@pytest.mark.parametrize("name", READERS)
def test_the_advice_about_a_damaged_file_works(folder_recipe: Recipe, name: str) -> None:
    """It says that the file is to be deleted: prepare alone would find its stamps as they should be."""
    folder_recipe.prepare()
    read, file = READERS[name], folder_recipe.work.data / name
    good = read(folder_recipe)
    file.write_text("z z\na\n")
    with pytest.raises(UserError, match=rf"{name}.*delete (it|the file).*(asr-kd prepare|run the stage again)"):
        read(folder_recipe)
    file.unlink()
    folder_recipe.prepare()
    again = read(folder_recipe)
    assert again == good or name.startswith("cuts")


@pytest.mark.parametrize("units", ["characters", "bpe"])
def test_a_character_that_training_lacks_is_named_with_advice_that_works(folder_recipe: Recipe, units: str) -> None:
    """The lexicon is not read then, so no line of it helps."""
    lang = {"lang.units": units, "lang.bpe_size": 30, "lang.language": "de"}
    folder_recipe.config = with_settings(folder_recipe.config, lang)
    (folder_recipe.corpus / "train" / "text").write_text("t1 hello world\nt2 press one\nt3 good bye\n")
    (folder_recipe.corpus / "dev" / "text").write_text("d1 hör öl\n", encoding="utf-8")
    says = r"d1: the word hör has ö, which no training transcript has; correct the word, or give training a tra"
    with pytest.raises(UserError, match=says) as caught:
        folder_recipe.prepare()
    assert "lexicon" not in str(caught.value)
    (folder_recipe.corpus / "train" / "text").write_text(
        "t1 hello wörld\nt2 press one\nt3 good bye\n", encoding="utf-8"
    )
    assert folder_recipe.prepare().ran


def test_a_word_without_a_pronunciation_is_named_with_advice_that_works(folder_recipe: Recipe) -> None:
    (folder_recipe.corpus / "train" / "text").write_text("t1 hello blorpling\nt2 press 1\nt3 good bye\n")
    says = (
        r"the word BLORPLING has no pronunciation; add a line for it to \S+conf/lexicon\.txt, or set lang\.guess_pronu"
    )
    with pytest.raises(UserError, match=says):
        folder_recipe.prepare()
    guessing = with_settings(folder_recipe.config, {"lang.guess_pronunciations": True})
    assert replace(folder_recipe, config=guessing).prepare().ran
    (folder_recipe.conf / "lexicon.txt").write_text("BLORPLING B L AO R P L IH NG\n")
    assert folder_recipe.prepare().ran


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("test", "has a set test already"),
        ("a b", "cannot name a set"),
        ("model", "is the aligner"),
        ("more", "no such|cannot be"),
    ],
)
def test_a_set_that_cannot_be_added_is_one_sentence(folder_recipe: Recipe, name: str, says: str) -> None:
    folder_recipe.prepare()
    with pytest.raises(UserError, match=says):
        add_set(folder_recipe.config, folder_recipe.work, name, ["gone"], corpus_dir=folder_recipe.corpus)


@pytest.mark.parametrize("other", [["--set", "dev=test"], ["--dev-speakers", "0"]])
def test_options_for_other_sets_are_refused_beside_add_set(folder_recipe: Recipe, other: list[str]) -> None:
    folder_recipe.work.config_path.write_text("corpus: {name: folder, sampling_rate: 8000}\n")
    command = ["prepare", "--config", str(folder_recipe.work.config_path), "--corpus-dir", str(folder_recipe.corpus)]
    result = CliRunner().invoke(main, [*command, "--add-set", "more=others", *other])
    assert result.exit_code == 2 and "do not go with --add-set" in result.output
    assert not folder_recipe.work.data.exists()


@pytest.mark.parametrize("units", ["characters", "bpe"])
def test_units_other_than_phones_need_no_lexicon(folder_recipe: Recipe, units: str) -> None:
    folder_recipe.prepare()
    (folder_recipe.corpus / "train" / "text").write_text("t1 hello blorpling\nt2 press 1\nt3 good bye\n")
    (folder_recipe.corpus / "dev" / "text").write_text("d1 hello bye\n")
    folder_recipe.config = with_settings(folder_recipe.config, {"lang.units": units, "lang.bpe_size": 20})
    assert folder_recipe.prepare().ran
    lang = read_lang(folder_recipe.work.lang)
    assert "BLORPLING" in lang.words
    spelt = "".join(lang.phones[unit] for unit in lang.pronunciations["BLORPLING"][0])
    assert spelt.lstrip("\N{LOWER ONE EIGHTH BLOCK}") == "BLORPLING"


def test_a_lexicon_beside_cmudict_may_be_missing(folder_recipe: Recipe) -> None:
    folder_recipe.prepare()
    before = contents(folder_recipe.work.data / "lang")
    (folder_recipe.conf / "lexicon.txt").unlink()
    assert folder_recipe.prepare().ran
    assert contents(folder_recipe.work.data / "lang") == before
    folder_recipe.config = with_settings(folder_recipe.config, {"lang.lexicon": "mine.txt"})
    with pytest.raises(UserError, match=r"mine\.txt: there is no such file; name another as lang\.lexicon"):
        folder_recipe.prepare()


def test_words_whose_pronunciation_was_guessed_are_named_and_listed(folder_recipe: Recipe) -> None:
    folder_recipe.config = with_settings(
        folder_recipe.config, {"lang.guess_pronunciations": True, "lang.lm_text": "text.txt", "lang.ngram_order": 1}
    )
    (folder_recipe.conf / "text.txt").write_text("hello world\nzorpling\npress one good bye\n")
    assert "1 word is in no lexicon (ZORPLING): letter-to-sound" in str(folder_recipe.prepare())
    (folder_recipe.corpus / "train" / "text").write_text("t1 hello blorpling\nt2 press flimmish\nt3 good drobbit\n")
    (folder_recipe.corpus / "dev" / "text").write_text("d1 hello florn clarb\n")
    (folder_recipe.corpus / "test" / "text").write_text("e1 grelch blorpling\n")
    result = folder_recipe.prepare()
    assert (
        "7 words are in no lexicon (BLORPLING in t1, CLARB in d1, DROBBIT in t3, FLIMMISH in t2, FLORN in d1 and 2 "
        "more): letter-to-sound rules gave the pronunciations, all of which are in data/guessed_lexicon.txt"
    ) in str(result)
    listed = folder_recipe.work.data / "guessed_lexicon.txt"
    words = [line.split()[0] for line in listed.read_text().splitlines()]
    assert words == ["BLORPLING", "CLARB", "DROBBIT", "FLIMMISH", "FLORN", "GRELCH", "ZORPLING"]
    (folder_recipe.conf / "lexicon.txt").write_text(listed.read_text())  # it is a lexicon
    assert "in no lexicon" not in str(folder_recipe.prepare()) and not listed.exists()
