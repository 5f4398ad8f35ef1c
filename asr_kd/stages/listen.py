"""`asr-kd transcribe --mic`: words from the microphone, as they are said."""

from __future__ import annotations

import logging
import queue
import shutil
import sys
from typing import Any

import click
import numpy as np

from asr_kd.errors import UserError, first_line
from asr_kd.runtime.folder import RecogniserFiles
from asr_kd.runtime.stream import Update

log = logging.getLogger(__name__)

_BLOCK = 0.1  # seconds
_CLEAR = "\r\x1b[K"  # the line of a terminal


def listen(files: RecogniserFiles) -> None:
    """Prints each stretch of speech when it has ended; on a terminal also, until then, what it seems to be.

    Raises:
      UserError: sounddevice is not installed, or there is no microphone.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: PortAudio is missing
        raise UserError(
            f"--mic needs the package sounddevice ({first_line(error)}): pip install 'asr_kd[mic]', and PortAudio "
            "(libportaudio2 of Debian)."
        ) from None
    recogniser = files.load()
    stream, rate = recogniser.stream(), recogniser.sampling_rate
    heard: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

    def callback(block: np.ndarray, frames: int, time: Any, status: Any) -> None:
        heard.put(block[:, 0].copy())

    try:
        with sounddevice.InputStream(
            samplerate=rate, channels=1, dtype="float32", blocksize=round(_BLOCK * rate), callback=callback
        ):
            click.echo("listening; Ctrl-C ends", err=True)
            while True:
                _show(stream.accept(heard.get()))
    except KeyboardInterrupt:
        while not heard.empty():
            _show(stream.accept(heard.get()))
        _show(stream.finish())
    except sounddevice.PortAudioError as error:
        raise UserError(
            f"the microphone cannot be opened at {rate} Hz: {first_line(error)}; set the device to this rate, or "
            "record a file and transcribe that."
        ) from None


def _show(update: Update) -> None:
    terminal = sys.stderr.isatty()
    if terminal:
        click.echo(_CLEAR, err=True, nl=False)
    for stretch in update.finished:
        if stretch.words:
            click.echo(stretch.text)
        for start, end in stretch.lost:
            log.warning("no words were recognised from %.2f to %.2f s: the search came to no end", start, end)
    if terminal and update.partial:
        width = shutil.get_terminal_size().columns
        click.echo(update.partial[-width + 1 :], err=True, nl=False)
