"""A graph that will not fit says so before it is begun."""

from pathlib import Path

import pytest

from asr_kd.decoding import graph_size
from asr_kd.errors import UserError
from asr_kd.lang.ngram import estimate

ARPA = estimate([["A", "B"], ["B"]], 2)


def test_what_fits_passes(monkeypatch):
    monkeypatch.setattr(graph_size, "available_bytes", lambda: 1e9)
    graph_size.check_memory(ARPA, Path("G.arpa"))
    monkeypatch.setattr(graph_size, "available_bytes", lambda: None)  # a system that does not say
    graph_size.check_memory(ARPA, Path("G.arpa"))


@pytest.mark.parametrize(("free", "says"), [(0.50001e9, "one of about 2 n-grams fits"), (0.4e9, "none fits")])
def test_what_does_not_fit_is_one_sentence_with_a_smaller_choice(monkeypatch, free, says):
    monkeypatch.setattr(graph_size, "available_bytes", lambda: free)
    with pytest.raises(UserError, match=rf"G.arpa: the graph of its \d n-grams takes about 500.0 MB .* {says}: raise"):
        graph_size.check_memory(ARPA, Path("G.arpa"))


def test_this_system_says_how_much_memory_there_is():
    free = graph_size.available_bytes()
    assert free is None or 1e6 < free < 1e15
