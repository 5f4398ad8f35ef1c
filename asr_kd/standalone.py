"""Commands that need no recipe's work folder: config, new and doctor; and what those that are gone say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from asr_kd.commands import PATH, main
from asr_kd.errors import UserError
from asr_kd.io.yaml_files import dump_yaml
from asr_kd.settings import to_mapping
from asr_kd.workspace.config_files import load_config


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
    """Write a recipe for speech of your own in DIRECTORY: config, run.sh and .gitignore. Prints the next commands."""
    from asr_kd.stages.new import new_recipe

    click.echo(str(new_recipe(directory, corpus, language, corpus_dir)))


@main.command()
def doctor() -> None:
    """Check this installation; say which command fixes what is missing."""
    from asr_kd.stages.doctor import examine

    diagnosis = examine()
    click.echo(str(diagnosis))
    sys.exit(0 if diagnosis.ok else 1)


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
