"""The names of columns along any path of a sentence, with the rule applied, are the sentence."""

from __future__ import annotations

import itertools

import kaldifst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.alignment.topology import SIL
from asr_kd.alignment.tree import Tree, monophone_tree
from asr_kd.export.spelling import Spelling, spelling_of, write_rule
from asr_kd.lang.lexicon import SILENCE, Lang, make_lang
from asr_kd.lang.units import Pronunciations, characters_of

CHARACTERS = {word: [tuple(word)] for word in ("A", "AB", "BA", "ÉA", "AÉÉ", "~B", "B")}
PIECES = {"BA": [("▁BA",)], "BAS": [("▁BA", "S")], "SAS": [("▁", "SA", "S")], "S": [("▁", "S")]}
KOREAN = {word: [characters_of(word)] for word in ("가", "각", "한국", "가구", "의", "ㅋㅋ", "값도", "A가")}
UNSPACED = {word: [(word,)] for word in "我有書"}


def tied_tree(phones: tuple[str, ...], seed: int) -> Tree:
    """Contexts share two or three senones at random."""
    size = len(phones)
    number = np.random.default_rng(seed).integers(0, 3, (size, 3, size, size))
    tables = 3 * np.arange(3 * size).reshape(size, 3, 1, 1) + number
    return Tree(phones, tables.astype(np.int32), np.ones(9 * size, np.int64))


def columns_of(spelling: Spelling, sentence: list[str], pauses: list[bool]) -> list[int]:
    """The columns along the path of a sentence, which has silence where `pauses` says so; each is taken twice."""
    units = [SIL] * pauses[0]
    for word, pause in zip(sentence, pauses[1:]):
        units += [*spelling.lang.pronunciations[word][0], *[SIL] * pause]
    around = [SIL, *units, SIL]
    contexts = zip(units, around, around[2:])
    path = [spelling.tree.tables[unit, state, left, right] for unit, left, right in contexts for state in range(3)]
    return [int(column) for column in path for _ in range(2)]


def text_of(spelling: Spelling, columns: list[int], rule: kaldifst.TextNormalizer) -> str:
    """As sherpa-onnx makes it: each run of a column once."""
    names = [spelling.names[column] for column, _ in itertools.groupby(columns)]
    return rule("".join(name.replace("▁", " ", 1) if name.startswith("▁") else name for name in names))


def lang_of(words: Pronunciations) -> Lang:
    return make_lang(words, words, sorted({unit for [variant] in words.values() for unit in variant}))


@pytest.fixture(scope="module")
def rules(tmp_path_factory) -> dict[tuple[str, ...], kaldifst.TextNormalizer]:
    """Of each language, by its phones."""
    rules = {}
    for words in (CHARACTERS, PIECES, UNSPACED, KOREAN):
        lang, path = lang_of(words), tmp_path_factory.mktemp("rule") / "text.fst"
        write_rule(path, spelling_of(lang, tied_tree(lang.phones, 0), spaces=words is not UNSPACED))
        rules[lang.phones] = kaldifst.TextNormalizer(str(path))
    return rules


@pytest.mark.parametrize(("words", "space"), [(CHARACTERS, " "), (PIECES, " "), (UNSPACED, ""), (KOREAN, " ")])
@given(data=st.data(), seed=st.integers(0, 100))
def test_a_sentence_is_what_its_columns_are_called(rules, words, space, data, seed):
    lang = lang_of(words)
    tree = tied_tree(lang.phones, seed)
    spelling = spelling_of(lang, tree, spaces=space == " ")
    sentence = data.draw(st.lists(st.sampled_from(sorted(words)), min_size=1, max_size=5))
    pauses = data.draw(st.lists(st.booleans(), min_size=len(sentence) + 1, max_size=len(sentence) + 1))
    columns = columns_of(spelling, sentence, pauses)
    assert text_of(spelling, columns, rules[lang.phones]) == space.join(sentence)
    # and their scores are those of the model's senones
    plain = Spelling(lang, tree, np.arange(tree.num_senones), (), "")
    assert [spelling.senones[column] for column in columns] == columns_of(plain, sentence, pauses)
    assert spelling.lang.phones == spelling.tree.phones and spelling.tree.num_senones == len(spelling.names)
    assert spelling.has_own_graph == (words in (CHARACTERS, KOREAN))


def test_silence_is_nothing(rules):
    for phones, rule in rules.items():
        sign = "^" if "~" in phones else "~"
        assert rule(3 * sign) == rule("") == ""


def test_more_units_than_a_tree_can_have_are_refused():
    units = tuple(map(chr, range(0x4E00, 0x4E00 + 250)))
    words = {first + second: [(first, second)] for first, second in itertools.pairwise(units)}
    lang = make_lang(words, words, units)
    small = Tree((SILENCE, *units), monophone_tree((SILENCE,)).tables, np.ones(3, np.int64))
    assert spelling_of(lang, small, spaces=True) is None
