"""The commands on a recipe: they parse, call the package and print what it returns; no logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import asr_kd.exporting
import asr_kd.standalone  # noqa: F401
from asr_kd.commands import main, stage
from asr_kd.decoding.settings import BACKENDS, chosen_backend
from asr_kd.errors import UserError
from asr_kd.io.torchrun import torchrun
from asr_kd.options import (
    PATH,
    OtherSets,
    absolute_file,
    decoder_option,
    nj_option,
    numbers_of_workers,
    old_option,
    parts_of_set,
    pipes_option,
    run_options,
    sets_options,
)
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import load_config, with_settings
from asr_kd.workspace.executor import RunOptions
from asr_kd.workspace.work import Workspace, default_root

_BY_SET = "name the parts of each set with --set NAME=PART,PART"


@stage("download")
@sets_options
@click.option("--no-corpus", is_flag=True, help="Only what --lexicon and --lm name.")
@click.option("--lexicon", is_flag=True, help="Also OpenSLR's lexicon.")
@click.option("--lm", "language_models", multiple=True, help="Also this language model of OpenSLR's; may be repeated.")
def download(
    config: Config,
    work: Workspace,
    sets: OtherSets,
    no_corpus: bool,
    lexicon: bool,
    language_models: tuple[str, ...],
) -> Any:
    """Stage 0 of LibriSpeech: the parts of the config's sets, from OpenSLR, into WORK_DIR/download."""
    from asr_kd.corpora.openslr import download_librispeech
    from asr_kd.workspace.sets import with_parts

    parts = {} if no_corpus else with_parts(config, *sets).sets
    names = dict.fromkeys(part for of_set in parts.values() for part in of_set)
    return download_librispeech(work.root / "download", list(names), lexicon=lexicon, language_models=language_models)


@stage("prepare")
@click.option(
    "--corpus-dir",
    type=PATH,
    help="The folder of the corpus  [default: the config's, where the parts of sets are files or folders there]",
)
@click.option(
    "--on-bad-utterance",
    type=click.Choice(["fail", "skip"]),
    help="What to do with an utterance that cannot be used  [default, here and below: the config's]",
)
@sets_options
@click.option("--test-speakers", type=int, help="TIMIT without TEST: take so many speakers for test.")
@click.option("--lexicon", type=PATH, callback=absolute_file, help="A lexicon: WORD PH1 PH2 ...")
@click.option("--lm", type=PATH, callback=absolute_file, help="An ARPA model to decode with.")
@click.option("--lm-text", type=PATH, callback=absolute_file, help="Sentences to estimate a model from.")
@click.option(
    "--add-set",
    "added",
    metavar="NAME=PART,PART",
    callback=lambda context, parameter, value: value and parts_of_set(value),
    help="Only add this test set to a prepared work folder; nothing that is there changes.",
)
@old_option("--train-parts", _BY_SET)
@old_option("--dev-parts", _BY_SET)
@old_option("--test-parts", _BY_SET)
@nj_option
@pipes_option
def prepare(
    config: Config,
    work: Workspace,
    corpus_dir: Path | None,
    sets: OtherSets,
    added: tuple[str, tuple[str, ...]] | None,
    nj: int,
    allow_pipes: bool,
    **settings: Any,
) -> Any:
    """Stage 1: corpus -> lhotse cuts, lexicon, language model."""
    from asr_kd.stages.check_utterances import corpus_folder
    from asr_kd.stages.prepare import add_set
    from asr_kd.stages.prepare import prepare as run
    from asr_kd.workspace.sets import with_parts

    corpus_dir = corpus_folder(config, work, corpus_dir)
    package = {name: "lang" if name in ("lexicon", "lm", "lm_text") else "corpus" for name in settings}
    config = with_settings(config, {f"{package[name]}.{name}": value for name, value in settings.items()})
    if added is not None:
        if sets.given:
            raise UserError(
                "--set and --dev-speakers do not go with --add-set, which changes no other set; leave them out (the "
                "config's corpus.dev_speakers counts)."
            )
        return add_set(config, work, *added, corpus_dir=corpus_dir, nj=nj, allow_pipes=allow_pipes)
    return run(with_parts(config, *sets), work, corpus_dir=corpus_dir, nj=nj, allow_pipes=allow_pipes)


@stage("features")
@nj_option
@pipes_option
def features(config: Config, work: Workspace, nj: int, allow_pipes: bool) -> Any:
    """Stage 2: cuts -> log-mel filterbanks, one FrameStore per set."""
    from asr_kd.stages.features import make_features as run

    return run(config, work, nj=nj, allow_pipes=allow_pipes)


