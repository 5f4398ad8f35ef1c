"""What estimating a pruned n-gram model takes: seconds and memory, against the size of the text.

    python benchmarks/bench_ngrams.py [--words 1,10,100] [--text FILE] [--vocabulary 200000] [--prune 1e-7] [--folder .]

Sizes in millions of words. Without --text the words are drawn: of 400 thousand, by Zipf's law, each after the two
before it, with a few more different n-grams than books have: of a million words 7, 48 and 80 % are different 1-, 2- and
3-grams (of the million in the transcripts of LibriSpeech's train-clean-100: 3, 38 and 78 %). Each size is measured in a
process of its own, from reading the text to the model in memory. GB own: the most memory that the process had for
itself; files of --folder, which the system holds in memory as long as others need none, are not in it.

Measured on one core, with the tests on the other:

   M words      n-grams      pruned  seconds  GB own
         1    1,356,910     724,797        4    0.25
        10    9,512,113   1,806,743       33    0.66
       100   60,821,946   2,596,548      302    2.86

In dictionaries, as it was before, the 990 thousand words of LibriSpeech's transcripts (20 thousand different ones,
pruned by 3e-7) took 18 s and 0.62 GB with everything that was loaded; they take 2.9 s and 0.26 GB, and the ARPA file is
the same to the last byte.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_kd.lang.settings import LangConfig
from asr_kd.stages.language import LanguageFiles, language_model

VOCABULARY = 400_000
SENTENCE = 20  # words
AT_ONCE = 50_000  # sentences
ORDERS = (0.05, 0.15)  # shares of words that follow nothing, and one word; the others follow two
CHOICES = 0.4  # exponent of how many words follow a history: the smaller, the more


def _hash(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64 (Steele, Lea and Flood 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def drawn_text(words: int, seed: int = 0) -> Iterator[str]:
    """Lines of text, `words` words in all."""
    rng = np.random.default_rng(seed)
    names = np.array(
        [f"{k:x}".translate(str.maketrans("0123456789abcdef", "ABCDEFGHIJKLMNOP")) for k in range(VOCABULARY)]
    )
    frequency = np.cumsum((np.arange(VOCABULARY) + 10.0) ** -1.25)
    frequency /= frequency[-1]
    for _ in range(0, words, SENTENCE * AT_ONCE):
        before, last = (np.zeros(AT_ONCE, np.uint64) for _ in range(2))
        sentences = np.empty((AT_ONCE, SENTENCE), np.int64)
        for place in range(SENTENCE):
            order = np.digitize(rng.random(AT_ONCE), np.cumsum(ORDERS))
            history = np.where(order > 0, last + np.uint64(1), np.uint64(0))
            history = np.where(order > 1, history * np.uint64(VOCABULARY + 1) + before, history)
            choice = np.minimum(rng.pareto(CHOICES, AT_ONCE), 1e15).astype(np.uint64)
            number = _hash(_hash(history) ^ choice)
            number = np.where(order > 0, number, rng.integers(0, 2**63, AT_ONCE, np.uint64) * np.uint64(2))
            word = np.searchsorted(frequency, number / 2.0**64)
            before, last = last, np.minimum(word, VOCABULARY - 1).astype(np.uint64)
            sentences[:, place] = last
        for sentence in names[sentences]:
            yield " ".join(sentence)


def _own_memory() -> int:
    """Bytes of this process that are no file's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024


def measure(text: Path, settings: LangConfig, folder: Path) -> str:
    """One line of the table."""
    most, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.05):
            most = max(most, _own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        files = LanguageFiles(text, None, text, optional_lexicon=True)
        _, sizes = language_model(settings, files, [], [], Path(scratch))
    seconds = time.perf_counter() - started
    ended.set()
    watcher.join()
    before, after = sizes["ngrams_before_pruning"], sizes["ngrams"]
    return f"{before:12,} {after:11,} {seconds:8.0f} {most / 1e9:7.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", default="1,10,100", help="millions of words, separated by commas")
    parser.add_argument("--text", type=Path, help="take its first words")
    parser.add_argument("--vocabulary", type=int, default=200_000)
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--prune", type=float, default=1e-7)
    parser.add_argument("--folder", type=Path, default=Path())
    arguments = parser.parse_args()
    settings = LangConfig(vocabulary=arguments.vocabulary, ngram_order=arguments.order, prune=arguments.prune)
    print("   M words      n-grams      pruned  seconds  GB own", flush=True)
    for millions in arguments.words.split(","):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            text, left = Path(name) / "text.txt", int(float(millions) * 1e6)
            lines = arguments.text.open(encoding="utf-8") if arguments.text else drawn_text(left)
            with text.open("w", encoding="utf-8") as file:
                for line in lines:
                    file.write(line.rstrip("\n") + "\n")
                    left -= len(line.split())
                    if left <= 0:
                        break
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                print(f"{millions:>10} {pool.submit(measure, text, settings, arguments.folder).result()}", flush=True)


if __name__ == "__main__":
    main()
