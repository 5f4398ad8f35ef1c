"""How a command runs: its options and process, its messages and log file, its seconds and memory, and how it fails."""

from __future__ import annotations

import codecs
import contextlib
import errno
import functools
import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import asr_kd
from asr_kd.errors import UserError, first_line, is_out_of_memory, printable
from asr_kd.io.cores import Threads, choose_threads
from asr_kd.io.files import full_disk_is_an_error, read_json, write_json
from asr_kd.io.locks import locked
from asr_kd.io.resources import MemoryMeter
from asr_kd.io.torchrun import torchrun
from asr_kd.kernels.process import choose_mkl_code_path, cpu_flags, disable_malloc_trim
from asr_kd.options import PATH
from asr_kd.workspace.config_files import load_config
from asr_kd.workspace.work import Workspace, default_root

log = logging.getLogger(__name__)


_TRAINING = frozenset({"align", "train", "soft-targets", "sweep"})  # commands that spend their time in batches of a net
# commands that leave the work folder as it is
_READING = frozenset({"plan", "export", "export-posteriors"})
_MOVE = "there is a file where a folder belongs, or the reverse: move it away, or give another name"
_RIGHTS = "change the rights of the file or folder, or give another one"
_ADVICE = {
    errno.ENOTDIR: _MOVE, errno.EISDIR: _MOVE, errno.EEXIST: _MOVE, errno.EACCES: _RIGHTS, errno.EPERM: _RIGHTS,
    errno.EROFS: "give a folder on another disk", errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "links lead in a circle there: delete one of them",
}  # fmt: skip
_SMALLER = (
    "lower width, layers, members, batch_size or the context of the networks in the config, or the number of helpers "
    "(--nj)"
)


# what --help lists, in this order, and an example of each command
EXAMPLES = {
    "Before the first recipe": {
        "doctor": "asr-kd doctor",
        "new": "asr-kd new mine --corpus folder --language uk --corpus-dir speech",
        "config": "asr-kd config --show --config mine/conf/config.yaml",
        "plan": "asr-kd plan --config mine/conf/config.yaml",
    },
    "The stages of a recipe": {
        "download": "asr-kd download --config recipes/librispeech/conf/clean100.yaml --lexicon",
        "prepare": "asr-kd prepare --config mine/conf/config.yaml --corpus-dir speech",
        "features": "asr-kd features --config mine/conf/config.yaml",
        "align": "asr-kd align --config mine/conf/config.yaml",
        "train": "asr-kd train direct distilled --config mine/conf/config.yaml",
        "soft-targets": "asr-kd soft-targets --config mine/conf/config.yaml",
        "decode": "asr-kd decode --system distilled --set dev --config mine/conf/config.yaml",
        "report": "asr-kd report --config mine/conf/config.yaml",
    },
    "What a trained system is for": {
        "export": "asr-kd export distilled recogniser --format recogniser --config mine/conf/config.yaml",
        "transcribe": "asr-kd transcribe --model recogniser --format srt talk.mp3",
        "serve": "asr-kd serve recogniser",
        "export-posteriors": "asr-kd export-posteriors distilled posteriors --config mine/conf/config.yaml",
        "sweep": "asr-kd sweep --grid systems.distilled.targets.temperature=1,2 "
        "--grid systems.distilled.targets.soft_weight=0.5,0.9 --config mine/conf/config.yaml",
    },
}