@stage("align")
@nj_option
@click.option("--export", "export_format", type=click.Choice(["textgrid", "ctm"]), help="Only write the times.")
@click.option(
    "--compare",
    "compare_form",
    type=click.Choice(["textgrid", "timit"]),
    help="Only compare our times with those of files in this format.",
)
@click.argument("directory", type=PATH, required=False)
def align(
    config: Config,
    work: Workspace,
    nj: int,
    export_format: str | None,
    compare_form: str | None,
    directory: Path | None,
) -> Any:
    """Stage 3: the senone of every frame. Sets that are aligned already are skipped.

    With --export FORMAT DIRECTORY: word and phone times of the finished alignment, for Praat (textgrid) or NIST tools
    (ctm). With --compare FORMAT DIRECTORY: how far they are from those of the files below DIRECTORY.
    """
    if compare_form is not None and export_format is not None:
        raise UserError("--export and --compare exclude each other: run asr-kd align once with each.")
    if compare_form is not None:
        from asr_kd.stages.align_compare import compare

        return compare(config, work, compare_form, _needed(directory))
    if export_format is not None:
        from asr_kd.stages.finished_alignment import export

        return f"{export(config, work, export_format, _needed(directory))} utterances exported to {directory}"
    if directory is not None:
        raise UserError(f"{directory}: a folder is for --export and --compare; leave it out to align.")
    from asr_kd.stages.align import align as run
    from asr_kd.stages.current import check_features

    check_features(config, work)
    return run(config, work, nj=nj)


def _needed(directory: Path | None) -> Path:
    if directory is None:
        raise UserError("--export and --compare need a folder: add its name at the end.")
    return directory


_BY_NAME = "systems are trained by their names in the config: asr-kd train [SYSTEM...], or --teachers"


@stage("train")
@click.argument("systems", nargs=-1)
@click.option("--teachers", is_flag=True, help="Only the systems on hard labels that other systems learn from.")
@click.option("--member", type=click.IntRange(0), help="Train only this one of a system's models, counted from 0.")
@click.option("--merge", is_flag=True, help="Put the members of SYSTEMS together that were trained apart.")
@old_option("--ensemble", _BY_NAME)
@old_option("--pair", _BY_NAME)
@nj_option
@run_options
def train(
    config: Config, work: Workspace, systems: tuple[str, ...], nj: int, options: RunOptions, **chosen: Any
) -> Any:
    """Stages 4 (--teachers) and 6: train SYSTEMS, by default all of the config, in order of dependence.

    Makes the soft targets that they learn from where stage 5 has not. On CPUs two systems that are ready are trained
    side by side, or the large members of one, unless --nj is 1. With --member, several commands may run at once, on all
    machines that see the work folder; they change no result.
    """
    teachers, member, merge = (chosen[name] for name in ("teachers", "member", "merge"))
    if teachers and systems:
        raise UserError("--teachers and names of systems exclude each other.")
    from asr_kd.stages import train as stage_of_training
    from asr_kd.stages.current import check_aligned

    check_aligned(config, work)
    if member is not None or merge:
        if torchrun().world > 1:
            raise UserError("--member and --merge are for commands of their own, without torchrun.")
        if teachers or not systems or (member is not None and (merge or len(systems) > 1)):
            raise UserError("--member K needs the name of one system, --merge those of one or more.")
        if member is not None:
            return stage_of_training.train_member(config, work, options, systems[0], member)
        return stage_of_training.merge(config, work, options, systems)
    names = tuple(config.teachers()) if teachers else systems
    if teachers and not names:
        return "the config has no system on hard labels that others learn from: nothing to do"
    if torchrun().world > 1:
        return stage_of_training.train_together(config, work, options, names, nj)
    stage_of_training.merge_finished(config, work)
    return stage_of_training.train(config, work, options, names, nj)


@stage("soft-targets")
@click.argument("systems", nargs=-1)
@nj_option
@run_options
def soft_targets(config: Config, work: Workspace, systems: tuple[str, ...], nj: int, options: RunOptions) -> Any:
    """Stage 5: the soft targets that SYSTEMS learn from, by default of all whose teachers are trained."""
    from asr_kd.stages.current import check_aligned
    from asr_kd.stages.soft_targets import make_soft_targets
    from asr_kd.stages.train import merge_finished

    merge_finished(config, work)
    check_aligned(config, work)
    results = make_soft_targets(config, work, options, systems, nj)
    return results or "no system of the config learns from stored soft targets: nothing to do"


