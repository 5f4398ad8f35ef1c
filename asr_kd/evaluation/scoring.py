"""What recognised words count as: themselves; or, where they are phones, those of the smaller set that is scored.

Phones are trained as 61 or 48 and scored as 39 (Lee and Hon 1989): confusions within a class, [ix] for [ih] say, are no
errors. Scales are chosen, and results counted, on what is scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from asr_kd.corpora.timit_times import scored_phones
from asr_kd.errors import UserError
from asr_kd.io.files import digest_of
from asr_kd.lang.lexicon import SILENCE
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace


@dataclass(frozen=True)
class Scoring:
    """How hypotheses are held against references."""

    phones: Mapping[str, str | None] = field(
        default_factory=dict
    )  # phone -> the one that counts; none: these are words

    @property
    def unit(self) -> str:
        """What is counted: "word" or "phone"."""
        return "phone" if self.phones else "word"

    @property
    def inputs(self) -> dict[str, str]:
        """For the stamp of whatever was scored so."""
        return {"scored phones": digest_of(sorted(self.phones.items()))[:16]} if self.phones else {}

    def scored(self, words: Sequence[str], *, silence: bool = False) -> list[str]:
        """Words as they are; phones as those that count, without the ones that are left out.

        Args:
          silence: whether it counts as a phone; silences that meet are then one.

        >>> table = {"SIL": "SIL", "VCL": "SIL", "B": "B", "IX": "IH", "Q": None}
        >>> Scoring(table).scored("SIL VCL B Q IX SIL".split())
        ['B', 'IH']
        >>> Scoring(table).scored("SIL VCL B Q IX SIL".split(), silence=True)
        ['SIL', 'B', 'IH', 'SIL']
        """
        if not self.phones:
            return list(words)
        found: list[str] = []
        for word in words:
            phone = self.phones[word.upper()]
            if phone is None or (phone == SILENCE and (not silence or found[-1:] == [SILENCE])):
                continue
            found.append(phone)
        return found


WORDS = Scoring()


def scoring_of(config: Config, work: Workspace) -> Scoring:
    """What a recipe is scored on.

    Raises:
      UserError: the table of phones is missing or malformed, or more phones are to be scored than are trained.
    """
    corpus = config.corpus
    if corpus.transcripts != "phones":
        return WORDS
    if corpus.scored_phones > corpus.phone_set:
        raise UserError(
            f"{work.config_path}: corpus.scored_phones is {corpus.scored_phones}, but corpus.phone_set only "
            f"{corpus.phone_set}; phones that are not told apart in training cannot be scored apart."
        )
    return Scoring(scored_phones(work.config_path.parent, corpus.scored_phones))
