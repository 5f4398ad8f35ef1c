"""`asr-kd new`: a recipe for one's own corpus: config, run.sh, README and .gitignore; it needs no checkout."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import jinja2

from asr_kd.errors import UserError
from asr_kd.io.files import full_disk_is_an_error
from asr_kd.io.yaml_files import parse_yaml
from asr_kd.lang.normalise import Normaliser
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import from_mapping

LAYOUTS = {  # corpus.name -> what is expected in the corpus's folder, as the config is written
    "folder": "train/ with recordings in any folders, and the transcript of each in a .txt beside it, or all in "
    "train/text ('utterance-id words' lines)",
    "table": "train.tsv, dev.tsv and test.tsv with columns path, sentence and client_id, and the recordings in clips/",
    "kaldi": "train/, dev/ and test/, each a Kaldi data folder",
    "cuts": "cuts_train.jsonl.gz, cuts_dev.jsonl.gz and cuts_test.jsonl.gz, lhotse's",
}
_PLACEHOLDER = "CORPUS_DIR"


@dataclass(frozen=True)
class NewRecipe:
    """A recipe that was written; `str` says how to go on."""

    folder: Path
    corpus: str
    corpus_dir: Path | None

    def __str__(self) -> str:
        config = shlex.quote(str(self.folder / "conf" / "config.yaml"))
        run = _run_script(self.folder)
        where = shlex.quote(str(self.corpus_dir)) if self.corpus_dir else _PLACEHOLDER
        given = "" if self.corpus_dir else f" --corpus-dir {where}"
        return "\n".join(
            [
                f"{self.folder}: conf/config.yaml (look through it first), run.sh, README.md and .gitignore",
                f"{where}, the folder of the corpus: {LAYOUTS[self.corpus]}",
                "",
                f"asr-kd prepare --config {config} --corpus-dir {where}  # checks the corpus",
                f"{run}{given}  # all stages; the last writes {self.folder / 'exp' / 'report' / 'index.html'}",
            ]
        )


def _run_script(folder: Path) -> str:
    """Returns the path of run.sh for the shell, with a slash even where the folder is the current one."""
    return shlex.quote(os.path.join(folder, "run.sh"))


def new_recipe(folder: Path, corpus: str, language: str = "en", corpus_dir: Path | None = None) -> NewRecipe:
    """Writes all of a recipe or, where something is wrong, nothing.

    Args:
      folder: of the recipe; it is made, or is empty.
      corpus: a key of `LAYOUTS`.
      language: BCP 47.
      corpus_dir: the corpus's folder, which run.sh then knows; None: run.sh is given it.

    Raises:
      UserError: the folder is not empty, there is no folder `corpus_dir`, or asr-kd does not know the language.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; give the recipe a new one, or empty it.")
    if corpus_dir is not None and not corpus_dir.is_dir():
        raise UserError(f"{corpus_dir}: there is no such folder; correct --corpus-dir, or leave it out for now.")
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("asr_kd.stages", "recipe"),
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    config = templates.get_template("config.yaml.j2").render(
        corpus=corpus, language=language, english=Normaliser(language).english
    )
    from_mapping(Config, parse_yaml(config, "config.yaml"), f"--language {language}")
    known = shlex.quote(str(corpus_dir.absolute())) if corpus_dir else ""
    run = templates.get_template("run.sh.j2").render(
        corpus_dir=f"{known:21} # folder of the corpus", pipes=corpus in ("kaldi", "cuts")
    )
    readme = templates.get_template("README.md.j2").render(
        name=folder.absolute().name,
        run=_run_script(folder),
        config=shlex.quote(str(folder / "conf" / "config.yaml")),
        corpus_dir=corpus_dir,
        layout=LAYOUTS[corpus],
        english=Normaliser(language).english,
    )
    files = {"README.md": readme, "conf/config.yaml": config, "run.sh": run}
    files[".gitignore"] = templates.get_template("gitignore").render()
    temporary = folder / ".tmp"  # inside: `folder` may be the current one
    with full_disk_is_an_error(folder):
        (temporary / "conf").mkdir(parents=True)
        try:
            for name, text in files.items():
                (temporary / name).write_text(text, encoding="utf-8")
            (temporary / "run.sh").chmod(0o755)
            for path in list(temporary.iterdir()):
                path.rename(folder / path.name)
        finally:
            shutil.rmtree(temporary)
    return NewRecipe(folder, corpus, corpus_dir)
