"""Options that several commands share, and how their words are read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click

from asr_kd.decoding.settings import BACKENDS
from asr_kd.errors import UserError
from asr_kd.io.torchrun import torchrun
from asr_kd.workspace.config import Config
from asr_kd.workspace.executor import RunOptions, running_on
from asr_kd.workspace.work import Workspace

PATH = click.Path(path_type=Path)  # of options and arguments


def nj_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --nj, --executor and --executor-config; the command gets how many shards run at once, as `nj`."""

    @click.option(
        "--nj",
        type=click.IntRange(1),
        help="Processes, or workers of a queue.  [default: all cores, as far as memory goes]",
    )
    @click.option(
        "--executor",
        default="processes",
        envvar="ASR_KD_EXECUTOR",
        metavar="WHERE",
        help="processes[:N], dask:tcp://HOST:8786 or dask:QUEUE, such as dask:slurm.  [default: processes]",
    )
    @click.option(
        "--executor-config",
        type=PATH,
        envvar="ASR_KD_EXECUTOR_CONFIG",
        help="YAML: options of a queue's workers.",
    )
    @functools.wraps(function)
    def command(
        config: Config,
        work: Workspace,
        nj: int | None,
        executor: str,
        executor_config: Path | None,
        **options: Any,
    ) -> Any:
        if options.get("member") is not None or torchrun().world > 1:  # these train here
            executor, executor_config = "processes", None
        with running_on(executor, executor_config, work.root, nj) as at_once:
            return function(config, work, nj=at_once, **options)

    return command


def pipes_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--allow-pipes", is_flag=True, help="Run the commands that wav.scp or cuts name for audio; no shell reads them."
    )(function)


def decoder_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--decoder", metavar="NAME", help=f"{' or '.join(BACKENDS)}  [default: the first of them that is installed]"
    )(function)


def old_option(name: str, advice: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option of an earlier version, with a value or without: who gives it gets a sentence with the new way."""

    def refuse(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is not None:
            raise UserError(f"{name} is gone: {advice}.")

    return click.option(
        name, is_flag=False, flag_value="", default=None, hidden=True, expose_value=False, callback=refuse
    )


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --device and --tensorboard; the command gets them as one `RunOptions`, called `options`."""

    @click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
    @click.option("--tensorboard", type=PATH, help="Also write TensorBoard logs here.")
    @functools.wraps(function)
    def command(
        *arguments: Any, device: str, tensorboard: Path | None, follow_load: bool = False, **others: Any
    ) -> Any:
        return function(*arguments, options=RunOptions(device, tensorboard, follow_load=follow_load), **others)

    return command


def absolute_file(context: click.Context, parameter: click.Parameter, value: Path | None) -> str | None:
    """Absolute: in a config a name is relative to the config's folder, on the command line to the current one."""
    return None if value is None else str(value.absolute())


class OtherSets(NamedTuple):
    """What --set and --dev-speakers say, the arguments of `asr_kd.workspace.sets.with_parts`."""

    parts: dict[str, tuple[str, ...]]
    dev_speakers: int | None

    @property
    def given(self) -> bool:
        return bool(self.parts) or self.dev_speakers is not None


def sets_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--set and --dev-speakers, together as the argument `sets`."""

    @functools.wraps(function)
    def with_sets(*arguments: Any, parts: dict[str, tuple[str, ...]], dev_speakers: int | None, **options: Any) -> Any:
        return function(*arguments, sets=OtherSets(parts, dev_speakers), **options)

    speakers = click.option("--dev-speakers", type=click.IntRange(0), help="Take so many training speakers for dev.")
    return click.option(
        "--set",
        "parts",
        multiple=True,
        metavar="NAME=PART,PART",
        callback=lambda context, parameter, values: dict(parts_of_set(value) for value in values),
        help="Other parts for this set of the config; may be repeated.",
    )(speakers(with_sets))


def parts_of_set(value: str) -> tuple[str, tuple[str, ...]]:
    """The words of --set and --add-set.

    >>> parts_of_set("dev=dev-clean,dev-other")
    ('dev', ('dev-clean', 'dev-other'))
    """
    name, equals, parts = value.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"expected NAME=PART,PART, not {value!r}.")
    return name, tuple(parts.replace(",", " ").split())


def numbers_of_workers(value: str) -> list[int]:
    """The words of --workers.

    >>> numbers_of_workers("1,4,16")
    [1, 4, 16]
    """
    numbers = value.split(",")
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise click.BadParameter(f"expected whole numbers of at least 1, such as 1,4,16, not {value!r}.")
    return [int(number) for number in numbers]
