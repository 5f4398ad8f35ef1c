"""recipes/librispeech/kept_back.py: hidden speakers become a part of the corpus."""

from __future__ import annotations

import gzip
import json
import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

SCRIPT = Path(__file__).parents[2] / "recipes" / "librispeech" / "kept_back.py"
TRANSCRIPTS = {("19", "198"): ["NOBODY COUNTS 19-198", "TWO"], ("19", "227"): ["THREE"], ("1034", "7"): ["FOUR"]}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A work folder whose run hid two speakers, and its corpus, which has another one besides."""
    work, corpus, cuts = tmp_path / "semi", tmp_path / "LibriSpeech", []
    for (speaker, chapter), sentences in (TRANSCRIPTS | {("20", "1"): ["FIVE"]}).items():
        folder = corpus / "train-clean-100" / speaker / chapter
        folder.mkdir(parents=True)
        names = [f"{speaker}-{chapter}-{number:04d}" for number in range(len(sentences))]
        lines = [f"{name} {sentence}\n" for name, sentence in zip(names, sentences, strict=True)]
        (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
        for name in names:
            (folder / f"{name}.flac").write_bytes(name.encode())
            source = {"type": "file", "channels": [0], "source": str(folder / f"{name}.flac")}
            cuts.append({"id": name, "recording": {"sources": [source]}, "supervisions": [{"speaker": speaker}]})
    (work / "data").mkdir(parents=True)
    hidden = [cut for cut in cuts if not cut["id"].startswith("20-")]
    with gzip.open(work / "data" / "cuts_hidden.jsonl.gz", "wt") as file:
        file.writelines(f"{json.dumps(cut)}\n" for cut in hidden)
    return work, corpus


def run(work: Path, corpus: Path) -> Result:
    return CliRunner().invoke(runpy.run_path(str(SCRIPT))["main"], [str(work), str(corpus)])


def test_hidden_speakers_become_a_part_under_other_numbers(folders: tuple[Path, Path]) -> None:
    work, corpus = folders
    result = run(work, corpus)
    assert result.exit_code == 0 and result.output.endswith("kept-back: 2 speakers\n")
    part = corpus / "kept-back"
    transcripts = {tuple(path.relative_to(part).parts[:2]): path for path in part.rglob("*.trans.txt")}
    assert transcripts.keys() == {("90019", "198"), ("90019", "227"), ("91034", "7")}
    path = transcripts["90019", "198"]
    assert path.name == "90019-198.trans.txt"
    assert path.read_text() == "90019-198-0000 NOBODY COUNTS 19-198\n90019-198-0001 TWO\n"
    assert (path.parent / "90019-198-0001.flac").read_bytes() == b"19-198-0001"
    assert sum(file.suffix == ".flac" for file in part.rglob("*")) == 4
    assert [path.name for path in corpus.iterdir() if path.name.startswith(".")] == []


def test_a_part_that_is_there_stays_as_it_is(folders: tuple[Path, Path]) -> None:
    work, corpus = folders
    (corpus / "kept-back").mkdir()
    result = run(work, corpus)
    assert result.exit_code == 2 and "kept-back is there already; delete it first" in result.output
    assert list((corpus / "kept-back").iterdir()) == []


def test_a_run_that_hid_nobody_is_named(folders: tuple[Path, Path]) -> None:
    work, corpus = folders
    (work / "data" / "cuts_hidden.jsonl.gz").unlink()
    result = run(work, corpus)
    assert result.exit_code == 2 and "cuts_hidden.jsonl.gz is not there; run conf/semi.yaml first" in result.output
    assert not (corpus / "kept-back").exists()
