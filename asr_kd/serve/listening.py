"""WebSocket: speech in, words out, as they are said.

client                                      server
{"sampling_rate": 16000}                    {"latency": 0.25}
float32 samples, little-endian, in blocks   after each block {"heard": s, "partial": "...", "finished": [...]}
{"end": true}                               the same, then it closes

A stretch in `finished` is as the format json has it, with its `start`. Before the server closes for another reason, it
sends {"error": sentence}. A client that sends faster than the server recognises waits: the next block is read when
the last one is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr_kd.errors import UserError
from asr_kd.runtime.stream import Stream, Update
from asr_kd.runtime.transcript import as_data
from asr_kd.serve.recognition import Recognition
from asr_kd.serve.refusal import Reason, Refusal

MOST_SAMPLES = 65_536  # of a block
LARGEST_MESSAGE = 8 * MOST_SAMPLES  # bytes; what is larger is not even received
_LOUDEST = 100.0  # samples are between -1 and 1, filters may overshoot, and these are no audio


async def listen(websocket: WebSocket) -> None:
    """One stream of speech."""
    recognition: Recognition = websocket.app.state.recognition
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.accept()
        try:
            with recognition.streams.taken():
                await _Listener(websocket, recognition).run()
            await websocket.close()
        except Refusal as refusal:
            await websocket.send_json({"error": str(refusal)})
            await websocket.close(refusal.reason.code)


class _Listener:
    def __init__(self, websocket: WebSocket, recognition: Recognition) -> None:
        self._websocket, self._recognition = websocket, recognition
        self._heard = 0  # samples

    async def run(self) -> None:
        """Raises Refusal or WebSocketDisconnect."""
        rate = self._recognition.recogniser.sampling_rate
        message = await self._receive()
        if isinstance(message, bytes) or message.get("sampling_rate") != rate:
            raise Refusal(Reason.MALFORMED, f'the first message must be {{"sampling_rate": {rate}}}.')
        stream = await self._recognition.run(self._recognition.recogniser.stream)
        await self._websocket.send_json({"latency": round(stream.latency, 3)})
        while isinstance(message := await self._receive(), bytes):
            samples = samples_of(message)
            self._heard += len(samples)
            await self._answer(await self._accept(stream, samples))
        if message != {"end": True}:
            raise Refusal(Reason.MALFORMED, 'after the first message come blocks of samples, and {"end": true}.')
        await self._answer(await self._recognition.run(stream.finish))

    async def _accept(self, stream: Stream, samples: NDArray[np.float32]) -> Update:
        try:
            return await self._recognition.run(stream.accept, samples)
        except UserError as error:
            raise Refusal(Reason.MALFORMED, str(error)) from None

    async def _receive(self) -> bytes | dict[str, Any]:
        """A block, or what a message of text says."""
        patience = self._recognition.limits.patience
        try:
            message = await asyncio.wait_for(self._websocket.receive(), patience)
        except asyncio.TimeoutError:
            raise Refusal(Reason.SLOW, f"nothing came for {patience:g} seconds; open another stream.") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        if (block := message.get("bytes")) is not None:
            return bytes(block)
        try:
            data = json.loads(message["text"])
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise Refusal(Reason.MALFORMED, "a message of text must be a JSON object.")
        return data

    async def _answer(self, update: Update) -> None:
        await self._websocket.send_json(
            {
                "heard": round(self._heard / self._recognition.recogniser.sampling_rate, 3),
                "partial": update.partial,
                "finished": [{"start": round(s.start, 3)} | as_data(s) for s in update.finished],
            }
        )


def samples_of(block: bytes) -> NDArray[np.float32]:
    """(n,) samples.

    Raises:
      Refusal: they are too many, or no samples.

    >>> samples_of(b"\\x00\\x00\\x00\\x3f")
    array([0.5], dtype=float32)
    """
    if len(block) > 4 * MOST_SAMPLES:
        raise Refusal(Reason.LARGE, f"a block has more than {MOST_SAMPLES:,} samples; send smaller ones.")
    if len(block) % 4:
        raise Refusal(Reason.MALFORMED, f"a block has {len(block)} bytes, which are no float32 samples.")
    samples = np.frombuffer(block, "<f4").astype(np.float32)
    if not (np.abs(samples) <= _LOUDEST).all():  # NaN is not either
        raise Refusal(Reason.MALFORMED, "a block has samples that are not finite numbers between -1 and 1.")
    return samples