@stage("decode")
@click.option("--system", "systems", multiple=True, help="May be repeated.  [default: all that are trained]")
@click.option("--set", "sets", multiple=True, help="May be repeated.  [default: dev and all test sets]")
@decoder_option
@click.option(
    "--rescore-lm",
    multiple=True,
    type=PATH,
    help="Then score the hypotheses of the lattices with this larger ARPA model, in exp/rescored. May be repeated.",
)
@nj_option
def decode(
    config: Config,
    work: Workspace,
    systems: tuple[str, ...],
    sets: tuple[str, ...],
    decoder: str | None,
    rescore_lm: tuple[Path, ...],
    nj: int,
) -> Any:
    """Stage 7: compile the decoding graph, choose scales on dev, recognise the words of every set."""
    from asr_kd.stages.current import check_trained
    from asr_kd.stages.decode import decode as run
    from asr_kd.stages.train import merge_finished

    decoder = chosen_backend(decoder)
    merge_finished(config, work)
    check_trained(config, work, systems)
    if not rescore_lm:
        return run(config, work, systems, sets, decoder, nj)
    from asr_kd.stages.rescore import check_models, rescore

    check_models(rescore_lm, decoder)  # before the first pass, which takes long
    first = run(config, work, systems, sets, decoder, nj)
    return [first, *(rescore(config, work, lm, systems, sets, decoder, nj) for lm in rescore_lm)]


@stage("report")
@click.option("--mnist", "mnist_root", type=PATH, help="What recipes/mnist wrote, for a section.")
def report(config: Config, work: Workspace, mnist_root: Path | None) -> Any:
    """Stage 8: tables and figures of the whole run in exp/report/."""
    from asr_kd.stages.current import check_trained
    from asr_kd.stages.report import mnist_of
    from asr_kd.stages.report import report as run

    check_trained(config, work)
    return run(config, work, mnist_of(mnist_root))


@stage("plan")
@sets_options
@click.option(
    "--gpu-tflops",
    type=click.FloatRange(0, min_open=True),
    default=312.0,
    show_default=True,
    help="Peak speed of the GPU whose hours are given; an A100's in bf16 is the default.",
)
@click.option(
    "--workers",
    callback=lambda context, parameter, value: value and numbers_of_workers(value),
    help="How long the stages in shards take with so many workers of one core: 1,4,16.",
)
@click.option("--like", type=PATH, help="Config of a recipe that has run, for --workers to time.  [default: --config]")
def plan(
    config: Config, work: Workspace, sets: OtherSets, gpu_tflops: float, workers: list[int] | None, like: Path | None
) -> Any:
    """Estimate what this config will take: frames, FLOPs, disk, memory, and hours here and on GPUs. Nothing is run."""
    from asr_kd.workspace.sets import with_parts

    config = with_parts(config, *sets)
    if workers:
        from asr_kd.stages.plan_workers import plan_workers

        measured = None if like is None else (load_config(like), Workspace(default_root(like), like))
        return plan_workers(config, work, workers, measured, prepared=not sets.parts)
    if like is not None:
        raise UserError("--like is for --workers.")
    from asr_kd.stages.plan import plan as run

    return run(config, work, gpu_tflops=gpu_tflops, prepared=not sets.parts)


@stage("sweep")
@click.option("--grid", "entries", multiple=True, required=True, help="KEY=VALUE,VALUE,...; may be repeated.")
@click.option("--name", help="Folder in exp/sweep  [default: the keys]")
@click.option(
    "--system", "systems", multiple=True, help="May be repeated.  [default: the distilled ones of compare, else all]"
)
@click.option("--decode", "sets", multiple=True, help="Also decode this set; may be repeated.")
@click.option("--decoder", "backend", type=click.Choice(list(BACKENDS)), help="[default: the first that is installed]")
@nj_option
@run_options
def sweep(
    config: Config,
    work: Workspace,
    entries: tuple[str, ...],
    name: str | None,
    nj: int,
    options: RunOptions,
    **of_plan: Any,
) -> Any:
    """Train systems at every point of a grid over the config's keys: one table, one figure; resumes by itself.

    On CPUs and on a cluster, points are trained side by side, unless --nj is 1.
    """
    from asr_kd.stages.sweep import SweepPlan, default_systems, parse_grid
    from asr_kd.stages.sweep import sweep as run

    sweep_plan = SweepPlan(parse_grid(entries), **of_plan | {"systems": of_plan["systems"] or default_systems(config)})
    return run(config, work, sweep_plan, options, name, nj)


if __name__ == "__main__":
    main()
