"""What errors are counted in: words, or phones mapped to a smaller set.

TIMIT's phones are trained as 61 or 48 and scored as 39 (Lee and Hon 1989): confusions within a class, such as [ix] for
[ih], are no errors. Scales are chosen, and results counted, on the mapped phones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from asr_kd.io.files import digest_of
from asr_kd.lang.lexicon import SILENCE


@dataclass(frozen=True)
class Scoring:
    """How hypotheses are compared with references.

    Attributes:
      phones: phone -> the scored one, None where it is left out; empty: words are scored.
    """

    phones: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What is counted: "word" or "phone"."""
        return "phone" if self.phones else "word"

    @property
    def inputs(self) -> dict[str, str]:
        """For the stamp of a result: the table of phones by its digest."""
        return {"scored phones": digest_of(sorted(self.phones.items()))[:16]} if self.phones else {}

    def scored(self, words: Sequence[str], *, silence: bool = False) -> list[str]:
        """Words as they are; phones mapped to the scored ones.

        Args:
          silence: whether it counts as a phone; adjacent silences count once.

        >>> table = {"SIL": "SIL", "VCL": "SIL", "B": "B", "IX": "IH", "Q": None}
        >>> Scoring(table).scored("SIL VCL B Q IX SIL".split())
        ['B', 'IH']
        >>> Scoring(table).scored("SIL VCL B Q IX SIL".split(), silence=True)
        ['SIL', 'B', 'IH', 'SIL']
        """
        if not self.phones:
            return list(words)
        scored: list[str] = []
        for word in words:
            phone = self.phones[word.upper()]
            if phone is None or (phone == SILENCE and (not silence or scored[-1:] == [SILENCE])):
                continue
            scored.append(phone)
        return scored


WORDS = Scoring()


def rate_name(unit: str) -> str:
    """What an error rate is called: "WER" of words, "PER" of phones."""
    return "PER" if unit == "phone" else "WER"
