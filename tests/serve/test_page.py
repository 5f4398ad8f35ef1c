"""The page in a browser: a recording as its microphone, recordings as files, chosen and dropped."""

import json
import wave

import numpy as np
import pytest

from ..runtime.conftest import RATE, noise
from .chromium import PROGRAM, browse

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed (Debian: chromium)")

CARD = "document.querySelector('.transcript')"
TONE = 1000.0  # Hz


def write_wave(path, samples, rate):
    """16 bits, which Chromium's microphone takes."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(32767 * np.clip(samples, -1, 1)).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    """The page; its microphone hears, again and again, a tone and something louder above what 8 kHz can have."""
    tmp_path = tmp_path_factory.mktemp("chromium")
    address, heard = server
    seconds = np.arange(4 * 48_000) / 48_000
    tones = 0.2 * np.sin(2 * np.pi * TONE * seconds) + 0.4 * np.sin(2 * np.pi * 7000 * seconds)
    recording = write_wave(tmp_path / "microphone.wav", tones, 48_000)
    flags = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}",
    )
    with browse(f"http://{address}/", tmp_path / "profile", *flags) as page:
        page.wait("document.body?.dataset.ready")
        page.heard = heard
        yield page
        assert page.complaints == []


def test_one_speaks_and_sees_words(page, parts):
    page.value("document.getElementById('speak').click()")
    page.wait(f"{CARD}?.querySelector('.partial').textContent")
    assert page.value("document.getElementById('speak').getAttribute('aria-pressed')") == "true"
    page.wait(f"parseInt({CARD}.querySelector('.note').textContent.split(':')[1]) >= 3")
    page.value("document.getElementById('speak').click()")
    page.wait(f"{CARD}.dataset.state === 'done'")
    words = page.value(f"[...{CARD}.querySelectorAll('.word')].map(word => word.textContent)")
    assert words and set(words) <= set(parts.lang.words)
    assert page.value(f"{CARD}.querySelector('.partial').hidden")
    spectrum = np.abs(np.fft.rfft(page.heard.samples[RATE : 2 * RATE] * np.hanning(RATE)))  # a Hz each
    assert spectrum.argmax() == pytest.approx(TONE, abs=2)  # at the recogniser's rate, in the right order
    spectrum[round(TONE) - 5 : round(TONE) + 6] = 0
    assert spectrum.max() < 0.02 * 0.2 * RATE / 4  # and what 8 kHz cannot have is gone, not folded


def test_one_takes_recordings(page, tmp_path):
    page.call("Page.reload")
    page.wait("document.body?.dataset.ready")
    good = write_wave(tmp_path / "<b>good.wav", noise(3.0), RATE)
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    page.choose("#files", good, bad)
    page.wait("document.querySelectorAll('.transcript[data-state=done], .transcript[data-state=failed]').length === 2")
    assert page.value("[...document.querySelectorAll('h3')].map(name => name.textContent)") == [
        "bad.wav",
        "<b>good.wav",
    ]
    assert page.value("document.querySelector('.problem:not([hidden])').textContent").startswith(
        "The recording is in no format"
    )
    assert page.value("document.querySelectorAll('.word').length") > 0
    assert "% sure" in page.value("document.querySelector('.word').title")
    page.value(  # what is saved
        "window.saved = []; URL.createObjectURL = (blob) => { blob.text().then(t => saved.push(t)); return '#'; };"
        "HTMLAnchorElement.prototype.click = () => {};"
    )
    for number in range(4):
        page.value(f"document.querySelectorAll('.small')[{number}].click()")
        page.wait(f"saved.length === {number + 1}")
    text, srt, vtt, as_json = page.value("saved")
    assert text.startswith("<b>good.wav\t") and srt.startswith("1\n00:00:0") and vtt.startswith("WEBVTT")
    assert len(json.loads(as_json)["words"]) == page.value("document.querySelectorAll('.word').length")


def test_one_drops_recordings(page, tmp_path):
    page.call("Page.reload")
    page.wait("document.body?.dataset.ready")
    recordings = [write_wave(tmp_path / name, noise(3.0), RATE) for name in ("one.wav", "two.wav")]
    over = "document.getElementById('drop').classList.contains('over')"
    for kind in ("dragEnter", "dragOver"):
        page.drag(kind, "h1", *recordings)
    page.wait(over)
    page.drag("drop", "h1", *recordings)  # anywhere on the page
    page.wait("document.querySelectorAll('.transcript[data-state=done]').length === 2")
    assert page.value("[...document.querySelectorAll('h3')].map(name => name.textContent)") == ["two.wav", "one.wav"]
    assert not page.value(over)


@pytest.mark.parametrize(("source", "target"), [(48_000, 16_000), (44_100, 16_000), (44_100, 8000), (8000, 16_000)])
def test_resampling_is_exact_for_tones(page, source, target):
    """Of any block length; a sine of another rate is known in closed form."""
    frequency = 0.3 * min(source, target)
    script = f"""
        import('/resample.js').then(({{ Resampler }}) => {{
          const resampler = new Resampler({source}, {target});
          const output = [];
          for (let first = 0, size = 1; first < {source}; first += size, size = (size * 7) % 129 + 1) {{
            const sine = (_, index) => Math.sin(2 * Math.PI * {frequency} * (first + index) / {source});
            const block = Float32Array.from({{ length: size }}, sine);
            output.push(...resampler.push(block));
          }}
          output.push(...resampler.finish());
          return output;
        }})"""
    output = np.array(page.value(script))
    assert len(output) == pytest.approx(target, abs=target * 0.02)
    inner = slice(target // 10, -target // 10)
    expected = np.sin(2 * np.pi * frequency * np.arange(len(output)) / target)
    np.testing.assert_allclose(output[inner], expected[inner], atol=3e-3)
