"""The Asterisk core prompts: half an hour of telephone prompts by one professional speaker of each language, 8 kHz.

The folder is what local/download_prompts.sh leaves: sounds/<name>.wav and core-sounds-<language>.txt ("name: text"
lines). The folder of the config has, for each language, a folder with split.tsv (the part of each prompt),
corrections.txt (what recordings really say) and perhaps spelling.txt (words that the transcripts misspell).
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import regex

from asr_kd.corpora.audio import Audio
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance, read_table
from asr_kd.corpora.settings import PromptsConfig
from asr_kd.errors import UserError
from asr_kd.lang.normalise import Normaliser
from asr_kd.lang.numbers import NumberError

SPEAKERS = {"en": "allison", "fr": "june", "es": "allison"}
CORRECTIONS, SPLIT, SPELLING = "corrections.txt", "split.tsv", "spelling.txt"
PARTS = ("train", "dev", "test")  # of the split
INCOMPLETE = "-"  # in the split: the release has the recording or the transcript alone
_FETCH = "fetch the prompts with local/download_prompts.sh"
_BESIDE = "put it beside the config file"


def read(request: ReadRequest[PromptsConfig]) -> CorpusManifest:
    """Lists the prompts, in the order of their ids; an id is the prompt's name with '-' for '/'.

    Raises:
      UserError: transcripts, corrections or split are missing or malformed, or the split puts a text in two sets.
    """
    language = request.normalise.language
    transcripts, conf = request.root / f"core-sounds-{language}.txt", request.conf_dir / language
    split_file = conf / SPLIT
    written = read_texts(transcripts, conf)
    split = read_split(split_file)
    sounds = request.root / "sounds"
    if not sounds.is_dir():
        raise UserError(f"{sounds}: there is no such folder; {_FETCH}.")
    audio = {path.relative_to(sounds).with_suffix("").as_posix() for path in sounds.rglob("*.wav")}
    listing = CorpusManifest([], [transcripts, conf / CORRECTIONS, split_file])
    for name in sorted({*written, *audio, *split}):
        utterance, file = name.replace("/", "-"), sounds / f"{name}.wav"
        text = written.get(name, "")
        if split.get(name) == INCOMPLETE:
            listing.known_missing.append(utterance)
            continue
        which = request.set_of.get(split.get(name, "train"))
        reason = ""
        if which is None:
            continue
        if name not in audio and name not in written:
            reason = f"is in {split_file} but has no text in {transcripts}; {_FETCH}"
        elif name not in written:
            reason = f"{file} has no transcript; add one to {transcripts}"
        elif name not in audio:
            reason = f"{file} is missing, but {transcripts.name} has its text; {_FETCH}"
        elif not text:
            reason = f"its transcript in {transcripts} is empty; write its words, or [no speech]"
        elif not words_or_text(text, request.normalise):
            listing.not_speech.append(utterance)
        elif name not in split:
            reason = f"is in no set; add a line to {split_file}"
        else:
            listing.utterances.append(Utterance(utterance, Audio(file), text, SPEAKERS.get(language, "speaker"), which))
        if reason:
            listing.refuse(utterance, which, reason)
    listing.utterances.sort(key=lambda utterance: utterance.id)
    _check(listing.utterances, request.normalise, split_file)
    return listing


def read_texts(transcripts: Path, conf: Path) -> dict[str, str]:
    """name -> what is said in that prompt, by its correction where there is one, else by the transcripts.

    Raises:
      UserError: a file is missing or malformed.
    """
    corrections = read_corrections(conf / CORRECTIONS)
    written = {**parse_transcripts(transcripts, corrections), **corrections}
    if not (conf / SPELLING).exists():
        return written
    spelling = read_table(
        conf / SPELLING,
        _BESIDE,
        "a word, a tab and its spelling",
        lambda _, word: word or None,
        separator="\t",
        comment="#",
    )
    return {
        name: regex.sub(r"[\p{L}\p{M}']+", lambda word: spelling.get(word.group().lower(), word.group()), text)
        for name, text in written.items()
    }


def words_or_text(text: str, normalise: Normaliser) -> str:
    """The words of a text, or the text where it has a number without words: then prepare refuses it."""
    try:
        return normalise(text)
    except NumberError:
        return text


def parse_transcripts(path: Path, corrected: Container[str] = ()) -> dict[str, str]:
    """Reads "name: text" lines; ';' begins a comment line. A text may be empty.

    Args:
      corrected: names whose lines do not count.

    Raises:
      UserError: the file is missing, or a line has no colon, or a name that was there before.
    """
    return read_table(
        path, _FETCH, "'name: text'", lambda name, text: text if len(name.split()) == 1 else None,
        separator=":", comment=";", skip=corrected,
    )  # fmt: skip


def read_corrections(path: Path) -> dict[str, str]:
    """Reads "name<TAB>words" lines; '#' begins a comment line."""
    return read_table(
        path, _BESIDE, "a name, a tab and the words", lambda name, text: text or None,
        separator="\t", comment="#",
    )  # fmt: skip


def read_split(path: Path) -> dict[str, str]:
    """Reads "name<TAB>set" lines; '#' begins a comment line, and "-" is the set of prompts that are not complete."""
    sets = (*PARTS, INCOMPLETE)
    expected = f"a name, a tab and one of {', '.join(sets)}"
    return read_table(
        path, _BESIDE, expected, lambda name, which: which if which in sets else None, separator="\t", comment="#"
    )


def _check(utterances: list[Utterance], normalise: Normaliser, split: Path) -> None:
    """No two have the same id, nor those of two sets the same text."""
    ids: dict[str, Utterance] = {}
    texts: dict[str, Utterance] = {}
    for utterance in utterances:
        other = ids.setdefault(utterance.id, utterance)
        if other is not utterance:
            raise UserError(f"{utterance.audio}: its id {utterance.id} is that of {other.audio} too; rename one.")
        other = texts.setdefault(words_or_text(utterance.text, normalise), utterance)
        if other.set != utterance.set:
            raise UserError(
                f"{split}: {other.id} ({other.set}) and {utterance.id} ({utterance.set}) have the same text; "
                "put them in one set."
            )
