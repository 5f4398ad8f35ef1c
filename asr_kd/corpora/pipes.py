"""Commands that write audio, as in Kaldi's wav.scp: run without a shell, their stages joined by pipes.

A command line comes with the data, so it may be anybody's. It is run only where the user allows it, and no shell reads
it: there are words, quotes and "|", but no redirection, no variable and no second command.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from typing import BinaryIO

_TOKEN = re.compile(
    r"""\s*(?:(?P<bar>\|) | (?P<word> (?: [^\s"'\\|<>&;()$`] | \\. | "(?:[^"\\$`]|\\.)*" | '[^']*' )+ ))\s*""",
    re.VERBOSE | re.DOTALL,
)
_BROKEN_PIPE = -13  # a stage was ended because the next one had read enough


class PipeError(Exception):
    """Why a command gave no audio, and what to do."""


def split_pipe(command: str) -> list[list[str]]:
    """The stages of a command line and their words.

    >>> split_pipe("sph2pipe -f wav 'a b.sph' | sox -t wav - -r 16k -t wav -")
    [['sph2pipe', '-f', 'wav', 'a b.sph'], ['sox', '-t', 'wav', '-', '-r', '16k', '-t', 'wav', '-']]

    Raises:
      PipeError: it needs a shell, a quote is not closed, or a stage is empty.
    """
    stages: list[list[str]] = [[]]
    place, end = 0, len(command.rstrip())
    while place < end:
        token = _TOKEN.match(command, place)
        if token is None:
            rest = command[place:].strip()[:20]
            raise PipeError(
                f"the command '{command}' cannot be run: no shell reads it, so redirections, variables and open quotes "
                f"mean nothing, as here: {rest}; correct the line"
            )
        place = token.end()
        if token["bar"]:
            stages.append([])
        else:
            stages[-1].append(shlex.split(token["word"])[0])
    if not all(stages):
        raise PipeError(f"the command '{command}' has nothing on one side of a |; correct the line")
    return stages


def run_pipe(command: str) -> bytes:
    """What the last stage of a command line writes; the first one reads nothing.

    Raises:
      PipeError: the command line is malformed, a program is missing, or a stage failed.
    """
    stages, processes = split_pipe(command), list[subprocess.Popen[bytes]]()
    with tempfile.TemporaryFile() as messages:
        try:
            for words in stages:
                before = processes[-1].stdout if processes else subprocess.DEVNULL
                processes.append(subprocess.Popen(words, stdin=before, stdout=subprocess.PIPE, stderr=messages))
                if processes[:-1] and processes[-2].stdout:
                    processes[-2].stdout.close()  # so that it ends when the next stage does
            output = processes[-1].communicate()[0]
        except OSError as error:
            raise PipeError(
                f"the command '{command}' cannot be run: {words[0]}: {error.strerror}; install it or correct the line"
            ) from None
        finally:
            _end(processes)
        for number, (words, process) in enumerate(zip(stages, processes), 1):
            last = number == len(stages)
            if process.returncode and (last or process.returncode != _BROKEN_PIPE):
                raise PipeError(
                    f"the command '{command}' failed: {words[0]} ended with status {process.returncode}"
                    f"{_last_line(messages)}; try it in a terminal"
                )
    return output


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Waits for all stages; a killed run, or a later stage that is missing, ends the others."""
    for process in reversed(processes):
        if process.stdout and not process.stdout.closed:
            process.stdout.close()
            process.kill()
        process.wait()


def _last_line(messages: BinaryIO) -> str:
    messages.seek(0)
    lines = messages.read().decode(errors="replace").split("\n")
    return next((f" ({line.strip()[:200]})" for line in reversed(lines) if line.strip()), "")
