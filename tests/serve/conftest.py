"""A server of the toy recogniser."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from asr_kd.runtime.recogniser import Parts, Recogniser
from asr_kd.serve.recognition import Limits, Recognition
from asr_kd.serve.server import Address, make_server

from ..runtime import conftest as runtime

parts, running = runtime.parts, runtime.running  # fixtures


@dataclass
class Heard:
    """What the server's streams got."""

    blocks: list[np.ndarray] = field(default_factory=list)

    @property
    def samples(self) -> np.ndarray:
        return np.concatenate(self.blocks)


@contextmanager
def served(parts: Parts, limits: Limits) -> Iterator[tuple[str, Heard]]:
    """Yields the address (host:port) of a real server on this computer."""
    recognition, heard = Recognition(Recogniser(parts), "toy", limits), Heard()
    open_stream = recognition.recogniser.stream

    def stream():
        opened = open_stream()
        accept = opened.accept
        opened.accept = lambda samples: (heard.blocks.append(samples), accept(samples))[1]
        return opened

    recognition.recogniser.stream = stream  # type: ignore[method-assign]
    with Address("127.0.0.1", 0).open() as listening:
        server = make_server(recognition, "127.0.0.1")
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"127.0.0.1:{listening.getsockname()[1]}", heard
        finally:
            server.should_exit = True
            thread.join()
            recognition.close()


@pytest.fixture(scope="module")
def server(parts: Parts) -> Iterator[tuple[str, Heard]]:
    with served(parts, Limits()) as address_and_heard:
        yield address_and_heard
