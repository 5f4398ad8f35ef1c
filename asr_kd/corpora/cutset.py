"""Corpora that lhotse has manifests of: CutSets, recordings with supervisions, and shards (shar).

Each supervision is an utterance, under its own id: the segment of its recording that it describes. What in an id cannot
be part of a file's name (white space, slashes) becomes a hyphen. In sets without transcripts a cut, or a recording,
without supervisions is an utterance as a whole. Names of audio files are relative to the corpus's folder or, where
nothing is there, to the current one, as for lhotse.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from asr_kd.corpora.audio import Audio, BadAudio
from asr_kd.corpora.cuts import recording_audio
from asr_kd.corpora.held_out import draw, drawn_sets, parts_to_read
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance, find_file
from asr_kd.corpora.manifests import Manifests, check_item, find_manifests, read_items, shard_recordings
from asr_kd.corpora.settings import CutsConfig
from asr_kd.corpora.sources import Pipe, allowed_pipe
from asr_kd.errors import UserError

_WHOLE = 1e-3  # seconds: a supervision that lacks less of its recording has all of it, as for lhotse
_NO_NAME = re.compile(r"[\s/]+")


def read(request: ReadRequest[CutsConfig]) -> CorpusManifest:
    """Lists the utterances of all sets, then draws sets from training.

    Raises:
      UserError: a manifest is missing or malformed, an id appears twice, or a recording is a command and commands are
        not allowed.
    """
    drawn = drawn_sets(request)
    listing = CorpusManifest([], [])
    seen: dict[str, str] = {}
    for name, part in parts_to_read(request, drawn):
        manifests = find_manifests(request.root, part)
        listing.transcripts.extend(path for path in manifests.files if path.suffix != ".tar")
        for item in _supervisions(manifests, transcribed=name not in request.untranscribed):
            utterance = _NO_NAME.sub("-", item.id)
            if utterance in seen:
                raise UserError(
                    f"{item.where}: utterance {utterance} is in {seen[utterance]} too; leave one out, or rename it."
                )
            seen[utterance] = item.where
            _add(listing, utterance, item, name, request)
    return draw(listing, drawn, request.seed, request.root)


@dataclass(frozen=True)
class _Item:
    """A supervision with its recording, as plain data; or a cut without one of them.

    Attributes:
      where: file and line, for messages.
      problem: why it cannot be used; "": nothing is known yet.
      start: seconds from the recording's beginning.
      channels: by lhotse's numbers.
    """

    where: str
    id: str
    problem: str = ""
    supervision: Mapping[str, Any] | None = None
    recording: Mapping[str, Any] | None = None
    start: float = 0.0
    duration: float = 0.0
    channels: int | Sequence[int] = 0

    def field(self, name: str) -> str:
        """A field of the supervision, which may be a custom one; "" where there is none."""
        fields = dict(self.supervision or {})
        value = fields.get(name, (fields.get("custom") or {}).get(name))
        return "" if value is None else str(value).strip()


def _add(listing: CorpusManifest, utterance: str, item: _Item, name: str, request: ReadRequest[CutsConfig]) -> None:
    settings = request.settings
    text, reason = item.field(settings.text), item.problem
    if not reason and not text and name not in request.untranscribed:
        reason = f"its supervision ({item.where}) has no {settings.text}; write the transcript, or leave it out"
    try:
        audio = None if reason else _audio(item, request)
    except BadAudio as bad:
        reason = str(bad)
    if reason or audio is None:
        listing.refuse(utterance, name, reason)
    else:
        listing.utterances.append(Utterance(utterance, audio, text, item.field(settings.speaker) or utterance, name))


def _audio(item: _Item, request: ReadRequest[CutsConfig]) -> Audio:
    recording = dict(item.recording or {})
    if item.start < 0 or item.duration <= 0:
        raise BadAudio(
            f"its supervision ({item.where}) is from {item.start:.2f} to {item.start + item.duration:.2f} s of its "
            "recording; correct its times"
        )
    is_whole = item.start == 0 and abs(item.duration - recording["duration"]) < _WHOLE
    segment = (item.start, None if is_whole else item.duration)
    locate = partial(find_file, root=request.root)
    audio = recording_audio(recording, item.channels, locate, request.settings.channel, segment)
    if isinstance(audio.source, Pipe):
        allowed_pipe(audio.source.command, request.allow_pipes, f"{item.where}: recording {recording['id']}")
    return audio


def _supervisions(manifests: Manifests, *, transcribed: bool) -> Iterator[_Item]:
    for recordings, supervisions in zip(manifests.recordings, manifests.supervisions):
        yield from _of_recordings(recordings, supervisions)
    for cuts, archive in itertools.zip_longest(manifests.cuts, manifests.archives):
        audio = None if archive is None else shard_recordings(archive)
        for where, data in read_items(cuts):
            if audio is not None:
                name, recording = next(audio, ("", None))
                if name != data.get("id"):
                    raise UserError(f"{where}: {archive} has no audio of this cut at its place; copy the shards again.")
                data = data if recording is None else data | {"recording": recording}
            if not transcribed and "sources" in data and "type" not in data:
                check_item(where, data, "recording")
                yield _Item(where, str(data["id"]), "", None, data, 0.0, data["duration"], _channels(data))
            else:
                yield from _of_cut(where, data, transcribed=transcribed)


def _channels(recording: Mapping[str, Any]) -> list[int]:
    return [channel for source in recording["sources"] for channel in source["channels"]]


def _of_recordings(recordings: Path, supervisions: Path) -> Iterator[_Item]:
    known: dict[str, Mapping[str, Any]] = {}
    for where, data in read_items(recordings):
        check_item(where, data, "recording")
        known[data["id"]] = data
    for where, data in read_items(supervisions):
        check_item(where, data, "supervision")
        recording = known.get(data["recording_id"])
        reason = ""
        if recording is None:
            reason = f"its recording {data['recording_id']} is not in {recordings}; add it, or leave the utterance out"
        yield _Item(
            where, str(data["id"]), reason, data, recording, data["start"], data["duration"], data.get("channel", 0)
        )


def _of_cut(where: str, cut: Mapping[str, Any], *, transcribed: bool) -> Iterator[_Item]:
    kind, recording = cut.get("type"), cut.get("recording")
    if kind in ("MixedCut", "PaddingCut"):
        reason = f"is a {kind}, which is no part of one recording ({where}); save it as audio with lhotse first"
        yield _Item(where, str(cut.get("id")), reason)
        return
    if kind is None and ("sources" in cut or "recording_id" in cut):
        raise UserError(
            f"{where}: this is no cut, but a recording or a supervision; name both files under sets:, as "
            "RECORDINGS+SUPERVISIONS."
        )
    check_item(where, cut, "cut")
    for supervision in cut.get("supervisions") or ():
        # a cut of several channels has supervisions of some of them
        channels = supervision.get("channel", cut["channel"]) if kind == "MultiCut" else cut["channel"]
        start = round(cut["start"] + supervision["start"], 9)
        reason = "" if recording else f"its cut has no recording ({where}); make cuts of recordings"
        yield _Item(
            where, str(supervision["id"]), reason, supervision, recording, start, supervision["duration"], channels
        )
    if cut.get("supervisions"):
        return
    if transcribed:
        yield _Item(where, str(cut["id"]), f"has no supervision ({where}); add its transcript, or leave the cut out")
    else:
        reason = "" if recording else f"has no recording ({where}); make cuts of recordings"
        yield _Item(where, str(cut["id"]), reason, None, recording, cut["start"], cut["duration"], cut["channel"])
