"""Where encoded audio comes from: a file, a part of a tar archive, a command, or what lhotse alone can read."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from asr_kd.corpora.pipes import PipeError, run_pipe
from asr_kd.errors import UserError


class BadAudio(Exception):
    """Why a recording cannot be used, and what to do."""


@dataclass(frozen=True)
class TarMember:
    """A file inside a tar archive, which is not compressed."""

    tar: Path
    offset: int  # of its first byte
    size: int  # bytes

    @property
    def place(self) -> str:
        """What tells it from others of the same files."""
        return f"{self.offset}:{self.size}"

    def __str__(self) -> str:
        return f"{self.tar} (from byte {self.offset})"


@dataclass(frozen=True)
class Pipe:
    """A command that writes audio to its standard output, as a line of Kaldi's wav.scp has it, without the last "|".

    It is run only where the user said so: see `asr_kd.corpora.pipes`.
    """

    command: str

    @property
    def place(self) -> str:
        return self.command

    def __str__(self) -> str:
        return f"the output of '{self.command}'"


@dataclass(frozen=True)
class LhotseRecording:
    """A recording that lhotse changes while it reads it, or that it reads from the net."""

    manifest: str  # JSON; the names of files are absolute

    @property
    def place(self) -> str:
        return self.manifest

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.manifest)
        return data

    def __str__(self) -> str:
        return ", ".join(str(source["source"]) for source in self.data["sources"])


def allowed_pipe(command: str, allowed: bool, where: str) -> Pipe:
    """A command, if the user allows commands; `where` begins the sentence of the UserError that is raised if not."""
    if not allowed:
        raise UserError(
            f"{where} is the output of a command ({command}); such commands are run only with --allow-pipes, and by no "
            "shell: give the option if you trust them, or convert the recording to a file."
        )
    return Pipe(command)


Encoded: TypeAlias = Path | TarMember | Pipe  # bytes that libsndfile decodes
Source: TypeAlias = Encoded | LhotseRecording


def files_of(source: Source) -> Sequence[Path]:
    """The files that a source is read from."""
    if isinstance(source, Path):
        return [source]
    if isinstance(source, TarMember):
        return [source.tar]
    if isinstance(source, LhotseRecording):
        return [Path(entry["source"]) for entry in source.data["sources"] if entry["type"] == "file"]
    return []


@contextlib.contextmanager
def open_source(source: Encoded) -> Iterator[BinaryIO]:
    """The encoded audio, open at its beginning, to be sought in; pipes and devices are read to their end first.

    Raises:
      BadAudio: it is missing or cannot be read, or the command failed; also where the block raises OSError.
    """
    try:
        if isinstance(source, Pipe):
            yield io.BytesIO(run_pipe(source.command))
        elif isinstance(source, TarMember):
            with source.tar.open("rb") as archive:
                archive.seek(source.offset)
                yield io.BytesIO(archive.read(source.size))
        else:
            with source.open("rb") as file:
                # soundfile takes .raw to mean that there is no header
                plain = source.is_file() and source.suffix.lower() != ".raw"
                yield file if plain else io.BytesIO(file.read())
    except PipeError as error:
        raise BadAudio(str(error)) from None
    except FileNotFoundError:
        raise BadAudio(f"{source} is missing; put it there, or leave it out") from None
    except IsADirectoryError:
        raise BadAudio(f"{source} is a folder; name the recordings in it") from None
    except OSError as error:
        raise BadAudio(f"{source} cannot be read ({error.strerror}); check the file's rights") from None
