"""Transcripts as written -> words, for a whole corpus, and what was dropped on the way: counted, with examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from asr_kd.corpora.listing import CorpusManifest, DroppedText, Utterance
from asr_kd.errors import UserError, some_of
from asr_kd.lang.normalise import Kind, Losses, Normaliser
from asr_kd.lang.numbers import NumberError

MOST_LOST = 0.01  # of the characters of words
MOST_FOREIGN = 0.5  # of them, where they are kept
_KINDS: tuple[Kind, ...] = ("note", "symbol", "letter")
_NAMED = 5  # dropped pieces of each kind that are named


def in_words(manifest: CorpusManifest, normalise: Normaliser) -> CorpusManifest:
    """The same corpus with words for transcripts.

    Utterances without a word go to `not_speech`. Those whose words cannot be written in the language, or that have a
    number it has no words for, are refused. `dropped` has what was lost.
    """
    listing = replace(manifest, utterances=[], problems=list(manifest.problems), not_speech=list(manifest.not_speech))
    for utterance in manifest.utterances:
        if utterance.verbatim:
            listing.utterances.append(utterance)
            continue
        try:
            words, losses = normalise.explain(utterance.text)
        except NumberError as error:
            listing.refuse(utterance.id, utterance.set, f"its transcript cannot be read: {error}")
            continue
        listing.dropped.setdefault(utterance.set, DroppedText()).add(utterance.id, losses)
        _add(listing, utterance, words, losses, normalise)
    return listing


def _add(listing: CorpusManifest, utterance: Utterance, words: str, losses: Losses, normalise: Normaliser) -> None:
    if words:
        listing.utterances.append(replace(utterance, text=words))
    elif losses.lost:
        letters = some_of([letter for letter, _ in losses.of_kind("letter")])
        reason = f"its transcript has no letter of the language {normalise.language} ({letters}); set lang.language"
        listing.refuse(utterance.id, utterance.set, reason)
    else:
        listing.not_speech.append(utterance.id)  # nothing but [noise]


def check_losses(source: Path, what: str, losses: Losses, normalise: Normaliser) -> None:
    """Raises UserError where text is hardly of the language.

    More than a hundredth of the characters of words were dropped or changed, or most of them are of another script; a
    few of another script are names and quotations.
    """
    if losses.lost > MOST_LOST * losses.characters:
        lost, letters = losses.lost, losses.of_kind("letter")
    elif losses.foreign.total() > MOST_FOREIGN * losses.characters:
        lost, letters = losses.foreign.total(), losses.foreign.most_common()
    else:
        return
    shown = ", ".join(f"{times:,} “{letter}”" for letter, times in letters[:_NAMED])
    raise UserError(
        f"{source}: {lost / losses.characters:.1%} of the characters in the words of {what} are no letters of "
        f"the language {normalise.language} ({shown}); set lang.language to the language of the text, or "
        "lang.normalise: none to leave it as it is."
    )


def dropped_metadata(dropped: DroppedText) -> dict[str, Any]:
    """Returns what the transcripts of a set lost, as plain data for a stamp.

    Kind -> how many were dropped, and the most frequent ones as [what, times, an utterance].
    """
    metadata: dict[str, Any] = {}
    for kind in _KINDS:
        if pieces := dropped.losses.of_kind(kind):
            named = [[piece, times, dropped.examples[kind, piece]] for piece, times in pieces[:_NAMED]]
            metadata[kind] = {"times": sum(times for _, times in pieces), "most_frequent": named}
    return metadata


def describe_dropped(metadata: dict[str, Any], language: str) -> list[str]:
    """Lines on what `dropped_metadata` counted."""
    lacking = f"that the language {language} does not have"
    names = {  # of one, of several
        "note": ("note in brackets", "notes in brackets"),
        "symbol": ("punctuation mark or symbol", "punctuation marks and symbols"),
        "letter": (f"letter or accent {lacking}", f"letters or accents {lacking}"),
    }
    lines = []
    for kind, entry in metadata.items():
        shown = ", ".join(f"{times:,} “{piece}”" for piece, times, _ in entry["most_frequent"])
        what = names[kind][entry["times"] > 1]
        lines.append(f"dropped {entry['times']:,} {what}: {shown}; first in {entry['most_frequent'][0][2]}")
    return lines
