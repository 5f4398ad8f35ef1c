"""Words from a microphone, which here plays a recording until Ctrl-C."""

from __future__ import annotations

import sys
from collections import deque
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from asr_kd.errors import UserError
from asr_kd.runtime.recogniser import Recogniser
from asr_kd.runtime.stream import StreamSettings
from asr_kd.stages.listen import listen

from ..runtime.conftest import RATE, noise, parts, running  # noqa: F401 - fixtures


class Queue(deque):
    """Ctrl-C is pressed when five blocks are left to be recognised."""

    put = deque.append
    pressed = False

    def get(self) -> np.ndarray:
        if len(self) == 5 and not self.pressed:
            self.pressed = True
            raise KeyboardInterrupt
        return self.popleft()

    def empty(self) -> bool:
        return not self


def fake_sounddevice(samples: np.ndarray) -> ModuleType:
    module = ModuleType("sounddevice")

    class InputStream:
        def __init__(self, *, samplerate, channels, dtype, blocksize, callback) -> None:  # type: ignore[no-untyped-def]
            assert (samplerate, channels, dtype, blocksize) == (RATE, 1, "float32", RATE // 10)
            self.callback = callback

        def __enter__(self) -> None:
            for first in range(0, len(samples), RATE // 10):
                block = samples[first : first + RATE // 10, None]
                self.callback(block, len(block), None, None)

        def __exit__(self, *error: object) -> None:
            pass

    class PortAudioError(Exception):
        pass

    module.InputStream, module.PortAudioError = InputStream, PortAudioError  # type: ignore[attr-defined]
    return module


def test_what_a_microphone_hears_is_printed(running, monkeypatch, capsys):  # noqa: F811
    samples = noise(2.0)
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(samples))
    monkeypatch.setattr("asr_kd.stages.listen.queue", SimpleNamespace(SimpleQueue=Queue))
    recogniser = Recogniser(running)
    listen(SimpleNamespace(load=lambda: recogniser))
    stream = recogniser.stream(StreamSettings())
    expected = [each.text for each in (*stream.accept(samples).finished, *stream.finish().finished)]
    assert expected and capsys.readouterr().out.splitlines() == expected


def test_without_a_microphone_there_is_one_sentence(running, monkeypatch):  # noqa: F811
    files = SimpleNamespace(load=lambda: Recogniser(running))
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(UserError, match=r"needs the package sounddevice .*pip install 'asr_kd\[mic\]'"):
        listen(files)
    module = fake_sounddevice(np.zeros(0, np.float32))

    def broken(**_: object) -> None:
        raise module.PortAudioError("no device")  # type: ignore[attr-defined]

    monkeypatch.setattr(module, "InputStream", broken)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    with pytest.raises(UserError, match="the microphone cannot be opened at 8000 Hz: no device"):
        listen(files)
