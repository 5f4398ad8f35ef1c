"""A graph that will not fit says so before it is begun."""

from pathlib import Path

import pytest

from asr_kd.errors import UserError
from asr_kd.lang.kneser_ney import estimate
from asr_kd.lang.ngram import write_arpa
from asr_kd.lang.settings import LangConfig
from asr_kd.stages import language

MODEL = Path("G.arpa")


def test_what_fits_passes(monkeypatch):
    monkeypatch.setattr(language, "available_memory", lambda: 1e9)
    language.check_memory(100, MODEL, given=False)
    monkeypatch.setattr(language, "available_memory", lambda: None)  # a system that does not say
    language.check_memory(10**9, MODEL, given=False)


@pytest.mark.parametrize(
    ("free", "given", "says"),
    [
        (0.300011e9, False, r"the graph of about 2 n-grams fits: raise lang\.prune"),
        (0.2e9, False, r"no graph fits: raise lang\.prune"),
        (0.300011e9, True, "the graph of about 2 n-grams fits: name a smaller --lm"),
    ],
)
def test_what_does_not_fit_is_one_sentence_with_a_smaller_choice(monkeypatch, free, given, says):
    monkeypatch.setattr(language, "available_memory", lambda: free)
    with pytest.raises(UserError, match=rf"G.arpa: the graph of its 9 n-grams takes about 300.0 MB .* {says}"):
        language.check_memory(9, MODEL, given=given)


def test_a_model_too_large_to_read_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(language, "available_memory", lambda: 8e9)
    language.check_memory(10**6, MODEL, given=True, reading=True)
    with pytest.raises(UserError, match=r"G.arpa: reading its 79,000,000 n-grams takes about 35\.\d GB .* --lm"):
        language.check_memory(79_000_000, MODEL, given=True, reading=True)


@pytest.mark.parametrize("words", [[["<b>"]], [["?"]]], ids=["marks alone", "no letters"])
def test_a_model_without_a_word_is_named(tmp_path: Path, words: list[list[str]]) -> None:
    file = tmp_path / "other.arpa"
    write_arpa(file, estimate(words, 2))
    files = language.LanguageFiles(tmp_path / "lexicon.txt", file, None, optional_lexicon=True)
    with pytest.raises(UserError, match=r"other\.arpa: no transcript can have a word of this language model"):
        language.language_model(LangConfig(), files, [], [])


def test_pruning_gives_nothing_of_the_mass_of_words_outside_a_limited_vocabulary_to_others(tmp_path: Path) -> None:
    """A threshold that drops no n-gram changes nothing."""
    names = [f"NAME{chr(65 + k)}" for k in range(20)]
    texts = [f"SEE MISTER {name} NOW" for name in names] + ["SEE MISTER NOW", "NOW SEE"] * 3
    files = language.LanguageFiles(tmp_path / "lexicon.txt", None, None, optional_lexicon=True)
    whole, pruned = (
        language.language_model(LangConfig(vocabulary=3, prune=threshold), files, texts, [])[0]
        for threshold in (0.0, 1e-300)
    )
    assert whole.spoken_words == pruned.spoken_words == {"SEE", "MISTER", "NOW"}
    assert pruned.log_probability(("MISTER",), "SEE") == pytest.approx(whole.log_probability(("MISTER",), "SEE"))
    assert pruned.probabilities == whole.probabilities
