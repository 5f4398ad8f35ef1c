"""POST: a recording to its words, and words to a file of captions."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from asr_kd.corpora.audio import BadAudio
from asr_kd.errors import UserError
from asr_kd.io.formatting import human_bytes
from asr_kd.runtime.transcript import FORMATS, joined, read_json
from asr_kd.serve.recognition import Recognition
from asr_kd.serve.refusal import Reason, Refusal

_WORDS = 20_000_000  # bytes of a transcript that is written in another format


async def transcribe(request: Request) -> Response:
    """The body is a recording; the answer is what `asr-kd transcribe --format json` prints.

    ?name= is its name in the answer; ?channel= chooses one of several, 0 is the first.
    """
    recognition: Recognition = request.app.state.recognition
    name, channel = request.query_params.get("name", "recording")[:255], _channel(request)
    with recognition.uploads.taken(), tempfile.TemporaryDirectory(prefix="asr-kd-") as folder:
        path = Path(folder) / "recording"
        await _store(request, path, recognition)
        try:
            parts = []
            async for transcript in recognition.pieces(path, channel):
                parts.append(transcript)
                if await request.is_disconnected():
                    raise ClientDisconnect
        except (BadAudio, UserError) as error:
            sentence = str(error).replace(str(path), "the recording").replace("--channel", "?channel=").rstrip(".")
            raise Refusal(Reason.MALFORMED, f"{sentence}.") from None
    return Response(FORMATS["json"](name, joined(parts)), media_type="application/json")


def _channel(request: Request) -> int | None:
    channel = request.query_params.get("channel", "")
    if not channel:
        return None
    if not channel.isascii() or not channel.isdigit() or len(channel) > 3:
        raise Refusal(Reason.MALFORMED, "?channel= is a number; 0 is the first channel.")
    return int(channel)


async def _store(request: Request, path: Path, recognition: Recognition) -> None:
    received = 0
    try:
        with path.open("wb") as file:
            async for chunk in _chunks(request, recognition.limits.upload, recognition.limits.patience):
                received += file.write(chunk)
    except OSError as error:
        raise Refusal(Reason.FULL, f"the server cannot store the recording: {error.strerror}.") from None
    if not received:
        raise Refusal(Reason.MALFORMED, "there is nothing in it: send a recording as the body.")


async def _chunks(request: Request, most: int, patience: float) -> AsyncIterator[bytes]:
    """The body of a request.

    Raises:
      Refusal: it is larger than `most` bytes, or nothing of it came for `patience` seconds.
    """
    too_large = Refusal(Reason.LARGE, f"this is larger than {human_bytes(most)}, the most that this server takes.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise too_large
    received, body = 0, aiter(request.stream())
    while True:
        try:
            chunk = await asyncio.wait_for(anext(body), patience)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise Refusal(Reason.SLOW, f"nothing came for {patience:g} seconds; send it again.") from None
        received += len(chunk)
        if received > most:
            raise too_large
        yield chunk


async def write(request: Request) -> Response:
    """The body is an answer of `transcribe`; the answer is the same in the format that ?format= names."""
    form = FORMATS.get(request.query_params.get("format", ""))
    if form is None:
        raise Refusal(Reason.MALFORMED, f"?format= is one of {', '.join(FORMATS)}.")
    patience = request.app.state.recognition.limits.patience
    body = b"".join([chunk async for chunk in _chunks(request, _WORDS, patience)])
    try:
        name, transcript = read_json(body)
    except ValueError:
        raise Refusal(Reason.MALFORMED, "this is not JSON as /transcribe answers it.") from None
    return Response(form(name, transcript), media_type="text/plain; charset=utf-8")
