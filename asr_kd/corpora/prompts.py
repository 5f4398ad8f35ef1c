"""The Asterisk core prompts: 25 minutes of telephone prompts by one professional speaker, 8 kHz.

The folder is what local/download_prompts.sh leaves: sounds/<name>.wav and core-sounds-en.txt ("name: text" lines).
The folder of the config has corrections.txt (what recordings really say) and split.tsv (the part of each prompt).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from asr_kd.corpora.audio import Audio
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance, read_table
from asr_kd.corpora.settings import PromptsConfig
from asr_kd.errors import UserError
from asr_kd.lang.normalise import Normaliser
from asr_kd.lang.numbers import NumberError

SPEAKER = "allison"
CORRECTIONS = "corrections.txt"
SPLIT = "split.tsv"
WITHOUT_AUDIO = frozenset({"pls-try-call-later"})  # release 1.6.1 has its text but not its recording
PARTS = ("train", "dev", "test")  # of the split
_FETCH = "fetch the prompts with local/download_prompts.sh"
_BESIDE = "put it beside the config file"


def read(request: ReadRequest[PromptsConfig]) -> CorpusManifest:
    """Lists the prompts, in the order of their ids; an id is the prompt's name with '-' for '/'.

    Raises:
      UserError: transcripts, corrections or split are missing or malformed, or the split puts a text in two sets.
    """
    transcripts, split_file = request.root / "core-sounds-en.txt", request.conf_dir / SPLIT
    written = parse_transcripts(transcripts)
    corrections = read_corrections(request.conf_dir / CORRECTIONS)
    texts, silent = spoken_texts(written, corrections, request.normalise)
    split = read_split(split_file)
    sounds = request.root / "sounds"
    if not sounds.is_dir():
        raise UserError(f"{sounds}: there is no such folder; {_FETCH}.")
    audio = {path.relative_to(sounds).with_suffix("").as_posix() for path in sounds.rglob("*.wav")}
    listing = CorpusManifest([], [transcripts, request.conf_dir / CORRECTIONS, split_file])
    for name in sorted({*texts, *silent, *audio, *split}):
        utterance, file = name.replace("/", "-"), sounds / f"{name}.wav"
        which = request.set_of.get(split.get(name, "train"))
        reason = ""
        if which is None:
            continue
        if name not in audio and name not in written:
            reason = f"is in {split_file} but has no text in {transcripts}; {_FETCH}"
        elif name not in written:
            reason = f"{file} has no transcript; add one to {transcripts}"
        elif name not in audio and name in WITHOUT_AUDIO:
            listing.known_missing.append(utterance)
        elif name not in audio:
            reason = f"{file} is missing, but {transcripts.name} has its text; {_FETCH}"
        elif not written[name]:
            reason = f"its transcript in {transcripts} is empty; write its words, or [no speech]"
        elif name in silent:
            listing.not_speech.append(utterance)
        elif name not in split:
            reason = f"is in no set; add a line to {split_file}"
        else:
            text = corrections.get(name, written[name])
            listing.utterances.append(Utterance(utterance, Audio(file), text, SPEAKER, which))
        if reason:
            listing.refuse(utterance, which, reason)
    listing.utterances.sort(key=lambda utterance: utterance.id)
    _check(listing.utterances, request.normalise, split_file)
    return listing


def spoken_texts(
    written: Mapping[str, str], corrections: Mapping[str, str], normalise: Normaliser
) -> tuple[dict[str, str], list[str]]:
    """name -> the words of that prompt, normalised; and the names of those without speech."""
    texts = {name: _words(corrections.get(name, text), normalise) for name, text in written.items()}
    return {name: text for name, text in texts.items() if text}, [name for name, text in texts.items() if not text]


def _words(text: str, normalise: Normaliser) -> str:
    """The words of a text, or the text where it has a number without words: then prepare refuses it."""
    try:
        return normalise(text)
    except NumberError:
        return text


def parse_transcripts(path: Path) -> dict[str, str]:
    """Reads "name: text" lines; ';' begins a comment line. A text may be empty.

    Raises:
      UserError: the file is missing, or a line has no colon, or a name that was there before.
    """
    return read_table(
        path, _FETCH, "'name: text'", lambda name, text: text if len(name.split()) == 1 else None,
        separator=":", comment=";",
    )  # fmt: skip


def read_corrections(path: Path) -> dict[str, str]:
    """Reads "name<TAB>words" lines; '#' begins a comment line."""
    return read_table(
        path, _BESIDE, "a name, a tab and the words", lambda name, text: text or None,
        separator="\t", comment="#",
    )  # fmt: skip


def read_split(path: Path) -> dict[str, str]:
    """Reads "name<TAB>set" lines; '#' begins a comment line."""
    expected = f"a name, a tab and one of {', '.join(PARTS)}"
    return read_table(
        path, _BESIDE, expected, lambda name, which: which if which in PARTS else None, separator="\t", comment="#"
    )


def _check(utterances: list[Utterance], normalise: Normaliser, split: Path) -> None:
    """No two have the same id, nor those of two sets the same text."""
    ids: dict[str, Utterance] = {}
    texts: dict[str, Utterance] = {}
    for utterance in utterances:
        other = ids.setdefault(utterance.id, utterance)
        if other is not utterance:
            raise UserError(f"{utterance.audio}: its id {utterance.id} is that of {other.audio} too; rename one.")
        other = texts.setdefault(_words(utterance.text, normalise), utterance)
        if other.set != utterance.set:
            raise UserError(
                f"{split}: {other.id} ({other.set}) and {utterance.id} ({utterance.set}) have the same text; "
                "put them in one set."
            )
