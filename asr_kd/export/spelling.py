"""Makes sherpa-onnx's `text` what was said, where words are made of characters or byte-pair units.

sherpa-onnx joins the names of the columns along the best path, one name for each run of a column; the words play no
part. So the column of a unit's first HMM state is named as the unit is written, and all others by a sign that a rule
deletes (`--rule-fsts`). A unit that begins some words and stands inside of others becomes two units, which share all
but the column of the first state: with the one, it is named with the mark that sherpa-onnx writes as a space.

Shapes:  P phones (units), C senones, W columns: the C senones, and then first states once more.
"""

from __future__ import annotations

import itertools
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import kaldifst
import numpy as np

from asr_kd.alignment.topology import SIL
from asr_kd.alignment.tree import Tree
from asr_kd.decoding.fst_io import Fst, from_kaldifst, to_kaldifst
from asr_kd.export.graph_files import write_fst
from asr_kd.lang.lexicon import Lang
from asr_kd.lang.units import LARGEST

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # as in sentencepiece's units
_SIGNS = "~^|_+\x01"  # the first that is in no unit is the name of what is not written; the last never is in one
_CONSONANTS = [chr(code) for code in range(0x1100, 0x1113)]  # the letters that Korean syllables are composed of
_VOWELS = [chr(code) for code in range(0x1161, 0x1176)]
_FINALS = [chr(code) for code in range(0x11A8, 0x11C3)]


@dataclass(frozen=True)
class Spelling:
    """Units and columns from which `text` comes.

    Attributes:
      lang, tree: of the decoding graph; columns are the senones of this tree.
      senones: (W,) the model's senone of each column.
      names: (W,) of columns.
      sign: the name that is not written.
    """

    lang: Lang
    tree: Tree
    senones: np.ndarray
    names: tuple[str, ...]
    sign: str

    @property
    def has_own_graph(self) -> bool:
        """Whether units became two, so that the graph that the system is decoded with lacks columns."""
        return len(self.senones) > self.senones.max() + 1


def spelling_of(lang: Lang, tree: Tree, *, spaces: bool) -> Spelling | None:
    """None where there are too many units for a tree of twice as many.

    Args:
      lang: its words are spelled as their units. tree: of these units.
      spaces: whether spaces stand between words.
    """
    variants = [variant for word in lang.words for variant in lang.pronunciations[word]]
    first = {variant[0] for variant in variants}
    inside = {unit for variant in variants for unit in variant[1:]}
    both = sorted((first & inside) - {SIL}) if spaces else []
    if len(lang.phones) + len(both) > LARGEST:
        return None
    unit_of = np.array([*range(len(lang.phones)), *both])
    tables = tree.tables[unit_of][:, :, unit_of][:, :, :, unit_of]
    senones = np.arange(tree.num_senones)
    for number in range(len(lang.phones), len(unit_of)):
        of_first, places = np.unique(tables[number, 0], return_inverse=True)
        tables[number, 0] = len(senones) + places.reshape(tables[number, 0].shape)
        senones = np.concatenate([senones, of_first])
    sign = next(sign for sign in _SIGNS if not any(sign in phone for phone in lang.phones))
    names = [sign] * len(senones)
    for number, unit in enumerate(unit_of):
        begins = number >= len(lang.phones) or unit not in inside
        name = (SPACE if spaces and unit in first and begins else "") + lang.phones[unit].removeprefix(SPACE)
        for senone in np.unique(tables[number, 0]) if unit != SIL else ():
            names[senone] = name or sign
    phones = (*lang.phones, *(lang.phones[unit] + sign for unit in both))
    beginning = {unit: len(lang.phones) + place for place, unit in enumerate(both)}
    pronunciations = {
        word: tuple((beginning.get(variant[0], variant[0]), *variant[1:]) for variant in lang.pronunciations[word])
        for word in lang.words
    }
    spelled = replace(lang, phones=phones, pronunciations=pronunciations)
    return Spelling(spelled, Tree(phones, tables, tree.counts[senones]), senones, tuple(names), sign)


def write_rule(path: Path, spelling: Spelling) -> None:
    """The transducer of bytes for `--rule-fsts`: it deletes the sign and leading spaces, and composes Korean syllables.

    Raises:
      OSError: the disk is full.
    """
    begin, inside = 0, 1
    byte = np.arange(1, 256)
    written = np.where(byte == ord(spelling.sign), 0, byte)
    written_first = np.where(byte == ord(" "), 0, written)
    fst = Fst(
        src=np.repeat([begin, inside], 255).astype(np.int32),
        dst=np.concatenate([np.where(written_first == 0, begin, inside), np.full(255, inside)]).astype(np.int32),
        ilabel=np.tile(byte, 2).astype(np.int32),
        olabel=np.concatenate([written_first, written]).astype(np.int32),
        cost=np.zeros(510, np.float32),
        final=np.zeros(2, np.float32),
    )
    if any(letter in name for name in spelling.names for letter in _VOWELS):
        syllables = to_kaldifst(_syllables())
        kaldifst.arcsort(syllables, "ilabel")
        both = kaldifst.compose(to_kaldifst(fst), syllables)
        kaldifst.arcsort(both, "ilabel")  # a text is composed with it
        fst = from_kaldifst(both)
    write_fst(path, fst)


def _syllables() -> Fst:
    """Bytes of Korean letters -> those of the syllables that they are; other bytes stay, at a cost.

    The cost is what makes the shortest path take a whole syllable wherever there is one.
    """
    arcs = [(0, 0, byte, byte, 1.0) for byte in range(1, 256)]
    states = 1

    def add(state: int, read: bytes, write: bytes = b"") -> int:
        """A path from `state`: to the first one where something is written, else to a new one, which is returned."""
        nonlocal states
        steps = list(itertools.zip_longest(read, write, fillvalue=0))
        for left, (label, output) in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
            target = 0 if write and not left else states
            states += target > 0
            arcs.append((state, target, label, output, 0.0))
            state = target
        return state

    for consonant in _CONSONANTS:
        after_consonant = add(0, consonant.encode())
        for vowel in _VOWELS:
            after_vowel = add(after_consonant, vowel.encode())
            for final in ["", *_FINALS]:
                syllable = unicodedata.normalize("NFC", consonant + vowel + final)
                add(after_vowel, final.encode(), syllable.encode())
    src, dst, ilabel, olabel = np.array([arc[:4] for arc in arcs], np.int32).T
    ends = np.full(states, np.inf, np.float32)
    ends[0] = 0.0
    return Fst(src, dst, ilabel, olabel, np.array([arc[4] for arc in arcs], np.float32), ends)
