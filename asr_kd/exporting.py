"""Commands that write a trained system for other programs: export, export-posteriors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from asr_kd.commands import stage
from asr_kd.errors import UserError
from asr_kd.export import FORMS, PRECISIONS
from asr_kd.options import PATH, decoder_option, nj_option, pipes_option
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace


@stage("export-posteriors")
@click.option("--format", "form", type=click.Choice(["npz", "ark"]), default="npz", show_default=True)
@click.option("--set", "name", default="train", show_default=True, help="The set whose utterances are exported.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.argument("system")
@click.argument("directory", type=PATH)
def export_posteriors(
    config: Config, work: Workspace, system: str, directory: Path, form: Any, name: str, device: str
) -> Any:
    """Write log posteriors of SYSTEM for every utterance of a set to DIRECTORY: <utterance>.npz, or a Kaldi archive.

    `targets: {from: ./DIRECTORY}` reads them.
    """
    from asr_kd.stages.export_posteriors import export_posteriors as run

    return run(config, work, system, directory, form=form, set_name=name, device=device)


@stage("export")
@click.option("--format", "form", type=click.Choice(FORMS), default="onnx", show_default=True)
@click.option("--chunk", type=click.IntRange(1), help="Frames that a stream of sherpa takes at once.  [default: 20]")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(PRECISIONS),
    help="May be repeated.  [default: all]",
)
@click.option("--streaming", is_flag=True, help="A model that takes speech as it comes, with a running mean.")
@click.option("--set", "sets", multiple=True, metavar="NAME", help="Measure on this set and dev.  [default: all]")
@click.option("--measure/--no-measure", "measured", default=True, help="Frames, words, phones and speed of each file.")
@decoder_option
@pipes_option
@nj_option
@click.argument("system")
@click.argument("directory", type=PATH)
def export(
    config: Config,
    work: Workspace,
    system: str,
    directory: Path,
    form: str,
    **options: Any,
) -> Any:
    """Write SYSTEM to DIRECTORY, for programs that know nothing of this package.

    With --format onnx, ONNX files: log-mel energies in, log posteriors of the senones out. Each is decoded beside the
    model that it was made from. With --format sherpa, all that sherpa-onnx needs to recognise words, offline and
    streaming, with three recordings and the commands for them. export.json has what was measured. With --format
    recogniser, what `asr-kd transcribe --model DIRECTORY` and `asr_kd.load` need. With --format kaldi, the decoding
    graph with words, priors, tree and lexicon, for decoders elsewhere.
    """
    _refuse_options(
        form,
        {
            "--chunk": (options["chunk"] is not None, ["sherpa"]),
            "--precision": (options["precisions"], ["onnx"]),
            "--decoder": (options["decoder"], ["onnx"]),
            "--streaming": (options["streaming"], ["onnx"]),
            "--no-measure": (not options["measured"], ["onnx"]),
            "--set": (options["sets"], ["onnx", "sherpa"]),
            "--allow-pipes": (options["allow_pipes"], ["sherpa"]),
        },
    )
    if form == "recogniser":
        from asr_kd.stages.export_recogniser import export_recogniser

        return export_recogniser(config, work, system, directory)
    if form == "kaldi":
        from asr_kd.stages.export_kaldi import export_kaldi

        return export_kaldi(config, work, system, directory)
    if form == "sherpa":
        from asr_kd.stages.export_sherpa import SherpaOptions, export_sherpa

        chunk = options["chunk"] or SherpaOptions.chunk
        of_package = SherpaOptions(chunk, options["sets"], options["nj"], options["allow_pipes"])
        return export_sherpa(config, work, system, directory, of_package)
    from asr_kd.stages.export_onnx import ExportOptions, export_onnx

    named = ("precisions", "streaming", "sets", "measured", "nj")
    chosen = ExportOptions(backend=options["decoder"], **{name: options[name] for name in named})
    return export_onnx(config, work, system, directory, chosen)


def _refuse_options(form: str, options: Mapping[str, tuple[Any, list[str]]]) -> None:
    """Args: options: whether each was given, and the forms that it is for."""
    for option, (given, forms) in options.items():
        if given and form not in forms:
            raise UserError(f"{option} is for --format {' and '.join(forms)}, not for {form}; leave it out.")
