"""The text files for decoders elsewhere hold all that the tree holds, and Kaldi's readers read them."""

from __future__ import annotations

from pathlib import Path

import kaldi_native_io
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.alignment.tree import Tree, monophone_tree
from asr_kd.export.kaldi import write_log_priors, write_phones, write_tree


def read_tables(folder: Path) -> np.ndarray:
    """tree.txt and phones.txt -> (P, 3, P, P) senones, -1 where no line has the context."""
    lines = [line.split() for line in (folder / "phones.txt").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == ["<eps>", "0"]
    numbers = {name: int(number) - 1 for name, number in lines[1:]}
    head, *rows = (folder / "tree.txt").read_text(encoding="utf-8").splitlines()
    any_phone = head.split("; ")[1].split()[0]
    numbers_of = {any_phone: list(numbers.values())}
    tables = np.full((len(numbers), 3, len(numbers), len(numbers)), -1)
    for row in rows:
        senone, phone, hmm_state, *sides = row.split("\t")
        left, right = (numbers_of.get(side) or [numbers[name] for name in side.split(" ")] for side in sides)
        cell = tables[numbers[phone], int(hmm_state) - 1]
        assert (cell[np.ix_(left, right)] == -1).all()  # each context is in one line
        cell[np.ix_(left, right)] = int(senone)
    return tables


def random_tree(seed: int, phones: tuple[str, ...]) -> Tree:
    """Two or three senones a state, some of contexts that are no product of left and right."""
    rng, size = np.random.default_rng(seed), len(phones)
    number = rng.integers(0, 3, (size, 3, size, size)) if seed % 2 else rng.integers(0, 3, (size, 3, 1, size))
    tables = 3 * np.arange(3 * size).reshape(size, 3, 1, 1) + number
    tables = np.broadcast_to(tables, (size, 3, size, size)).astype(np.int32)
    return Tree(phones, tables, np.ones(9 * size, np.int64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kaldi")


@given(seed=st.integers(0, 1000), phones=st.sampled_from([("SIL",), ("SIL", "*", "é"), ("SIL", "A", "B", "**", "C")]))
def test_the_tree_can_be_rebuilt_from_its_text(folder, seed, phones):
    tree = random_tree(seed, phones)
    write_phones(folder / "phones.txt", phones)
    write_tree(folder / "tree.txt", tree)
    assert (read_tables(folder) == tree.tables).all()


def test_contexts_that_do_not_matter_are_one_sign(tmp_path):
    write_tree(tmp_path / "tree.txt", monophone_tree(("SIL", "A")))
    assert (tmp_path / "tree.txt").read_text().splitlines()[4:] == [
        "3\tA\t1\t*\t*", "4\tA\t2\t*\t*", "5\tA\t3\t*\t*",
    ]  # fmt: skip


def test_kaldi_reads_the_priors_to_the_last_bit(tmp_path):
    log_priors = np.log(np.random.default_rng(1).dirichlet(np.ones(50))).astype(np.float32)
    write_log_priors(tmp_path / "log_priors.txt", log_priors)
    read = kaldi_native_io.FloatVector.read(str(tmp_path / "log_priors.txt")).numpy()
    assert read.dtype == np.float32 and (read == log_priors).all()
