"""How prompts are divided, and the division that the recipe keeps."""

import sys
from pathlib import Path

import pytest

from asr_kd.corpora.prompts import INCOMPLETE, read_corrections, read_split, read_texts, words_or_text
from asr_kd.lang.normalise import Normaliser

RECIPE = Path(__file__).parents[2] / "recipes" / "prompts"
sys.path.insert(0, str(RECIPE / "local"))
from make_split import group_texts, split  # noqa: E402


def some_texts() -> dict[str, str]:
    verbs, things = (
        ["PRESS", "DIAL", "HEAR", "SAY", "SAVE", "ERASE"],
        ["ONE", "TWO", "POUND", "STAR", "NAME", "MESSAGE"],
    )
    texts = {f"{verb}-{thing}": f"{verb} {thing}" for verb in verbs for thing in things}
    texts |= {f"long-{i}": " ".join([verbs[i], *things, verbs[-i - 1], *reversed(things)]) for i in range(6)}
    return texts | {"again": "PRESS ONE", "rare": "PRESS UNICORN"}


def check(texts: dict[str, str], sets: dict[str, str]) -> None:
    assert set(sets) == set(texts)
    training = {word for name, text in texts.items() if sets[name] == "train" for word in text.split()}
    assert {word for text in texts.values() for word in text.split()} == training  # a closed vocabulary
    for group in group_texts(texts):
        assert len({sets[name] for name in group}) == 1, group


def test_the_vocabulary_is_closed_and_like_texts_stay_together() -> None:
    texts = some_texts()
    sets = split(texts, trials=30)
    check(texts, sets)
    assert sets["rare"] == "train" and sets["again"] == sets["PRESS-ONE"]
    assert set(sets.values()) == {"train", "dev", "test"}
    assert sets == split(dict(reversed(texts.items())), trials=30)  # a function of the texts alone


def test_near_texts_are_grouped_through_others() -> None:
    a = "PLEASE ENTER THE FIRST THREE LETTERS OF YOUR NAME"
    texts = {
        "a": a,
        "b": a.replace("FIRST", "LAST"),
        "c": a.replace("FIRST", "LAST").replace("YOUR", "THEIR"),
        "d": "NO",
    }
    assert group_texts(texts) == [["a", "b", "c"], ["d"]]


def complete(sets: dict[str, str]) -> dict[str, str]:
    """The prompts with a recording and a transcript."""
    return {name: which for name, which in sets.items() if which != INCOMPLETE}


@pytest.fixture
def recipe_texts() -> dict[str, str]:
    transcripts = RECIPE / "download" / "core-sounds-en.txt"
    if not transcripts.exists():
        pytest.skip("the prompts are not fetched (recipes/prompts/run.sh --stop-stage 0)")
    texts = read_texts(transcripts, RECIPE / "conf" / "en")
    del texts["pls-try-call-later"]
    return {name: words for name, text in texts.items() if (words := words_or_text(text, Normaliser()))}


def test_the_recipes_split_keeps_its_promises(recipe_texts: dict[str, str]) -> None:
    sets = complete(read_split(RECIPE / "conf" / "en" / "split.tsv"))
    check(recipe_texts, sets)
    words = {name: sum(len(recipe_texts[p].split()) for p in sets if sets[p] == name) for name in ("dev", "test")}
    total = sum(len(text.split()) for text in recipe_texts.values())
    assert words["test"] >= 700 and 0.24 < words["test"] / total < 0.26
    assert 0.10 < words["dev"] / total < 0.12


def test_the_split_is_what_the_command_makes(recipe_texts: dict[str, str]) -> None:
    assert split(recipe_texts) == complete(read_split(RECIPE / "conf" / "en" / "split.tsv"))


@pytest.mark.parametrize(("language", "recordings", "no_speech"), [("en", 568, 17), ("fr", 561, 5), ("es", 527, 6)])
def test_the_recipes_lists_agree(language: str, recordings: int, no_speech: int) -> None:
    conf = RECIPE / "conf" / language
    files = [line.split()[1] for line in (conf / "files.sha256").read_text().splitlines()]
    assert len(files) == 1 + recordings and files[0] == f"core-sounds-{language}.txt"
    names = {file.removeprefix("sounds/").removesuffix(".wav") for file in files[1:]}
    sets = read_split(conf / "split.tsv")
    assert set(complete(sets)) <= names and len(names - set(sets)) == no_speech
    assert set(read_corrections(conf / "corrections.txt")) <= set(sets)
