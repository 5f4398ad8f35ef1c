"""A stream over a WebSocket."""

import contextlib
import json

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from asr_kd.runtime.recogniser import Recogniser
from asr_kd.serve.app import make_app
from asr_kd.serve.listening import MOST_SAMPLES
from asr_kd.serve.recognition import Limits, Recognition

from ..runtime.conftest import RATE, noise
from .conftest import served

URL = "ws://127.0.0.1:8000/stream"
HELLO = {"sampling_rate": RATE}


@pytest.fixture(scope="module")
def recogniser(running):
    return Recogniser(running)


@pytest.fixture
def client(recogniser):
    recognition = Recognition(recogniser, "toy", Limits(streams=2, patience=0.5))
    with TestClient(make_app(recognition)) as client:
        yield client
    recognition.close()


def blocks(samples, size=800):
    return [samples[first : first + size].astype("<f4").tobytes() for first in range(0, len(samples), size)]


def speak(websocket, samples):
    """All answers."""
    websocket.send_json(HELLO)
    answers = [websocket.receive_json()]
    for block in blocks(samples):
        websocket.send_bytes(block)
        answers.append(websocket.receive_json())
    websocket.send_json({"end": True})
    return [*answers, websocket.receive_json()]


def test_words_come_as_from_a_stream(client, recogniser):
    samples = noise(4.0)
    with client.websocket_connect(URL) as websocket:
        opened, *answers = speak(websocket, samples)
        with pytest.raises(WebSocketDisconnect) as end:
            websocket.receive_json()
        assert end.value.code == 1000
    stream = recogniser.stream()
    updates = [stream.accept(np.frombuffer(block, np.float32)) for block in blocks(samples)] + [stream.finish()]
    assert opened == {"latency": round(stream.latency, 3)}
    assert [answer["partial"] for answer in answers] == [update.partial for update in updates]
    assert any(update.partial for update in updates)
    heard = [stretch["text"] for answer in answers for stretch in answer["finished"]]
    assert heard and heard == [stretch.text for update in updates for stretch in update.finished]
    (first,) = (stretch for answer in answers[-1:] for stretch in answer["finished"])
    assert set(first) == {"start", "seconds", "text", "words", "lost"} and first["words"][0]["confidence"] is None
    assert answers[-1]["heard"] == 4.0


def test_streams_do_not_disturb_each_other(client):
    alone = []
    for seed in (0, 1):
        with client.websocket_connect(URL) as websocket:
            alone.append(speak(websocket, noise(2.0, seed)))
    with client.websocket_connect(URL) as one, client.websocket_connect(URL) as other:
        for websocket in (one, other):
            websocket.send_json(HELLO)
        answers = [[one.receive_json()], [other.receive_json()]]
        for pair in zip(blocks(noise(2.0, 0)), blocks(noise(2.0, 1)), strict=True):
            for websocket, block in zip((one, other), pair, strict=True):
                websocket.send_bytes(block)
            for of, websocket in zip(answers, (one, other), strict=True):
                of.append(websocket.receive_json())
        for of, websocket in zip(answers, (one, other), strict=True):
            websocket.send_json({"end": True})
            of.append(websocket.receive_json())
    assert answers == alone


NUMBERS = np.zeros(10, "<f4")
NAN, LOUD = NUMBERS.copy(), NUMBERS.copy()
NAN[3], LOUD[3] = np.nan, -1e30


