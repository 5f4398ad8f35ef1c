"""Kneser-Ney estimates, ARPA files, perplexity."""

import math
import pydoc_data.topics
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.errors import UserError
from asr_kd.lang.kneser_ney import estimate
from asr_kd.lang.ngram import BEGIN, END, Arpa, perplexity, read_arpa, write_arpa

SENTENCES = st.lists(st.lists(st.sampled_from("abcd"), max_size=6), min_size=1, max_size=12)


def mass(arpa: Arpa, history: tuple[str, ...]) -> float:
    return sum(math.exp(arpa.log_probability(history, word)) for word in (*arpa.words, END))


@given(SENTENCES, st.integers(1, 4), st.sets(st.sampled_from("abxy")))
def test_probabilities_sum_to_one_after_every_history(sentences, order, extra) -> None:  # type: ignore[no-untyped-def]
    arpa = estimate(sentences, order, extra)
    histories = [(), (BEGIN,), ("x",), ("a", "x"), *arpa.backoffs]
    histories += [ngram[:-1] for level in arpa.probabilities for ngram in level]
    for history in histories:
        assert mass(arpa, history) == pytest.approx(1.0, abs=1e-9)


def test_probabilities_sum_to_one_with_estimated_discounts() -> None:
    rng = random.Random(0)  # enough text for counts of counts
    sentences = [[f"w{int(rng.paretovariate(0.7)) % 200}" for _ in range(8)] for _ in range(400)]
    arpa = estimate(sentences, 3)
    for history in rng.sample(sorted(arpa.backoffs), 50):
        assert mass(arpa, history) == pytest.approx(1.0, abs=1e-9)


def test_kneser_ney_counts_by_hand() -> None:
    # "a b" twice and "b a" once; b follows <s> and a, a follows <s> and b, </s> follows a and b
    arpa = estimate([["a", "b"], ["a", "b"], ["b", "a"]], 2)
    one = 0.5 / (0.5 + 2 * 3.5)  # unigrams: no count of 1, three of 2
    unigram = (2 - one) / 6 + (3 * one / 6) / 3
    assert math.exp(arpa.log_probability((), "a")) == pytest.approx(unigram)
    two = 3.5 / (3.5 + 2 * 3.5)  # bigrams: (<s>,b), (b,a), (a,</s>) once; (<s>,a), (a,b), (b,</s>) twice
    assert math.exp(arpa.log_probability(("a",), "b")) == pytest.approx((2 - two) / 3 + 2 * two / 3 * unigram)
    assert math.exp(arpa.log_probability(("a",), "a")) == pytest.approx(2 * two / 3 * unigram)


@given(SENTENCES, st.integers(1, 3))
def test_read_gives_what_write_got(tmp_path_factory, sentences, order) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("lm") / "G.arpa"
    arpa = estimate(sentences, order)
    write_arpa(path, arpa)
    again = read_arpa(path)
    assert again.order == order and again.words == arpa.words
    for level, other in zip(arpa.probabilities, again.probabilities, strict=True):
        assert set(other) - set(level) <= {(BEGIN,)}
        for ngram, log_p in level.items():
            assert other[ngram] == pytest.approx(log_p, abs=1e-6)
    for history, weight in arpa.backoffs.items():
        assert again.backoffs[history] == pytest.approx(weight, abs=1e-6)


def test_a_known_text_is_less_perplexing_than_an_unknown_one_and_oov_words_are_left_out() -> None:
    arpa = estimate([["a", "b", "c"]] * 3 + [["c", "a"]], 3)
    known = perplexity(arpa, [["a", "b", "c"]])
    sentence = ("<s>", "a", "b", "c", "</s>")
    logs = [arpa.log_probability(sentence[:k], sentence[k]) for k in range(1, 5)]
    assert known == pytest.approx(math.exp(-sum(logs) / 4))
    assert known < perplexity(arpa, [["c", "c", "b"]])
    logs = [arpa.log_probability(*each) for each in ((("<s>",), "a"), ((), "c"), (("c",), "</s>"))]
    assert perplexity(arpa, [["a", "zzz", "c"]]) == pytest.approx(math.exp(-sum(logs) / 3))
    assert math.isnan(perplexity(arpa, []))


def test_as_good_as_kaldingram(tmp_path: Path) -> None:
    """On English prose, the manual of Python: ours interpolates with three discounts, kaldingram backs off with one."""
    train = pytest.importorskip("kaldingram.train", reason="kaldingram is not installed")
    prose = " ".join(topic for _, topic in sorted(pydoc_data.topics.topics.items()))
    sentences = [re.findall("[a-z]+", sentence.lower()) for sentence in prose.split(". ")]
    sentences = [sentence for sentence in sentences if 3 <= len(sentence) <= 20]
    text, held_out = [s for i, s in enumerate(sentences) if i % 4], sentences[::4]
    counts = train.NgramCounts(3)
    for sentence in text:
        counts.add_raw_counts_from_line(" ".join(sentence))
    counts.cal_discounting_constants()
    counts.cal_f()
    counts.cal_bow()
    path = tmp_path / "theirs.arpa"
    with path.open("w") as file:
        counts.print_as_arpa(file)
    theirs, ours = read_arpa(path), estimate(text, 3)
    known = set(ours.words)
    assert known == set(theirs.words) and sum(word in known for sentence in held_out for word in sentence) > 1000
    assert perplexity(ours, held_out) < perplexity(theirs, held_out)


@pytest.fixture
def arpa_text(tmp_path: Path) -> str:
    path = tmp_path / "good.arpa"
    write_arpa(path, estimate([["a", "b"], ["b"]], 2))
    return path.read_text()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("\\end\\", "", "cut short"),
        ("ngram 2=", "ngram 2=9", "says 9. 2-grams but the file has"),
        ("ngram 2=", "ngram 3=", "expected the number of 2-grams"),
        ("\\data\\", "", "no whole ARPA file"),
        ("\\2-grams:", "\\3-grams:", "not counted"),
        ("-99.0000000", "minus", "expected a finite log10 probability, 1 word"),
        ("-99.0000000", "-inf", "expected a finite log10 probability, 1 word"),
        ("-99.0000000", "0.0000123", "<s> has a probability above 1: its log10 is 1.23e-05"),
        ("</s>", "<end>", "the model has no </s>, so no sentence can end"),
        ("-99.0000000", "nan", "expected a finite log10 probability, 1 word"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(
    tmp_path: Path, arpa_text: str, old: str, new: str, says: str
) -> None:
    path = tmp_path / "bad.arpa"
    path.write_text(arpa_text.replace(old, new, 1))
    with pytest.raises(UserError, match=f"bad.arpa.*{says}"):
        read_arpa(path)


def test_a_zero_of_any_size_is_read_as_arpas(tmp_path: Path, arpa_text: str) -> None:
    path = tmp_path / "zero.arpa"
    path.write_text(arpa_text.replace("-99.0000000", "-9999"))
    model = read_arpa(path)
    assert model.probabilities[0][(BEGIN,)] == pytest.approx(-99 * math.log(10))
    assert math.isfinite(perplexity(model, [["a"], ["b", "a"]]))


def test_every_truncation_is_noticed(tmp_path: Path, arpa_text: str) -> None:
    path = tmp_path / "bad.arpa"
    for length in range(0, len(arpa_text.rstrip()) - 1, 7):
        path.write_text(arpa_text[:length])
        with pytest.raises(UserError):
            read_arpa(path)
