"""The commands: they parse, call a room of the package and print what it returns; no logic lives here."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import asr_kd
from asr_kd.artifacts import Work, default_root, full_disk_is_an_error, replacing_file
from asr_kd.config import Config, load_config, with_settings
from asr_kd.errors import UserError
from asr_kd.parallel import default_nj


class Commands(click.Group):
    """Turns a UserError into one sentence on standard error and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"asr-kd {ctx.invoked_subcommand}: {error}", err=True)
            ctx.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(asr_kd.__version__)
def main() -> None:
    """Distil an ensemble of acoustic models into one small model, and measure what it was worth.

    The commands are the stages of a recipe, in order: prepare, features, align, train --ensemble, soft-targets,
    train, distill, decode, report. Each resumes by itself and does nothing where its result is already there.
    """


def stage(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command on a recipe: adds --config and --work-dir, logs to a file, notes the seconds it took."""

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
            work = Work(work_dir or default_root(config_path), config_path)
            with full_disk_is_an_error(work.root), _logging(work, name):
                started = time.monotonic()
                results = function(config, work, **options)
                results = results if isinstance(results, list) else [results]
                for result in results:
                    click.echo(str(result))
                if any(getattr(result, "made", False) for result in results):
                    _note_seconds(work, _key(name, options), time.monotonic() - started)

        return main.command(name.split(" ")[0])(command)

    return decorate


def nj_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--nj", type=click.IntRange(1), default=default_nj, help="Processes.  [default: all cores]")(
        function
    )


def executor_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--executor", default="processes", help="'processes', or the address of a Dask scheduler (tcp://host:8786)."
    )(function)


def device_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option("--tensorboard", type=click.Path(path_type=Path), help="Also write TensorBoard logs here.")(
        function
    )
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")(function)


def _names(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """ "a,b c" -> ["a", "b", "c"]."""
    return None if value is None else value.replace(",", " ").split()


def _file(context: click.Context, parameter: click.Parameter, value: Path | None) -> str | None:
    """Absolute: in a config a name is relative to the config's folder, on the command line to the current one."""
    return None if value is None else str(value.absolute())


def parts_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name, meaning in (
        ("test", "that are scored"),
        ("dev", "that settings are chosen on; may be ''"),
        ("train", "to train on, with commas between"),
    ):
        function = click.option(f"--{name}-parts", callback=_names, help=f"LibriSpeech: the parts {meaning}.")(function)
    return function


@stage("download")
@parts_options
@click.option("--lexicon", is_flag=True, help="Also OpenSLR's lexicon.")
@click.option("--lm", "language_models", multiple=True, help="Also this language model of OpenSLR's; may be repeated.")
def download(config: Config, work: Work, lexicon: bool, language_models: tuple[str, ...], **parts: Any) -> Any:
    """Stage 0 of LibriSpeech: the parts that the config names, from OpenSLR, into WORK_DIR/download."""
    from asr_kd.corpora.openslr import download_librispeech

    corpus = with_settings(config, {f"corpus.{name}": value for name, value in parts.items()}).corpus
    wanted = dict.fromkeys((*corpus.train_parts, *corpus.dev_parts, *corpus.test_parts))
    return download_librispeech(work.root / "download", list(wanted), lexicon=lexicon, language_models=language_models)


@stage("prepare")
@click.option("--corpus-dir", type=click.Path(path_type=Path), required=True, help="The corpus as stage 0 left it.")
@click.option(
    "--on-bad-utterance",
    type=click.Choice(["fail", "skip"]),
    help="What to do with an utterance that cannot be used  [default, here and below: the config's]",
)
@parts_options
@click.option("--dev-speakers", type=int, help="LibriSpeech: take so many training speakers for dev.")
@click.option("--lexicon", type=click.Path(path_type=Path), callback=_file, help="WORD PH1 PH2 ... lines.")
@click.option("--lm", type=click.Path(path_type=Path), callback=_file, help="An ARPA file to decode with.")
@click.option("--lm-text", type=click.Path(path_type=Path), callback=_file, help="Sentences to estimate one from.")
@nj_option
def prepare(config: Config, work: Work, corpus_dir: Path, nj: int, **settings: Any) -> Any:
    """Stage 1: corpus -> lhotse cuts, lexicon, language model."""
    from asr_kd.corpora import prepare as run

    rooms = {name: "lang" if name in ("lexicon", "lm", "lm_text") else "corpus" for name in settings}
    config = with_settings(config, {f"{rooms[name]}.{name}": value for name, value in settings.items()})
    return run(config, work, corpus_dir=corpus_dir, nj=nj)


@stage("features")
@nj_option
@executor_option
def features(config: Config, work: Work, nj: int, executor: str) -> Any:
    """Stage 2: cuts -> FrameStores of log-mel filterbanks."""
    from asr_kd.frames.stage import make_features as run

    return run(config, work, nj=nj, executor=executor)


@stage("align")
@nj_option
@click.option("--export", "export_format", type=click.Choice(["textgrid", "ctm"]), help="Only write times of words.")
@click.option(
    "--compare", "compare_form", type=click.Choice(["textgrid"]), help="Only hold the times against other files' times."
)
@click.argument("directory", type=click.Path(path_type=Path), required=False)
def align(
    config: Config, work: Work, nj: int, export_format: str | None, compare_form: str | None, directory: Path | None
) -> Any:
    """Stage 3: the tied state of every frame.

    With --export FORMAT DIRECTORY: word and phone times of the finished alignment, for Praat (textgrid) or NIST tools
    (ctm). With --compare FORMAT DIRECTORY: how far they are from those of the files below DIRECTORY.
    """
    if compare_form is not None:
        from asr_kd.alignment.compare import compare

        return compare(work, compare_form, _needed(directory))
    if export_format is not None:
        from asr_kd.alignment.export import export

        return f"{export(work, export_format, _needed(directory))} utterances exported to {directory}"
    from asr_kd.alignment.stage import align as run

    def net(*arguments: Any) -> Any:
        from asr_kd.acoustic.classifier import NetClassifier  # here: a finished stage needs no torch

        return NetClassifier(*arguments)

    return run(config, work, net, nj=nj)


def _needed(directory: Path | None) -> Path:
    if directory is None:
        raise UserError("--export and --compare need a folder: add its name at the end.")
    return directory


@stage("train")
@click.option(
    "--ensemble",
    type=click.IntRange(0),
    is_flag=False,
    flag_value=0,
    metavar="[N]",
    help="Train N teachers (without N: the config's), instead of direct models.",
)
@click.option(
    "--pair",
    "pairs",
    multiple=True,
    type=click.Choice(["student", "small", "monophone"]),
    help="Which direct models to train; may be given again  [default: all that the config has]",
)
@device_options
def train(
    config: Config, work: Work, ensemble: int | None, pairs: tuple[str, ...], device: str, tensorboard: Path | None
) -> Any:
    """Stage 4 with --ensemble N: the teachers. Stage 6 without: models trained directly on the alignment."""
    from asr_kd.acoustic.options import RunOptions
    from asr_kd.acoustic.stage import train_direct, train_ensemble, train_monophone

    options = RunOptions(device, tensorboard)
    if ensemble is not None:
        return train_ensemble(config, work, options, ensemble or None)
    chosen = pairs or _pairs(config) + (("monophone",) if config.monophone else ())
    return [
        train_monophone(config, work, options) if pair == "monophone" else train_direct(config, work, options, pair)
        for pair in chosen
    ]


@stage("soft-targets")
@device_options
def soft_targets(config: Config, work: Work, device: str, tensorboard: Path | None) -> Any:
    """Stage 5: the ensemble's mean distribution at temperature T for every training frame."""
    from asr_kd.acoustic.options import RunOptions
    from asr_kd.distillation.stage import make_soft_targets

    return make_soft_targets(config, work, RunOptions(device, tensorboard))


@stage("distill")
@click.option("--online", is_flag=True, help="Run the teachers beside the student instead of reading a store.")
@click.option("--pair", "pairs", multiple=True, type=click.Choice(["student", "small"]), help="[default: all]")
@device_options
def distill(
    config: Config, work: Work, online: bool, pairs: tuple[str, ...], device: str, tensorboard: Path | None
) -> Any:
    """Stage 6: students that learn from the soft targets."""
    from asr_kd.acoustic.options import RunOptions
    from asr_kd.distillation.stage import distill as run

    options = RunOptions(device, tensorboard)
    return [run(config, work, options, pair, online=online) for pair in pairs or _pairs(config)]


@stage("decode")
@click.option("--system", "systems", multiple=True, help="direct, ensemble, distilled, ...  [default: all trained]")
@click.option("--set", "sets", multiple=True, default=("dev", "test"), show_default=True)
@click.option("--decoder", type=click.Choice(["k2", "kaldi"]), default="k2", show_default=True)
@nj_option
def decode(config: Config, work: Work, systems: tuple[str, ...], sets: tuple[str, ...], decoder: str, nj: int) -> Any:
    """Stage 7: graph; scales chosen on dev; words of dev and test."""
    from asr_kd.decoding.stage import decode as run

    return run(config, work, systems=systems or None, sets=sets, backend=decoder, nj=nj)


@stage("transcribe")
@click.option(
    "--system", default="distilled", show_default=True, help="Which model answers; of several seeds the first."
)
@click.option("--decoder", type=click.Choice(["k2", "kaldi"]), default="k2", show_default=True)
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path))
def transcribe(config: Config, work: Work, system: str, decoder: str, recordings: tuple[Path, ...]) -> Any:
    """The words of own RECORDINGS (WAV or FLAC, one channel, the config's sampling rate), one line each."""
    from asr_kd.decoding.transcribe import transcribe as run

    return [f"{path}\t{words}" for path, words in run(config, work, system, recordings, backend=decoder)]


