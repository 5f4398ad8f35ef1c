"""How a command runs: its options and process, its messages and log file, its seconds and memory, and how it fails."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import asr_kd
from asr_kd.decoding.registry import BACKENDS
from asr_kd.errors import UserError
from asr_kd.io.files import full_disk_is_an_error, replacing_file
from asr_kd.io.memory_meter import MemoryMeter
from asr_kd.kernels.process import choose_mkl_code_path, cpu_flags, disable_malloc_trim
from asr_kd.workspace.config import load_config
from asr_kd.workspace.executor import default_jobs
from asr_kd.workspace.run_options import RunOptions
from asr_kd.workspace.work import Workspace, default_root

_TRAINING = frozenset({"align", "train", "soft-targets"})  # commands that spend their time in batches of a net


class Commands(click.Group):
    """Turns a UserError into one sentence on standard error and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        choose_mkl_code_path(cpu_flags())  # before torch is loaded
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"asr-kd {ctx.invoked_subcommand}: {error}", err=True)
            ctx.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(asr_kd.__version__)
def main() -> None:
    """Distil an ensemble of acoustic models into one small model, and measure what it was worth.

    The commands are the stages of a recipe, in order: prepare, features, align, train --teachers, soft-targets, train,
    decode, report. Each resumes by itself and does nothing where its result exists already.
    """


def stage(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command on a recipe: adds --config and --work-dir, logs to a file, notes its seconds and its peak memory."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @click.option(
            "--config",
            "config_path",
            type=click.Path(path_type=Path),
            required=True,
            help="Settings of the recipe (YAML).",
        )
        @click.option(
            "--work-dir",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder that holds data/ and exp/  [default: the recipe's own: the folder above the config's conf/]",
        )
        @functools.wraps(function)
        def command(config_path: Path, work_dir: Path | None, **options: Any) -> None:
            config = load_config(config_path)
            work = Workspace(work_dir or default_root(config_path), config_path)
            if name in _TRAINING:
                disable_malloc_trim()
            with full_disk_is_an_error(work.root), _logging(work, name), MemoryMeter() as meter:
                started = time.monotonic()
                results = function(config, work, **options)
                results = results if isinstance(results, list) else [results]
                for result in results:
                    click.echo(str(result))
                if any(getattr(result, "ran", False) for result in results):
                    key = _key(name, options)
                    _note(work.exp("seconds.json"), key, round(time.monotonic() - started, 2))
                    _note(work.exp("memory.json"), key, meter.peak)

        return main.command(name)(command)

    return decorate


def nj_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--nj", type=click.IntRange(1), default=default_jobs, help="Processes.  [default: all cores]")(
        function
    )


def decoder_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--decoder", metavar="NAME", help=f"{' or '.join(BACKENDS)}  [default: the first of them that is installed]"
    )(function)


def executor_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--executor", default="processes", help="'processes', or the address of a Dask scheduler (tcp://host:8786)."
    )(function)


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --device and --tensorboard; the command gets them as one `RunOptions`, called `options`."""

    @click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
    @click.option("--tensorboard", type=click.Path(path_type=Path), help="Also write TensorBoard logs here.")
    @functools.wraps(function)
    def command(*arguments: Any, device: str, tensorboard: Path | None, **others: Any) -> Any:
        return function(*arguments, options=RunOptions(device, tensorboard), **others)

    return command


def absolute_file(context: click.Context, parameter: click.Parameter, value: Path | None) -> str | None:
    """Absolute: in a config a name is relative to the config's folder, on the command line to the current one."""
    return None if value is None else str(value.absolute())


def sets_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--set and --dev-speakers, for `asr_kd.workspace.sets.with_parts`."""
    function = click.option(
        "--dev-speakers", type=click.IntRange(0), help="LibriSpeech, TIMIT: take so many training speakers for dev."
    )(function)
    return click.option(
        "--set",
        "parts",
        multiple=True,
        metavar="NAME=PART,PART",
        callback=lambda context, parameter, values: dict(parts_of_set(value) for value in values),
        help="Other parts for this set of the config; may be repeated.",
    )(function)


def parts_of_set(value: str) -> tuple[str, tuple[str, ...]]:
    """The words of --set and --add-set.

    >>> parts_of_set("dev=dev-clean,dev-other")
    ('dev', ('dev-clean', 'dev-other'))
    """
    name, equals, parts = value.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"expected NAME=PART,PART, not {value!r}.")
    return name, tuple(parts.replace(",", " ").split())


class _LogFile(logging.FileHandler):
    """A copy of the messages on the terminal. It ignores a full disk, which the stage itself reports."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


class _logging:
    """Messages to standard error and to exp/log/<stage>.log while a stage runs."""

    def __init__(self, work: Workspace, name: str) -> None:
        self._file = work.exp("log") / f"{name}.log"

    def __enter__(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._handlers: list[logging.Handler] = [logging.StreamHandler(), _LogFile(self._file)]
        package = logging.getLogger("asr_kd")
        package.setLevel(logging.INFO)
        for handler in self._handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
            package.addHandler(handler)

    def __exit__(self, *exception: object) -> None:
        for handler in self._handlers:
            logging.getLogger("asr_kd").removeHandler(handler)
            handler.close()


def _key(name: str, options: dict[str, Any]) -> str:
    """The name under which a stage's seconds are noted, such as "train --teachers": parts of a stage have their own."""
    flags = [f"--{option.replace('_', '-')}" for option in ("teachers", "rescore_lm") if options.get(option)]
    systems = options.get("systems") or () if name == "train" else ()
    return " ".join([name, *flags, *systems])


def _note(path: Path, name: str, number: float) -> None:
    noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(noted | {name: number}, indent=1) + "\n", encoding="utf-8")