class Commands(click.Group):
    """Turns a UserError, and a file or folder that is not what it should be, into one sentence and exit status 2."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, in groups."""
        for title, group in EXAMPLES.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in group])

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Adds a command as click does, and ends the command's help with its example."""
        super().add_command(cmd, name)
        for group in EXAMPLES.values():
            if example := group.get(name or cmd.name or ""):
                cmd.epilog = f"Example: {example}"

    def main(self, *arguments: Any, **options: Any) -> Any:
        write_any_text()
        return super().main(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        choose_mkl_code_path(cpu_flags())  # before torch is loaded
        try:
            return super().invoke(ctx)
        except UserError as error:
            sentence = str(error)
        except OSError as error:
            place = error.filename2 or error.filename
            if error.errno not in _ADVICE or place is None:
                raise
            sentence = f"{place}: {error.strerror}; {_ADVICE[error.errno]}."
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            sentence = f"there is not enough memory ({first_line(error)}); {_SMALLER}."
        rank = os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"
        process = "" if rank == "0" else f", process {rank} of torchrun"
        click.echo(f"asr-kd {ctx.invoked_subcommand}{process}: {printable(sentence)}", err=True)
        ctx.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(asr_kd.__version__)
def main() -> None:
    """Distil an ensemble of acoustic models into one small model, and measure what it was worth.

    A recipe's run.sh runs its stages in order. Each resumes by itself and does nothing where its result exists already.
    COMMAND --help lists the options, and ends with an example.
    """


def write_any_text() -> None:
    """Makes standard output and error escape what they cannot write: a word or a name must not end a command.

    ASCII, which a locale without a language has, is written as UTF-8, as click does.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if ascii_only else None, errors="backslashreplace")


def stage(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command on a recipe: adds --config and --work-dir, logs to a file, notes its seconds and its peak memory.

    No two commands that write run in one work folder at once.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @click.option("--config", "config_path", type=PATH, required=True, help="Settings of the recipe (YAML).")
        @click.option(
            "--work-dir",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder that holds data/ and exp/  [default: the recipe's own: the folder above the config's conf/]",
        )
        @functools.wraps(function)
        def command(config_path: Path, work_dir: Path | None, threads: int | None = None, **options: Any) -> None:
            rank, world, *_ = torchrun()
            if world > 1 and name != "train":
                raise UserError(f"torchrun is for train; run {name} once, without it.")
            given = choose_threads(threads) if name in _TRAINING else Threads(follow_load=False)
            if name == "train":
                options["follow_load"] = given.follow_load
            config = load_config(config_path)
            work = Workspace(work_dir or default_root(config_path), config_path)
            if name in _TRAINING:
                disable_malloc_trim()
            if printable(root := str(work.root.absolute())) != root:  # safetensors cannot write there
                raise UserError(
                    f"{root}: the name of the work folder is not UTF-8; rename it, or give another --work-dir."
                )
            for folder in (work.root, work.data, work.exp("")):
                if folder.exists() and not folder.is_dir():
                    raise UserError(f"{folder} is a file, but a folder of this name belongs there; move the file away.")
            with (
                full_disk_is_an_error(work.root, *_written_by_libraries()),
                contextlib.nullcontext()
                if name in _READING or rank
                else _locked(work.exp(".lock"), name, shared=options.get("member") is not None),
                contextlib.nullcontext()
                if rank
                else _logging(work.exp("log") / f"{name}.log", optional=name in _READING),
                MemoryMeter() as meter,
            ):
                started = time.monotonic()
                if given.remark:
                    log.warning("%s", given.remark)
                results = function(config, work, **options)
                if rank:  # the first process speaks for all
                    return
                results = results if isinstance(results, list) else [results]
                for result in results:
                    click.echo(str(result))
                whole = name not in _READING and options.get("member") is None and not options.get("merge")
                if whole and any(getattr(result, "ran", False) for result in results):
                    key = _key(name, options)
                    _note(work.exp("seconds.json"), key, round(time.monotonic() - started, 2))
                    _note(work.exp("memory.json"), key, meter.peak)

        if name in _TRAINING:
            threads = "Threads of a net.  [default: OMP_NUM_THREADS, or the cores that no other program keeps busy]"
            command = click.option("--threads", type=click.IntRange(1), help=threads)(command)
        return main.command(name)(command)

    return decorate


def _written_by_libraries() -> list[Path]:
    """Folders that may be full instead of the work folder: temporary files, shared memory, what numba compiled."""
    compiled = os.environ.get("NUMBA_CACHE_DIR") or Path(asr_kd.__file__).parent
    return [Path(os.environ.get("TMPDIR") or "/tmp"), Path("/dev/shm"), Path(compiled)]


@contextlib.contextmanager
def _locked(file: Path, name: str, *, shared: bool = False) -> Iterator[None]:
    """Holds the lock of a work folder for a command.

    Args:
      shared: with others that share it: members of systems may be trained at once.

    Raises:
      UserError: another command holds it.
    """

    def refusal(holder: str) -> str:
        return (
            f"another command is writing in {file.parents[1]} ({holder}); wait until it has ended, or use another "
            "--work-dir."
        )

    with locked(file, f"asr-kd {name}", refusal, shared=shared):
        yield


class _LogFile(logging.FileHandler):
    """A copy of the messages on the terminal. It ignores a full disk, which the stage itself reports."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _logging(file: Path, *, optional: bool) -> Iterator[None]:
    """Messages to standard error and to a file.

    Args:
      optional: go on without the file where it cannot be written, as on a read-only disk.
    """
    handlers: list[logging.Handler] = []
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_LogFile(file, encoding="utf-8", errors="backslashreplace"))
    except OSError:
        if not optional:
            raise
    with messages(*handlers):
        yield


@contextlib.contextmanager
def messages(*more: logging.Handler) -> Iterator[None]:
    """Messages of the package to standard error and to other handlers, which are closed."""
    handlers = [logging.StreamHandler(), *more]
    package = logging.getLogger("asr_kd")
    package.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        package.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            package.removeHandler(handler)
            handler.close()


def _key(name: str, options: dict[str, Any]) -> str:
    """The name under which a stage's seconds are noted, such as "train --teachers": parts of a stage have their own."""
    flags = [f"--{option.replace('_', '-')}" for option in ("teachers", "rescore_lm") if options.get(option)]
    systems = options.get("systems") or () if name == "train" else ()
    return " ".join([name, *flags, *systems])


def _note(path: Path, name: str, number: float) -> None:
    advice = "delete it: only what earlier commands noted for the report is lost."
    noted = read_json(path, dict, advice) if path.exists() else {}
    write_json(path, noted | {name: number})