@stage("report")
@click.option("--mnist", "mnist_root", type=click.Path(path_type=Path), help="Results of asr-kd mnist, for a section.")
def report(config: Config, work: Work, mnist_root: Path | None) -> Any:
    """Stage 8: tables and figures of the whole run in exp/report/."""
    from asr_kd.evaluation.report import report as run

    if mnist_root is None:
        return run(config, work)
    from asr_kd.mnist.stage import sanity

    return run(config, work, sanity(mnist_root))


@stage("plan")
@click.option(
    "--gpu-tflops",
    type=click.FloatRange(0, min_open=True),
    default=312.0,
    show_default=True,
    help="Peak speed of the GPU whose hours are given; an A100's in bf16 is the default.",
)
def plan(config: Config, work: Work, gpu_tflops: float) -> Any:
    """What this config will take, before any of it is run: frames, FLOPs, disk, memory, and hours here and on GPUs."""
    from asr_kd.plan import plan as run

    return run(config, work, gpu_tflops=gpu_tflops)


@stage("sweep")
@click.option("--grid", "entries", multiple=True, required=True, help="KEY=VALUE,VALUE,...; may be given again.")
@click.option("--name", help="Folder in exp/sweep  [default: the keys]")
@click.option("--system", "systems", multiple=True, default=("distilled",), show_default=True, help="May be repeated.")
@click.option("--decode", "sets", multiple=True, type=click.Choice(["dev", "test"]), help="Also the words of this set.")
@click.option("--decoder", type=click.Choice(["k2", "kaldi"]), default="k2", show_default=True)
@click.option("--nj", type=click.IntRange(1), default=1, show_default=True, help="Points that run at once.")
@device_options
def sweep(
    config: Config,
    work: Work,
    entries: tuple[str, ...],
    name: str | None,
    systems: tuple[str, ...],
    sets: tuple[str, ...],
    decoder: str,
    nj: int,
    device: str,
    tensorboard: Path | None,
) -> Any:
    """Train systems at every point of a grid over the config's keys; one table, one figure; goes on where it stopped.

    For example --grid soft_targets.temperature=1,2,5 --grid student.distilled.soft_weight=0.5,0.9
    """
    from asr_kd.acoustic.options import RunOptions
    from asr_kd.evaluation.sweep import parse_grid
    from asr_kd.evaluation.sweep import sweep as run

    options = RunOptions(device, tensorboard, quiet=nj > 1)
    return run(
        config, work, parse_grid(entries), options, name=name, systems=systems, sets=sets, backend=decoder, nj=nj
    )


