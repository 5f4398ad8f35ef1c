"""What the server answers over HTTP, and from whom it takes nothing."""

import io
import json
import re
from functools import partial

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from asr_kd.runtime.pieces import pieces
from asr_kd.runtime.recogniser import Recogniser
from asr_kd.runtime.transcript import FORMATS
from asr_kd.serve.app import make_app
from asr_kd.serve.recognition import Limits, Recognition

from ..runtime.conftest import RATE, noise

BASE = "http://127.0.0.1:8000"
LIMITS = Limits(upload=200_000, longest=40.0)


@pytest.fixture(scope="module")
def recogniser(parts):
    return Recogniser(parts)


@pytest.fixture(scope="module")
def client(recogniser):
    recognition = Recognition(recogniser, "toy", LIMITS)
    with TestClient(make_app(recognition, {"speech.example"}), BASE) as client:
        yield client
    recognition.close()


def recording(samples, rate=RATE, form="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def test_the_page_comes_from_the_package_and_may_load_nothing_else(client):
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    for name in ("page.js", "microphone.js", "transcript.js", "capture.js", "resample.js", "page.css", "icon.svg"):
        answer = client.get(f"/{name}")
        assert answer.status_code == 200 and answer.headers["x-content-type-options"] == "nosniff"
        assert "innerHTML" not in answer.text
        assert set(re.findall(r"https?://[\w.]+", answer.text)) <= {"http://www.w3.org"}  # the name space of SVG
    assert "http" not in page.text and "style=" not in page.text and not re.search(r"\son\w+=", page.text)
    assert client.get("/../app.py").status_code == client.get("/app.py").status_code == 404
    assert client.get("/info").json() == {
        "model": "toy", "sampling_rate": RATE, "max_upload": LIMITS.upload, "max_block": 65_536,
    }  # fmt: skip


@pytest.mark.parametrize(("form", "rate"), [("WAV", RATE), ("FLAC", 16_000), ("OGG", RATE), ("MP3", 16_000)])
def test_a_recording_gives_what_transcribe_prints(client, recogniser, tmp_path, form, rate):
    data = recording(np.repeat(noise(2.0), rate // RATE) * 0.5, rate, form)
    (tmp_path / "a").write_bytes(data)
    answer = client.post("/transcribe", params={"name": "<b>ä.wav"}, content=data)
    assert answer.status_code == 200
    assert answer.json() == json.loads(
        FORMATS["json"]("<b>ä.wav", recogniser.transcribe(tmp_path / "a", confidence=True))
    )
    assert answer.json()["words"]


def test_a_long_recording_is_that_of_its_pieces(client, recogniser, tmp_path, monkeypatch):
    """Each of them is a job of its own, and streams go on in between."""
    monkeypatch.setattr("asr_kd.runtime.recogniser.pieces", partial(pieces, longest=1.5))
    (tmp_path / "a").write_bytes(recording(noise(2.9)))
    jobs = []
    run = client.app.state.recognition.run

    async def counted(function, *arguments):
        jobs.append(function)
        return await run(function, *arguments)

    monkeypatch.setattr(client.app.state.recognition, "run", counted)
    words = client.post("/transcribe", content=(tmp_path / "a").read_bytes()).json()["words"]
    assert jobs.count(next) >= 3 + 1
    assert words == json.loads(FORMATS["json"]("", recogniser.transcribe(tmp_path / "a", confidence=True)))["words"]


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"", 400, "nothing in it"),
        (b"RIFF", 400, "^the recording is "),
        (b"no sound " * 100, 400, "the recording is in no format that libsndfile reads; convert it"),
        (recording(noise(1.0))[:-4000], 400, "the recording is cut short"),
        (recording(noise(0.01)), 400, "the recording lasts less than 25 ms"),
        (recording(np.stack([noise(1.0), noise(1.0, 1)], 1)), 400, r"2 channels; choose one by \?channel= \(0 is"),
        (recording(np.full(RATE, np.nan, np.float32), subtype="FLOAT"), 400, "not finite"),
        (recording(1e30 * noise(1.0), subtype="FLOAT"), 400, "not finite"),
        (recording(noise(41.0), form="OGG"), 400, "the recording is longer than 40.0 s"),
        (bytes(LIMITS.upload + 1), 413, "larger than 200.0 kB"),
        ((bytes(1000) for _ in range(LIMITS.upload // 1000 + 1)), 413, "larger than 200.0 kB"),
    ],
    ids=["empty", "header", "text", "cut", "short", "stereo", "nan", "loud", "long", "large", "endless"],
)
def test_what_is_no_recording_is_one_sentence(client, data, status, sentence):
    answer = client.post("/transcribe", content=data)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert re.search(sentence, error), error
    assert error.endswith(".") and "/tmp" not in error and "\n" not in error
    assert client.post("/transcribe", content=recording(noise(1.0))).status_code == 200  # it goes on


def test_a_channel_is_chosen(client):
    both = np.stack([noise(1.0), noise(1.0, 1)], 1)
    alone = client.post("/transcribe", content=recording(both[:, 1])).json()
    assert client.post("/transcribe?channel=1", content=recording(both)).json() == alone
    for channel in ("2", "-1", "x", "٣", "9" * 30):
        assert client.post("/transcribe", params={"channel": channel}, content=recording(both)).status_code == 400


def test_more_recordings_than_slots_are_refused(recogniser):
    recognition = Recognition(recogniser, "toy", Limits(uploads=0))
    with TestClient(make_app(recognition), BASE) as client:
        answer = client.post("/transcribe", content=recording(noise(1.0)))
        assert (answer.status_code, answer.json()) == (
            503,
            {"error": "0 recordings are in work already; try again later."},
        )
    recognition.close()


@pytest.mark.parametrize("form", FORMATS)
def test_words_are_written_in_every_format(client, recogniser, form):
    transcript = recogniser.transcribe(noise(3.0))
    answer = client.post("/write", params={"format": form}, content=FORMATS["json"]("a.wav", transcript))
    assert answer.status_code == 200
    if form in ("json", "text", "srt", "vtt"):  # ctm has more digits than json
        rounded = FORMATS[form]("a.wav", transcript)
        assert answer.text.split()[:3] == rounded.split()[:3]
    if form == "json":
        assert answer.json() == json.loads(FORMATS["json"]("a.wav", transcript))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"\xff", b"{", b'{"words": [1]}', b'{"words": [{"word": "A"}]}',
        b'{"words": [{"word": "A", "start": NaN, "end": 1}]}', b'{"words": [{"word": "A", "start": -1, "end": 1}]}',
        b'{"words": [{"word": "A", "start": 0, "end": 1e30}]}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_words_that_are_none_are_refused(client, body):
    answer = client.post("/write?format=srt", content=body)
    assert (answer.status_code, answer.json()) == (400, {"error": "this is not JSON as /transcribe answers it."})
    assert client.post("/write?format=pdf", content=b"{}").status_code == 400


# --- who may ask


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "192.168.1.7", "Speech.Example:80"])
def test_the_servers_own_page_may_ask(client, host):
    for headers in ({"host": host}, {"host": host, "origin": f"http://{host.lower()}"}):
        assert client.post("/write?format=text", content=b'{"words": []}', headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "http://127.0.0.1:8000.evil.example"},
        {"origin": "http://["},
        {"host": "evil.example:8000", "origin": "http://evil.example:8000"},  # DNS rebinding
        {"host": "["},
        {"host": ""},
    ],
)
def test_other_pages_may_not(client, headers):
    for answer in (
        client.post("/transcribe", content=recording(noise(1.0)), headers=headers),
        client.get("/", headers=headers),
    ):
        assert answer.status_code == 403 and set(answer.json()) == {"error"}
        assert "default-src" in answer.headers["content-security-policy"]
