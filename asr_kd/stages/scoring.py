"""What a recipe's errors are counted in: its words; or, where phones are recognised, the phones that are scored."""

from __future__ import annotations

from asr_kd.corpora.settings import TimitConfig
from asr_kd.corpora.timit_times import scored_phones
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import WORDS, Scoring
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace


def scoring_of(config: Config, work: Workspace) -> Scoring:
    """How a recipe is scored.

    Raises:
      UserError: the table of phones is missing or malformed, or more phones are to be scored than are trained.
    """
    corpus = config.corpus
    if not isinstance(corpus, TimitConfig) or corpus.transcripts != "phones":
        return WORDS
    if corpus.scored_phones > corpus.phone_set:
        raise UserError(
            f"{work.config_path}: corpus.scored_phones is {corpus.scored_phones}, but corpus.phone_set only "
            f"{corpus.phone_set}; phones that training does not distinguish cannot be scored apart."
        )
    return Scoring(scored_phones(work.config_path.parent, corpus.scored_phones))
