"""What errors are counted in: words, characters, or phones mapped to a smaller set.

TIMIT's phones are trained as 61 or 48 and scored as 39 (Lee and Hon 1989): confusions within a class, such as [ix] for
[ih], are no errors. Scales are chosen, and results counted, on the mapped phones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from asr_kd.evaluation.wer import characters
from asr_kd.io.files import digest_of
from asr_kd.lang.lexicon import SILENCE
from asr_kd.lang.phones import GLOTTAL_STOP
from asr_kd.lang.phones import SYMBOLS as CLOSURES

Unit = Literal["word", "character", "phone"]


@dataclass(frozen=True)
class Scoring:
    """How hypotheses are compared with references.

    Attributes:
      phones: phone -> the scored one, None where it is left out; empty: words are scored.
      unspaced: the language is written without spaces: characters are scored.
      characters: errors of characters are counted beside those of words.
    """

    phones: Mapping[str, str | None] = field(default_factory=dict)
    unspaced: bool = False
    characters: bool = False

    @property
    def unit(self) -> Unit:
        """What is counted."""
        return "phone" if self.phones else "character" if self.unspaced else "word"

    @property
    def inputs(self) -> dict[str, str]:
        """The entries of a result's stamp that say how it was scored; none where words alone are scored.

        They are the digest of the table of phones, or what else differs from words alone.
        """
        if self.phones:
            return {"scored phones": digest_of(sorted(self.phones.items()))[:16]}
        return {"scored": "characters" if self.unspaced else "words and characters"} if self != WORDS else {}

    def scored(self, words: Sequence[str], *, silence: bool = False) -> list[str]:
        """Words as they are, or their characters; phones mapped to the scored ones.

        Args:
          silence: whether it counts as a phone; adjacent silences count once.

        >>> table = {"SIL": "SIL", "VCL": "SIL", "B": "B", "IX": "IH", "Q": None}
        >>> Scoring(table).scored("SIL VCL B Q IX SIL".split())
        ['B', 'IH']
        >>> Scoring(table).scored("SIL VCL B Q IX SIL".split(), silence=True)
        ['SIL', 'B', 'IH', 'SIL']
        """
        if not self.phones:
            return characters(words) if self.unspaced else list(words)
        scored: list[str] = []
        for word in words:
            # phones that are written as words are in lower case, where the table has upper case (lang.PhonesAsWords)
            phone = self.phones[word] if word in self.phones else self.phones[word.upper()]
            if phone is None or (phone == SILENCE and (not silence or scored[-1:] == [SILENCE])):
                continue
            scored.append(phone)
        return scored


WORDS = Scoring()


def scoring_of_phones(phones: Iterable[str], *, closures: bool = False) -> Scoring:
    """Every phone as itself, without silence.

    Args:
      closures: stops are written with their closures (`lang.closures`): as in Lee and Hon's 39 classes, closures are
        silence and the glottal stop is left out, so that a stop counts once, by its release.

    >>> scoring_of_phones(["SIL", "TCL", "T", "IY", "Q"], closures=True).scored("SIL Q IY TCL T SIL".split())
    ['IY', 'T']
    """
    table: dict[str, str | None] = {phone: phone for phone in (SILENCE, *phones)}
    for phone in CLOSURES if closures else ():
        table[phone] = None if phone == GLOTTAL_STOP else SILENCE
    return Scoring(table)


def rate_name(unit: str) -> str:
    """What an error rate is called: "WER", "CER" or "PER"."""
    return {"word": "WER", "character": "CER", "phone": "PER"}[unit]