@pytest.mark.parametrize(
    ("messages", "code", "sentence"),
    [
        (["hello"], 1007, "must be a JSON object"),
        (["[]"], 1007, "must be a JSON object"),
        (["[" * 100_000], 1007, "must be a JSON object"),
        (["{}"], 1007, 'must be {"sampling_rate": 8000}'),
        (['{"sampling_rate": 44100}'], 1007, 'must be {"sampling_rate": 8000}'),
        ([NUMBERS.tobytes()], 1007, 'must be {"sampling_rate": 8000}'),
        ([json.dumps(HELLO), b"abc"], 1007, "3 bytes, which are no float32"),
        ([json.dumps(HELLO), NAN.tobytes()], 1007, "not finite"),
        ([json.dumps(HELLO), LOUD.tobytes()], 1007, "not finite numbers between"),
        ([json.dumps(HELLO), bytes(4 * MOST_SAMPLES + 4)], 1009, "more than 65,536 samples"),
        ([json.dumps(HELLO), json.dumps(HELLO)], 1007, '{"end": true}'),
        ([json.dumps(HELLO), '{"end": 1}' * 2], 1007, "JSON object"),
        ([json.dumps(HELLO)], 1008, "nothing came for 0.5 seconds"),
        ([], 1008, "nothing came for 0.5 seconds"),
    ],
)
def test_what_is_malformed_is_one_sentence_and_a_code(client, messages, code, sentence):
    with client.websocket_connect(URL) as websocket:
        for message in messages:
            websocket.send_bytes(message) if isinstance(message, bytes) else websocket.send_text(message)
        answer = websocket.receive_json()
        if "latency" in answer:
            answer = websocket.receive_json()
        assert set(answer) == {"error"} and sentence in answer["error"] and answer["error"].endswith(".")
        with pytest.raises(WebSocketDisconnect) as end:
            websocket.receive_json()
        assert end.value.code == code


def test_a_block_may_be_empty_or_as_large_as_is_allowed(client):
    with client.websocket_connect(URL) as websocket:
        websocket.send_json(HELLO)
        websocket.receive_json()
        for count in (0, 1, MOST_SAMPLES):
            websocket.send_bytes(bytes(4 * count))
            assert "partial" in websocket.receive_json()


def test_streams_are_counted_and_leave_their_slot_however_they_end(client):
    for _ in range(3):
        with client.websocket_connect(URL) as websocket:
            websocket.send_json(HELLO)  # closed by the client
        with client.websocket_connect(URL) as websocket:
            websocket.send_text("x")
            assert "error" in websocket.receive_json()  # by the server
    with client.websocket_connect(URL) as one, client.websocket_connect(URL) as other:
        for websocket in (one, other):
            websocket.send_json(HELLO)
            websocket.receive_json()
        with client.websocket_connect(URL) as third:
            assert third.receive_json() == {"error": "2 streams are open already; try again later."}
            with pytest.raises(WebSocketDisconnect) as end:
                third.receive_json()
            assert end.value.code == 1013


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"host": "evil.example"}])
def test_other_pages_get_no_stream(client, headers):
    with pytest.raises(WebSocketDisconnect) as end, client.websocket_connect(URL, headers=headers):
        pass
    assert end.value.code == 1008


# --- over a real socket


def test_a_real_server(server):
    address, heard = server
    with connect(f"ws://{address}/stream", origin=f"http://{address}") as websocket:
        websocket.send(json.dumps(HELLO))
        assert "latency" in json.loads(websocket.recv())
        for block in blocks(noise(2.0)):
            websocket.send(block)  # all at once: what the server is not ready for waits in the connection
        websocket.send(json.dumps({"end": True}))
        *answers, last = [json.loads(answer) for answer in websocket]
        assert last["heard"] == 2.0 and last["finished"] and len(answers) == len(blocks(noise(2.0)))
    np.testing.assert_array_equal(heard.samples, noise(2.0))


def test_a_message_that_is_far_too_large_is_not_received(server, capfd):
    address, _ = server
    with connect(f"ws://{address}/stream") as websocket:
        websocket.send(json.dumps(HELLO))
        websocket.recv()
        with pytest.raises(ConnectionClosed) as end:
            websocket.send(bytes(20_000_000))
            websocket.recv()
    assert end.value.rcvd is None or end.value.rcvd.code == 1009
    with connect(f"ws://{address}/stream") as websocket:  # closed early, with a block in work
        websocket.send(json.dumps(HELLO))
        websocket.send(blocks(noise(1.0), RATE)[0])
    assert "Traceback" not in capfd.readouterr().err


def test_a_server_ends_with_streams_open(parts):
    with contextlib.ExitStack() as stack:
        with served(parts, Limits()) as (address, _):
            websocket = stack.enter_context(connect(f"ws://{address}/stream"))
            websocket.send(json.dumps(HELLO))
            websocket.recv()
        with pytest.raises(ConnectionClosed):
            websocket.recv(timeout=5)
