"""Prints the sentences of training: python recipes/prompts/local/write_text.py LANGUAGE CORPUS_DIR CONF_DIR.

Text for the language model. A config may hide the transcripts of recordings from the nets (untranscribed:); what such
prompts say is known nevertheless.
"""

from __future__ import annotations

import sys
from pathlib import Path

from asr_kd.corpora.prompts import SPLIT, read_split, read_texts
from asr_kd.errors import UserError


def training_sentences(language: str, corpus: Path, conf: Path) -> list[str]:
    """In the order of the prompts' names; raises UserError where transcripts or split are missing or malformed."""
    texts = read_texts(corpus / f"core-sounds-{language}.txt", conf / language)
    split = read_split(conf / language / SPLIT)
    return [" ".join(text.split()) for name, text in sorted(texts.items()) if text and split.get(name) == "train"]


if __name__ == "__main__":
    try:
        if len(sys.argv) != 4:
            raise UserError("give LANGUAGE CORPUS_DIR CONF_DIR.")
        print("\n".join(training_sentences(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
    except UserError as error:
        print(f"write_text.py: {error}", file=sys.stderr)
        sys.exit(2)
