"""The MNIST experiments: fetches the digits, runs the experiments of a config, writes their report.

python recipes/mnist/run.py download [--mnist-dir DIR] FOLDER
python recipes/mnist/run.py run --config recipes/mnist/conf/quick.yaml [--experiment NAME] [--device cuda]
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from asr_kd.errors import UserError
from asr_kd.kernels.process import choose_mkl_code_path, cpu_flags, disable_malloc_trim

RECIPE = Path(__file__).parent


class _Commands(click.Group):
    """Turns a UserError into one sentence on standard error and exit status 2."""

    def invoke(self, ctx: click.Context) -> object:
        choose_mkl_code_path(cpu_flags())  # before torch is loaded
        disable_malloc_trim()
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"{Path(sys.argv[0]).name} {ctx.invoked_subcommand}: {error}", err=True)
            ctx.exit(2)


@click.group(cls=_Commands)
def main() -> None:
    """The MNIST experiments of Hinton, Vinyals and Dean (2015), section 3."""


@main.command()
@click.option("--mnist-dir", type=click.Path(path_type=Path), help="A folder that has the four files already.")
@click.argument("folder", type=click.Path(path_type=Path))
def download(folder: Path, mnist_dir: Path | None) -> None:
    """Put MNIST's four files into FOLDER."""
    from digits.download import download

    click.echo(f"{folder}: MNIST, {download(folder, mnist_dir)}")


@main.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), required=True, help="Settings (YAML).")
@click.option("--work-dir", type=click.Path(path_type=Path), default=RECIPE, help="Gets exp/  [default: recipes/mnist]")
@click.option("--mnist-dir", type=click.Path(path_type=Path), help="The four files  [default: WORK_DIR/download]")
@click.option("--experiment", "only", multiple=True, help="Run this one; may be repeated  [default: the config's]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
def run(config_path: Path, work_dir: Path, mnist_dir: Path | None, only: tuple[str, ...], device: str) -> None:
    """Run the experiments of a config and write their report into WORK_DIR/exp/<config>/report."""
    from digits.config import load_mnist_config
    from digits.report import write_report
    from digits.results import known_results, run

    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("asr_kd").setLevel(logging.INFO)
    config, root = load_mnist_config(config_path), work_dir / "exp" / config_path.stem
    click.echo(str(run(config, root, mnist_dir or work_dir / "download", only, device=device)))
    commands = [f"python recipes/mnist/run.py run --config {config_path}"]
    click.echo(str(write_report(config, root, known_results(root, config), commands)))


if __name__ == "__main__":
    main()
