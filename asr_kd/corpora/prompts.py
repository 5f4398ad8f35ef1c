"""The Asterisk core prompts: 25 minutes of telephone prompts by one professional speaker, 8 kHz.

The folder is what local/download_prompts.sh leaves: sounds/<name>.wav and core-sounds-en.txt ("name: text" lines).
The folder of the config has corrections.txt (what recordings really say) and split.tsv (the part of each prompt).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from asr_kd.corpora.listing import CorpusManifest, InvalidUtterance, ReadRequest, Utterance, read_lines
from asr_kd.corpora.settings import PromptsConfig
from asr_kd.errors import UserError
from asr_kd.lang.normalise import normalise

SPEAKER = "allison"
CORRECTIONS = "corrections.txt"
SPLIT = "split.tsv"
WITHOUT_AUDIO = frozenset({"pls-try-call-later"})  # release 1.6.1 has its text but not its recording
PARTS = ("train", "dev", "test")  # of the split
_FETCH = "fetch the prompts with local/download_prompts.sh"


def read(request: ReadRequest[PromptsConfig]) -> CorpusManifest:
    """Lists the prompts, in the order of their ids; an id is the prompt's name with '-' for '/'.

    Raises:
      UserError: transcripts, corrections or split are missing or malformed, or the split puts a text in two sets.
    """
    corpus_dir, conf_dir = request.root, request.conf_dir
    transcripts = corpus_dir / "core-sounds-en.txt"
    written = parse_transcripts(transcripts)
    texts, silent = spoken_texts(written, read_corrections(conf_dir / CORRECTIONS))
    split = read_split(conf_dir / SPLIT)
    if not (corpus_dir / "sounds").is_dir():
        raise UserError(f"{corpus_dir / 'sounds'}: there is no such folder; {_FETCH}.")
    sounds = corpus_dir / "sounds"
    audio = {path.relative_to(sounds).with_suffix("").as_posix() for path in sounds.rglob("*.wav")}
    set_of = request.set_of
    utterances, problems, not_speech, known_missing = [], [], [], []
    for name in sorted({*texts, *silent, *audio, *split}):
        file = sounds / f"{name}.wav"
        which = set_of.get(split.get(name, "train"))
        reason = ""
        if which is None:
            continue
        if name not in audio and name not in written:
            reason = f"is in {conf_dir / SPLIT} but has no text in {transcripts}; {_FETCH}"
        elif name not in written:
            reason = f"{file} has no transcript; add one to {transcripts}"
        elif name not in audio and name in WITHOUT_AUDIO:
            known_missing.append(_id(name))
        elif name not in audio:
            reason = f"{file} is missing, but {transcripts.name} has its text; {_FETCH}"
        elif not written[name]:
            reason = f"its transcript in {transcripts} is empty; write its words, or [no speech]"
        elif name in silent:
            not_speech.append(_id(name))
        elif name not in split:
            reason = f"is in no set; add a line to {conf_dir / SPLIT}"
        else:
            utterances.append(Utterance(_id(name), file, texts[name], SPEAKER, which))
        if reason:
            problems.append(InvalidUtterance(_id(name), reason, which))
    _check_ids(utterances)
    _check_texts(utterances, conf_dir / SPLIT)
    used = [transcripts, conf_dir / CORRECTIONS, conf_dir / SPLIT]
    return CorpusManifest(sorted(utterances, key=lambda u: u.id), used, problems, not_speech, known_missing)


def _id(name: str) -> str:
    return name.replace("/", "-")


def spoken_texts(written: Mapping[str, str], corrections: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """name -> the words of that prompt, normalised; and the names of those without speech."""
    texts = {name: normalise(corrections.get(name, text)) for name, text in written.items()}
    return {name: text for name, text in texts.items() if text}, [name for name, text in texts.items() if not text]


def parse_transcripts(path: Path) -> dict[str, str]:
    """Reads "name: text" lines; ';' begins a comment line. A text may be empty.

    Raises:
      UserError: the file is missing, or a line has no colon, or a name that was there before.
    """
    texts: dict[str, str] = {}
    for number, line in read_lines(path, _FETCH):
        if line.lstrip().startswith(";"):
            continue
        name, colon, text = line.partition(":")
        name, text = name.strip(), text.strip()
        if not colon or not name or len(name.split()) > 1:
            raise UserError(f"{path}:{number}: expected 'name: text', found {line.strip()[:60]!r}; correct the line.")
        if name in texts:
            raise UserError(f"{path}:{number}: {name} appears twice; delete one of the lines.")
        texts[name] = text
    return texts


def read_corrections(path: Path) -> dict[str, str]:
    """Reads "name<TAB>words" lines; '#' begins a comment line."""
    corrections = {}
    for number, line in read_lines(path, "put it beside the config file"):
        if line.startswith("#"):
            continue
        name, tab, text = line.partition("\t")
        if not tab or not normalise(text) or name in corrections:
            raise UserError(f"{path}:{number}: expected a new name, a tab and the words, found {line[:60]!r}.")
        corrections[name] = text
    return corrections


def read_split(path: Path) -> dict[str, str]:
    """Reads "name<TAB>set" lines; '#' begins a comment line."""
    split = {}
    for number, line in read_lines(path, "put it beside the config file"):
        if line.startswith("#"):
            continue
        name, _, which = line.strip().partition("\t")
        if which not in PARTS or name in split:
            raise UserError(
                f"{path}:{number}: expected a new name, a tab and one of {', '.join(PARTS)}: {line[:60]!r}."
            )
        split[name] = which
    return split


def _check_ids(utterances: list[Utterance]) -> None:
    seen: dict[str, Path] = {}
    for utterance in utterances:
        if utterance.id in seen:
            raise UserError(
                f"{utterance.audio}: its id {utterance.id} is that of {seen[utterance.id]} too; rename one."
            )
        seen[utterance.id] = utterance.audio


def _check_texts(utterances: list[Utterance], split: Path) -> None:
    first: dict[str, Utterance] = {}
    for utterance in utterances:
        other = first.setdefault(utterance.text, utterance)
        if other.set != utterance.set:
            raise UserError(
                f"{split}: {other.id} ({other.set}) and {utterance.id} ({utterance.set}) have the same text; "
                "put them in one set."
            )
