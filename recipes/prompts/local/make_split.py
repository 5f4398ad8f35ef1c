"""Made conf/*/split.tsv, once: python recipes/prompts/local/make_split.py LANGUAGE CORPUS_DIR CONF_DIR.

The vocabulary is closed: a prompt may be held out only if the prompts left for training have all of its words. Prompts
with the same or nearly the same text stay together. Of many random orders of holding out, the one is used whose sets
come nearest to their shares of words in every class of prompt length.
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from kaldialign import edit_distance

from asr_kd.corpora.prompts import INCOMPLETE, SPLIT, read_texts, words_or_text
from asr_kd.io.files import replacing_file
from asr_kd.lang.normalise import Normaliser

SHARES = {"dev": 0.115, "test": 0.25}  # of all words
LENGTHS = (2, 5, 10, 20)  # words; the classes of prompts are 1, 2-4, 5-9, 10-19, 20 and more
NEAR = 0.15  # texts that differ in at most this share of the longer one's words are nearly the same
TRIALS = 2000


def group_texts(texts: Mapping[str, str], near: float = NEAR) -> list[list[str]]:
    """Names whose texts are the same or nearly so, directly or through others; groups and members sorted."""
    by_text = defaultdict(list)
    for name in sorted(texts):
        by_text[texts[name]].append(name)
    different = sorted(by_text)
    leader = {text: text for text in different}

    def find(text: str) -> str:
        while leader[text] != text:
            text = leader[text]
        return text

    for i, text in enumerate(different):
        for other in different[:i]:
            a, b = text.split(), other.split()
            if edit_distance(a, b)["total"] <= near * max(len(a), len(b)):
                leader[find(text)] = find(other)
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for text in different:
        groups[find(text)] += by_text[text]
    return sorted(sorted(names) for names in groups.values())


def split(texts: Mapping[str, str], *, trials: int = TRIALS) -> dict[str, str]:
    """name -> train, dev or test; a function of its arguments alone."""
    groups = group_texts(texts)
    words = [frozenset(word for name in names for word in texts[name].split()) for names in groups]
    sizes = [Counter({_length_class(texts[name]): 0 for name in names}) for names in groups]
    for size, names in zip(sizes, groups, strict=True):
        for name in names:
            size[_length_class(texts[name])] += len(texts[name].split())
    totals: Counter[int] = sum(sizes, Counter())
    targets = {which: {c: share * totals[c] for c in totals} for which, share in SHARES.items()}

    best, best_cost = dict[int, str](), float("inf")
    for trial in range(trials):
        held_out = _hold_out(words, sizes, targets, random.Random(trial))
        cost = _cost(held_out, sizes, targets)
        if cost < best_cost:
            best, best_cost = held_out, cost
    return {name: best.get(i, "train") for i, names in enumerate(groups) for name in names}


def _length_class(text: str) -> int:
    return sum(len(text.split()) >= bound for bound in LENGTHS)


Targets = Mapping[str, Mapping[int, float]]  # set -> class of length -> words


def _hold_out(
    words: list[frozenset[str]], sizes: list[Counter[int]], targets: Targets, rng: random.Random
) -> dict[int, str]:
    in_training = Counter(word for group in words for word in group)  # groups left for training that have the word
    sizes_so_far = {which: Counter[int]() for which in targets}
    total = {which: math.fsum(targets[which].values()) for which in targets}
    held_out: dict[int, str] = {}
    strict = rng.random()  # how seldom a class may have more than its share, for those that cannot be filled
    order = list(range(len(words)))
    rng.shuffle(order)
    order.sort(key=lambda i: -max(sizes[i]))  # few long prompts may be held out: they have the first choice
    for i in order:
        if any(in_training[word] < 2 for word in words[i]):
            continue
        # to the set that most lacks prompts of this length, or to none that would grow too large
        size = sum(sizes[i].values())
        fits = [w for w in targets if sum(sizes_so_far[w].values()) + size <= 1.01 * total[w]]
        lack = {
            w: math.fsum(n * (1 - sizes_so_far[w][c] / targets[w][c]) for c, n in sizes[i].items()) / size for w in fits
        }
        if not lack:
            continue
        which = max(lack, key=lambda w: (lack[w] + rng.uniform(0, 0.3), w))
        if lack[which] <= 0 and rng.random() < strict:
            continue
        held_out[i] = which
        sizes_so_far[which] += sizes[i]
        in_training.subtract(words[i])
    return held_out


def _cost(held_out: Mapping[int, str], sizes: list[Counter[int]], targets: Targets) -> float:
    sizes_so_far = {which: Counter[int]() for which in targets}
    for i, which in held_out.items():
        sizes_so_far[which] += sizes[i]
    cost = 0.0  # fsum: Pythons differ in how they round sum()
    for which, classes in targets.items():
        total = math.fsum(classes.values())
        cost += 8 * abs(sum(sizes_so_far[which].values()) - total) / total
        cost += math.fsum(abs(sizes_so_far[which][c] - n) for c, n in classes.items()) / total
    return cost


def main(language: str, corpus_dir: Path, conf_dir: Path) -> None:
    """Writes conf_dir/LANGUAGE/split.tsv."""
    written = read_texts(corpus_dir / f"core-sounds-{language}.txt", conf_dir / language)
    sounds = corpus_dir / "sounds"
    audio = {path.relative_to(sounds).with_suffix("").as_posix() for path in sounds.rglob("*.wav")}
    texts = {name: words_or_text(text, Normaliser(language)) for name, text in written.items()}
    sets = split({name: text for name, text in texts.items() if text and name in audio})
    sets |= dict.fromkeys(written.keys() - audio, INCOMPLETE)
    sets |= dict.fromkeys([name for name in audio if written.get(name, "") in ("", INCOMPLETE)], INCOMPLETE)
    with replacing_file(conf_dir / language / SPLIT) as path, path.open("w", encoding="utf-8") as file:
        file.write("# The set of each prompt; made by recipes/prompts/local/make_split.py, then never changed.\n")
        for name, which in sorted(sets.items()):
            file.write(f"{name}\t{which}\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: make_split.py LANGUAGE CORPUS_DIR CONF_DIR")
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