@stage("fewshot")
@device_options
def fewshot(config: Config, work: Work, device: str, tensorboard: Path | None) -> Any:
    """A share of the training data (the config's `few`) on hard and on soft targets, against all data on hard ones."""
    from asr_kd.acoustic.options import RunOptions
    from asr_kd.evaluation.fewshot import fewshot as run

    return run(config, work, RunOptions(device, tensorboard))


@main.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), required=True, help="Settings (YAML).")
@click.option("--work-dir", type=click.Path(path_type=Path, file_okay=False), help="[default: as for the stages]")
@click.option("--mnist-dir", type=click.Path(path_type=Path), help="The four files  [default: WORK_DIR/download]")
@click.option("--experiment", "only", multiple=True, help="Run this one; may be given again  [default: the config's]")
@device_options
def mnist(
    config_path: Path,
    work_dir: Path | None,
    mnist_dir: Path | None,
    only: tuple[str, ...],
    device: str,
    tensorboard: Path | None,
) -> None:
    """The paper's MNIST experiments, through the loss and the loop that speech uses."""
    from asr_kd.acoustic.options import RunOptions
    from asr_kd.mnist.config import load_mnist_config
    from asr_kd.mnist.report import write_report
    from asr_kd.mnist.stage import known_results, run

    config = load_mnist_config(config_path)
    work = Work(work_dir or default_root(config_path), config_path)
    with full_disk_is_an_error(work.root), _logging(work, "mnist"):
        root = work.exp(config_path.stem)
        click.echo(str(run(config, root, mnist_dir or work.root / "download", RunOptions(device, tensorboard), only)))
        click.echo(write_report(config, root, known_results(root, config), [f"asr-kd mnist --config {config_path}"]))


@main.command()
def doctor() -> None:
    """Check this installation; say how to mend what is missing."""
    from asr_kd.doctor import diagnose

    text, healthy = diagnose()
    click.echo(text)
    sys.exit(0 if healthy else 1)


def _pairs(config: Config) -> tuple[str, ...]:
    return ("student", "small") if config.small is not None else ("student",)


class _LogFile(logging.FileHandler):
    """A copy of what stands on the terminal: where the disk is full it falls silent, the stage itself says why."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


class _logging:
    """Messages to standard error and to exp/log/<stage>.log while a stage runs."""

    def __init__(self, work: Work, name: str) -> None:
        self._file = work.exp("log") / f"{name.replace(' ', '-')}.log"

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
    """The name under which a stage's seconds are noted: parts of a stage that are called apart have their own."""
    if options.get("ensemble") is not None:
        return f"{name} --ensemble"
    return " ".join([name, *(f"--pair {pair}" for pair in options.get("pairs", ()))])


def _note_seconds(work: Work, name: str, seconds: float) -> None:
    path = work.exp("seconds.json")
    noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(noted | {name: round(seconds, 2)}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
