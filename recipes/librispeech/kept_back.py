"""Makes the speakers whose transcripts a run hid a part of the corpus, on which nets that never heard them are scored.

python recipes/librispeech/kept_back.py recipes/librispeech/work/semi DIR/LibriSpeech

The part is DIR/LibriSpeech/kept-back: links to the recordings, and their transcripts, in LibriSpeech's layout. The
speakers' numbers are 90000 more than their own there, since an utterance cannot be in two parts.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from asr_kd.corpora.cuts import read_cuts
from asr_kd.errors import UserError

PART = "kept-back"
_MORE = 90_000  # LibriSpeech's own numbers have four digits at most
_FIX = "run asr-kd prepare again"


@click.command()
@click.argument("work_dir", type=click.Path(path_type=Path))
@click.argument("corpus_dir", type=click.Path(path_type=Path))
def main(work_dir: Path, corpus_dir: Path) -> None:
    """Make the speakers whose transcripts the run in WORK_DIR hid the part kept-back of CORPUS_DIR."""
    try:
        speakers = keep_back(work_dir / "data" / "cuts_hidden.jsonl.gz", corpus_dir / PART)
    except UserError as error:
        raise click.UsageError(str(error)) from None
    click.echo(f"{corpus_dir / PART}: {speakers} speakers")


def keep_back(hidden: Path, part: Path) -> int:
    """Makes the part of the speakers of some cuts; returns how many they are.

    Raises:
      UserError: the cuts cannot be read, or the part is there already.
    """
    if part.exists():
        raise UserError(f"{part} is there already; delete it first")
    if not hidden.is_file():
        raise UserError(f"{hidden} is not there; run conf/semi.yaml first")
    chapters = {Path(cut["recording"]["sources"][0]["source"]).parent for cut in read_cuts(hidden, _FIX)}
    temporary = part.with_name(f".{part.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for chapter in chapters:
        _add(chapter, temporary)
    temporary.rename(part)
    return len({chapter.parent.name for chapter in chapters})


def _add(chapter: Path, part: Path) -> None:
    """The recordings and transcripts of a chapter, under the speaker's other number."""
    speaker = chapter.parent.name
    number = str(_MORE + int(speaker))
    folder = part / number / chapter.name
    folder.mkdir(parents=True)
    for file in sorted(chapter.glob(f"{speaker}-*")):
        place = folder / file.name.replace(speaker, number, 1)
        if file.suffix == ".txt":
            lines = file.read_text(encoding="utf-8").splitlines()
            place.write_text("".join(f"{line.replace(speaker, number, 1)}\n" for line in lines), encoding="utf-8")
        else:
            place.symlink_to(file.resolve())


if __name__ == "__main__":
    main()
