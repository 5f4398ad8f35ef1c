"""Commands that need no recipe's work folder: config, new, doctor, transcribe, serve; and what old ones say."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from asr_kd.commands import main, messages
from asr_kd.errors import UserError, printable, some_of
from asr_kd.io.yaml_files import dump_yaml
from asr_kd.options import PATH, old_option
from asr_kd.runtime.transcript import FORMATS
from asr_kd.settings import to_mapping
from asr_kd.workspace.config_files import load_config
from asr_kd.workspace.executor import capped_jobs
from asr_kd.workspace.work import Workspace, default_root


@main.command("config")
@click.option("--config", "config_path", type=PATH, help="Settings of the recipe (YAML).")
@click.option("--show", "output", flag_value="show", help="The whole config with its defaults, as YAML.")
@click.option("--schema", "output", flag_value="schema", help="The JSON schema of configs, for editors.")
@click.option("--reference", "output", flag_value="reference", help="All keys and what they mean, as Markdown.")
def show_config(config_path: Path | None, output: str | None) -> None:
    """Show a config with its defaults, or which keys a config may have."""
    from asr_kd.workspace.config_reference import config_reference, config_schema

    if output == "schema":
        click.echo(json.dumps(config_schema(), indent=2))
    elif output == "reference":
        click.echo(config_reference(), nl=False)
    elif config_path is None:
        raise UserError("name a config with --config FILE to show it; --schema and --reference need none.")
    else:
        click.echo(dump_yaml(to_mapping(load_config(config_path))), nl=False)


@main.command("new")
@click.option("--corpus", required=True, type=click.Choice(["folder", "table", "cuts", "kaldi"]), help="Its kind.")
@click.option("--language", default="en", show_default=True, help="The language of the speech (BCP 47), such as fr.")
@click.option("--corpus-dir", type=PATH, help="The folder of the corpus, where it is known already.")
@click.argument("directory", type=PATH)
def new(directory: Path, corpus: str, language: str, corpus_dir: Path | None) -> None:
    """Write a recipe for speech of your own in DIRECTORY: config, run.sh and README. Prints the next commands."""
    from asr_kd.stages.new import new_recipe

    click.echo(str(new_recipe(directory, corpus, language, corpus_dir)))


@main.command()
def doctor() -> None:
    """Check this installation; say which command fixes what is missing."""
    from asr_kd.stages.doctor import examine

    diagnosis = examine()
    click.echo(str(diagnosis))
    sys.exit(0 if diagnosis.ok else 1)


def recogniser_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --model, or --config, --work-dir and --system; the command gets `files`, see `RecogniserFiles`.

    An argument `folder` of the command stands for --model.
    """

    @click.option("--model", type=PATH, help="A folder that `asr-kd export --format recogniser` has written.")
    @click.option("--config", "config_path", type=PATH, help="Or the settings of a recipe (YAML) that was decoded.")
    @click.option("--work-dir", type=PATH, help="Of that recipe  [default: its own folder]")
    @click.option("--system", help="Its first seed recognises  [default: the distilled system of the first comparison]")
    @functools.wraps(function)
    def command(
        model: Path | None, config_path: Path | None, work_dir: Path | None, system: str | None, **options: Any
    ) -> None:
        from asr_kd.runtime.folder import RecogniserFiles
        from asr_kd.stages.transcribe import recogniser_files

        model, *more = [path for path in (model, options.pop("folder", None)) if path] or [None]
        if more or (model is None) == (config_path is None):
            raise UserError("name either an exported recogniser with --model, or a recipe with --config.")
        with messages():
            if config_path is None:
                assert model is not None
                if work_dir or system:
                    raise UserError("--work-dir and --system are for --config; an exported recogniser is one system.")
                files = RecogniserFiles.of_folder(model)
            else:
                config = load_config(config_path)
                work = Workspace(work_dir or default_root(config_path), config_path)
                files = recogniser_files(config, work, system)
            function(files=files, **options)

    return command


@main.command()
@recogniser_option
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option("--output", type=PATH, help="A folder for one file a recording  [default: all to standard output]")
@click.option("--speakers", type=PATH, help="utt2spk: lines NAME SPEAKER; a speaker's recordings share their mean.")
@click.option("--channel", type=click.IntRange(0), help="Of recordings with several; 0 is the first.")
@click.option("--mic", is_flag=True, help="Listen to the microphone instead, until Ctrl-C.")
@click.option("--skip-existing", is_flag=True, help="Leave out recordings whose file is in --output already.")
@click.option("--nj", type=click.IntRange(1), default=1, show_default=True, help="Processes; each loads the model.")
@old_option("--decoder", "the package's own search is used; leave it out")
@click.argument("recordings", nargs=-1, type=PATH)
def transcribe(
    files: Any, recordings: tuple[Path, ...], form: str, output: Path | None, speakers: Path | None, **options: Any
) -> None:
    """Print the words of RECORDINGS; "-" is standard input.

    WAV, FLAC, Ogg, MP3 and what else libsndfile reads, at any sampling rate and of any length: long ones are cut where
    it is quiet. ctm, json, srt and vtt have the times of words; ctm and json also how sure the search is of each.
    """
    from asr_kd.stages.transcribe import Recordings, speakers_of, transcribe_to

    channel, skip_existing = options["channel"], options["skip_existing"]
    if options["mic"]:
        if recordings or output or speakers or channel is not None or skip_existing or form != "text":
            raise UserError("--mic takes no recordings, and prints text alone.")
        from asr_kd.stages.listen import listen

        listen(files)
        return
    if skip_existing and output is None:
        raise UserError("--skip-existing is for files in a folder: name it with --output.")
    of = None if speakers is None else speakers_of(recordings, speakers)
    chosen = Recordings(recordings, of, channel)
    nj = capped_jobs(options["nj"])
    bad = transcribe_to(files, chosen, form, output, nj=nj, skip_existing=skip_existing, echo=click.echo)
    if bad:
        names = some_of([printable(str(path)) for path in bad])
        raise UserError(f"{len(bad)} of {len(recordings)} recordings cannot be used ({names}); see the messages above.")


@main.command()
@click.argument("folder", type=PATH, required=False)
@recogniser_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 is all of the network.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--max-upload", type=click.FloatRange(0, min_open=True), default=100, show_default=True, help="In MB.")
def serve(files: Any, host: str, port: int, max_upload: float) -> None:
    """Serve a page on which one speaks, or drops a recording, and sees the words. Prints its address; Ctrl-C ends.

    FOLDER is what `asr-kd export --format recogniser` has written, as with --model. Only this computer reaches the
    page, unless --host says otherwise.
    """
    from asr_kd.serve.server import Address
    from asr_kd.serve.server import serve as run

    run(files, Address(host, port), max_upload=round(1e6 * max_upload), echo=click.echo)


def _old_command(name: str, advice: str) -> None:
    @main.command(name, hidden=True, context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        raise UserError(f"this command is gone: {advice}.")


_old_command("distill", "asr-kd train SYSTEM trains a system with targets: in the config")
_old_command("students", "asr-kd train trains all systems of the config")
_old_command("fewshot", "name systems with train_fraction: in the config, then asr-kd train and asr-kd report")
_old_command(
    "mnist", "the experiments are a recipe: recipes/mnist/run.sh, or python recipes/mnist/run.py run --config ..."
)
