"""Settings of the lexicon and the language model."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from asr_kd.settings import STRICT, Count, Natural, NotNegative


@dataclass(frozen=True, config=STRICT)
class LangConfig:
    """Lexicon and language model. Names of files are relative to the config file."""

    # what words are made of; phones need a lexicon; words: nothing smaller, for transcripts whose words are phones
    units: Literal["phones", "characters", "bpe", "words"] = "phones"
    bpe_size: Count = 100  # bpe: how many pieces
    lexicon: str = "lexicon.txt"  # words that cmudict lacks, or that are pronounced otherwise
    guess_pronunciations: bool = False  # of words that neither has, by letter-to-sound rules learnt from both
    # stops as closure and release, glottal stops before vowels (needs units: phones), for more exact word times; the
    # decoding graph gets all variants but not which of them begin after a pause: not measured for recognising words
    closures: bool = False
    lm: str = ""  # an ARPA file (.gz or not) to decode with; "": one is estimated
    lm_text: str = ""  # a sentence a line (.gz or not) to estimate from; "": the training transcripts
    vocabulary: Natural = 0  # the most frequent words of that text that can be recognised; 0: all
    ngram_order: Count = 3
    prune: NotNegative = 0.0  # drop n-grams whose loss raises the model's perplexity by less than this fraction
