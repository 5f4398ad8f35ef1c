"""Corpora in other languages than English, from the recordings to what prepare writes."""

from dataclasses import replace

import pytest
from lhotse import CutSet

from asr_kd.errors import UserError
from asr_kd.lang.lexicon import read_lang
from asr_kd.lang.ngram import read_arpa
from asr_kd.lang.settings import LangConfig

from .conftest import Recipe


def in_language(recipe: Recipe, texts: dict[str, dict[str, str]], **settings: object) -> None:
    """Replaces the transcripts of the recordings that are there."""
    for name, lines in texts.items():
        text = "".join(f"{utterance} {words}\n" for utterance, words in lines.items())
        (recipe.corpus / name / "text").write_text(text, encoding="utf-8")
    recipe.config = replace(recipe.config, lang=LangConfig(**settings))  # type: ignore[arg-type]


RUSSIAN = {
    "train": {"t1": "Мир, ёж!", "t2": "[шум]", "t3": "Да 5"},
    "dev": {"d1": "мир"},
    "test": {"e1": "«Ёж»"},
}


def test_text_of_another_script_stops_with_the_key_to_set(folder_recipe: Recipe) -> None:
    in_language(folder_recipe, RUSSIAN, units="characters")
    with pytest.raises(UserError, match=r"87\.5% of the characters .* no letters of the language en .*lang\.language"):
        folder_recipe.prepare()
    assert not (folder_recipe.work.data / "stamp.json").exists()


@pytest.mark.parametrize("units", ["characters", "bpe"])
def test_text_of_another_script_whose_letters_are_kept_stops_too(folder_recipe: Recipe, units: str) -> None:
    texts = {
        "train": {"t1": "Hello world", "t2": "press one", "t3": "good bye"},
        "dev": {"d1": "quick fox"},
        "test": {"e1": "five"},
    }
    in_language(folder_recipe, texts, units=units, bpe_size=30, language="uk")
    says = r"download: 100\.0% of the characters in the words of train are no letters of the language uk \(5 “o”, 4 “e”"
    with pytest.raises(UserError, match=rf"{says}.*\); set lang\.language to the language of the text"):
        folder_recipe.prepare("skip")
    texts["train"]["t3"] = "перша є українською, а друга OK"  # names and quotations are common
    texts["train"]["t1"] = "привіт світ"
    texts["dev"]["d1"], texts["test"]["e1"] = "привіт", "світ"
    in_language(folder_recipe, texts, units=units, bpe_size=30, language="uk")
    assert folder_recipe.prepare("skip").ran


def test_cyrillic_is_kept_and_counted(folder_recipe: Recipe) -> None:
    in_language(folder_recipe, RUSSIAN, units="characters", language="ru")
    result = folder_recipe.prepare()
    train = CutSet.from_file(folder_recipe.work.cuts("train"))
    assert [(cut.supervisions[0].text, cut.supervisions[0].language) for cut in train] == [
        ("мир ёж", "ru"),
        ("да пять", "ru"),
    ]
    lang = read_lang(folder_recipe.work.lang)
    assert lang.words == ("да", "мир", "пять", "ёж")
    assert set(lang.phones) == {"SIL", *"мирёждапять"}
    assert result.metadata["not_speech"] == ["t2"]
    assert "train: dropped 1 note in brackets: 1 “[шум]”; first in t2" in str(result)


def test_a_language_that_num2words_lacks_names_utterance_and_number(folder_recipe: Recipe) -> None:
    texts = {"train": {"t1": "ọjọ́", "t2": "ọjọ́ 5", "t3": "ẹ̀kọ́"}, "dev": {"d1": "ọjọ́"}, "test": {"e1": "ẹ̀kọ́"}}
    in_language(folder_recipe, texts, units="characters", language="yo")
    with pytest.raises(UserError, match=r"t2: its transcript cannot be read: the number 5 .* lang\.normalise: none"):
        folder_recipe.prepare()
    assert len(folder_recipe.prepare("skip").metadata["sets"]["train"]["left_out"]) == 1


def test_characters_of_a_script_without_spaces_are_words(folder_recipe: Recipe) -> None:
    texts = {"train": {"t1": "你好。", "t2": "世界", "t3": "你们"}, "dev": {"d1": "你"}, "test": {"e1": "好"}}
    in_language(folder_recipe, texts, units="characters", language="zh")
    folder_recipe.prepare()
    assert read_lang(folder_recipe.work.lang).words == tuple(sorted("你好世界们"))


def test_transcripts_stay_as_they_are_where_that_is_asked_for(folder_recipe: Recipe) -> None:
    texts = {"train": {"t1": "Hello, 5", "t2": "(x)", "t3": "Hello,"}, "dev": {"d1": "5"}, "test": {"e1": "5"}}
    in_language(folder_recipe, texts, units="characters", normalise="none")
    folder_recipe.prepare()
    assert read_lang(folder_recipe.work.lang).words == ("(x)", "5", "Hello,")


def test_a_language_model_in_another_case_is_one_of_the_transcripts_words(folder_recipe: Recipe) -> None:
    words = ("</s>", "hello", "World", "good-bye", "press", "one", "nothin'")
    lines = "".join(f"-0.9\t{word}\n" for word in ("<s>", *words))
    model = folder_recipe.conf / "lower.arpa"
    model.write_text(f"\\data\\\nngram 1={len(words) + 1}\n\n\\1-grams:\n{lines}\n\\end\\\n")
    folder_recipe.config = replace(
        folder_recipe.config, lang=LangConfig(lm="lower.arpa", units="characters", guess_pronunciations=True)
    )
    folder_recipe.prepare()
    assert read_arpa(folder_recipe.work.lm / "G.arpa").words == ("HELLO", "NOTHIN", "ONE", "PRESS", "WORLD")
