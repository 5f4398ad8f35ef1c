"""Word and phone times, read back from the files by parsers that know the formats and nothing of ours."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.axes import Axes

from asr_kd.alignment.boundaries import OFFSETS_FILE, write_offsets
from asr_kd.alignment.set_alignment import SEGMENTS, STARTS, read_array
from asr_kd.alignment.times import Interval, Times, write_textgrid
from asr_kd.cli import main
from asr_kd.corpora.settings import FolderConfig
from asr_kd.errors import UserError
from asr_kd.io.stamp import STAMP, Stamp
from asr_kd.lang.lexicon import Lang, write_lang
from asr_kd.stages.align_compare import compare
from asr_kd.stages.finished_alignment import export, read_times, times_folder
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace

from ..stores import write_store

TEXTS = ["SAY NO NO", "NO"]
Tiers = dict[str, list[tuple[float, float, str]]]


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    """Each set holds three utterances: one aligned, an altered copy of it, and one that failed."""
    work = Workspace(tmp_path, tmp_path / "conf.yaml")
    work.lang.mkdir(parents=True)
    pronunciations = {"NO": ((3, 4),), "SAY": ((1, 2),)}
    write_lang(work.lang, Lang(("SIL", "S", "EY", "N", 'O"W'), ("NO", "SAY"), pronunciations))
    work.exp("align").mkdir(parents=True)
    rows = [(0, 0, -1, 0, 12), (0, 1, 0, 12, 20), (0, 2, 0, 20, 31), (0, 3, 1, 31, 40), (0, 4, 1, 40, 52)]
    rows += [(0, 3, 2, 52, 60), (0, 4, 2, 60, 71), (0, 0, -1, 71, 80)]  # NO NO: two words, though no silence between
    copy = [(1, *row[1:]) for row in rows]
    for name in ("train", "dev", "test"):
        utterances = [(f"{name}-{k}", np.random.default_rng(7).normal(size=(80, 5))) for k in ("2", "1_sp0.9", "0")]
        write_store(work.frames(name), utterances, texts=[TEXTS[0], TEXTS[0], TEXTS[1]], speeds=[1.0, 0.9, 1.0])
        segments = np.array(rows + copy, np.int32)
        (work.exp("align") / name).mkdir()
        np.save(work.exp("align") / name / SEGMENTS, segments)
    Stamp("align", {}, {}).write(work.exp("align") / STAMP)
    return work


@pytest.fixture
def long_work(work: Workspace) -> Workspace:
    """At 22,050 Hz frames are 220 samples apart; dev holds 30 s that end with a word."""
    rows = [(0, 0, -1, 0, 2506), (0, 1, 0, 2506, 2510), (0, 2, 0, 2510, 2516), (0, 0, -1, 2516, 3000)]
    rows += [(0, 3, 1, 3000, 3004), (0, 4, 1, 3004, 3007)]
    shutil.rmtree(work.frames("dev"))
    utterances = [("dev-0", np.random.default_rng(7).normal(size=(3007, 5)))]
    write_store(work.frames("dev"), utterances, texts=["SAY NO"], sampling_rate=22050)
    np.save(work.exp("align") / "dev" / SEGMENTS, np.array(rows, np.int32))
    return work


LONG = Config(corpus=FolderConfig(sampling_rate=22050))
LONG_WORDS = [(frame * 220 / 22050, label) for frame, label in ((2506, "SAY"), (3000, "NO"))]


def parse_textgrid(text: str) -> Tiers:
    """Praat's long text format; doubled quotation marks inside a text stand for one."""
    assert text.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n\n')
    number = r"([-0-9.e]+)"
    end = float(re.search(rf"^xmax = {number} *", text, re.MULTILINE).group(1))  # type: ignore[union-attr]
    tiers: Tiers = {}
    for part in re.split(r"^\s+item \[\d+\]:\s*$", text, flags=re.MULTILINE)[1:]:
        assert 'class = "IntervalTier"' in part
        name = re.search(r'name = "(.*)"', part).group(1)  # type: ignore[union-attr]
        actual = re.findall(rf'xmin = {number}\s+xmax = {number}\s+text = "((?:[^"]|"")*)"', part)
        tiers[name] = [(float(a), float(b), label.replace('""', '"')) for a, b, label in actual]
        assert len(actual) == int(re.search(r"intervals: size = (\d+)", part).group(1))  # type: ignore[union-attr]
        starts, ends = [one[0] for one in tiers[name]], [one[1] for one in tiers[name]]
        assert starts == [0.0, *ends[:-1]] and ends[-1] == end  # Praat refuses gaps and overlaps
        assert all(a < b for a, b in zip(starts, ends, strict=True))
    return tiers


def test_textgrids_read_back(work: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "grids"
    assert export(Config(), work, "textgrid", folder) == 3
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}-2.TextGrid" for name in ("dev", "test", "train")]
    tiers = parse_textgrid((folder / "dev-2.TextGrid").read_text(encoding="utf-8"))
    assert list(tiers) == ["words", "phones"]
    words = [(0.0, 0.12, ""), (0.12, 0.31, "SAY"), (0.31, 0.52, "NO"), (0.52, 0.71, "NO"), (0.71, 0.8, "")]
    assert tiers["words"] == words
    assert [label for _, _, label in tiers["phones"]] == ["", "S", "EY", "N", 'O"W', "N", 'O"W', ""]


def test_ctm_reads_back_sorted(work: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "ctm"
    assert export(Config(), work, "ctm", folder) == 3
    for tier, labels in (("words", ["SAY", "NO", "NO"]), ("phones", ["S", "EY", "N", 'O"W', "N", 'O"W'])):
        rows = [line.split() for line in (folder / f"{tier}.ctm").read_text(encoding="utf-8").splitlines()]
        assert all(len(row) == 5 and row[1] == "1" for row in rows)
        keys = [(row[0], float(row[2])) for row in rows]
        assert keys == sorted(keys)
        assert [row[4] for row in rows] == labels * 3
        first = [row for row in rows if row[0] == "dev-2"]
        assert float(first[0][2]) == pytest.approx(0.12)
        assert sum(float(row[3]) for row in first) == pytest.approx(0.59)


def test_times_end_with_the_audio(work: Workspace) -> None:
    (times,) = read_times(Config(), work, "dev")
    for tier in (times.words, times.phones):
        assert tier[0].start == 0.0 and tier[-1].end == times.duration


def test_times_follow_the_frames_of_the_sampling_rate(long_work: Workspace, tmp_path: Path) -> None:
    export(LONG, long_work, "textgrid", tmp_path / "grids")
    tiers = parse_textgrid((tmp_path / "grids" / "dev-0.TextGrid").read_text(encoding="utf-8"))
    words = [(start, label) for start, _, label in tiers["words"] if label]
    assert [label for _, label in words] == ["SAY", "NO"]
    assert [start for start, _ in words] == pytest.approx([start for start, _ in LONG_WORDS], abs=1e-4)
    export(LONG, long_work, "ctm", tmp_path / "ctm")
    rows = [line.split() for line in (tmp_path / "ctm" / "phones.ctm").read_text(encoding="utf-8").splitlines()]
    assert all(float(row[3]) > 0 for row in rows)
    ends = [float(row[2]) + float(row[3]) for row in rows if row[0] == "dev-0"]
    assert ends[-1] == pytest.approx(3007 * 220 / 22050, abs=1e-4)


def test_comparing_follows_the_frames_of_the_sampling_rate(
    long_work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (say, _), (no, _) = LONG_WORDS
    intervals = [Interval(0.0, say, ""), Interval(say, say + 0.1, "SAY"), Interval(say + 0.1, no, "")]
    (tmp_path / "grids").mkdir()
    reference = Times("dev-0", 30.01, [*intervals, Interval(no, 30.01, "NO")], [])
    write_textgrid(reference, tmp_path / "grids" / "dev-0.TextGrid")
    extents, imshow = [], Axes.imshow

    def noted(axes: Axes, *arguments: Any, **settings: Any) -> Any:
        extents.append(settings["extent"])
        return imshow(axes, *arguments, **settings)

    monkeypatch.setattr(Axes, "imshow", noted)
    result = compare(LONG, long_work, "textgrid", tmp_path / "grids")
    assert result.utterances == 1 and result.words["boundaries"] == 4
    assert result.words["mean_abs_ms"] < 10 and abs(result.words["median_ms"]) < 1
    assert extents == [(0, pytest.approx(3007 * 220 / 22050), 0, 1)]


def test_export_before_align_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="asr-kd align"):
        export(Config(), Workspace(tmp_path, tmp_path / "conf.yaml"), "ctm", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_times_finer_than_frames_and_offsets_are_what_is_read(work: Workspace) -> None:
    by_frame = next(read_times(Config(), work, "dev"))
    segments = read_array(work.exp("align") / "dev" / SEGMENTS)
    folder = times_folder(work, "dev")
    folder.mkdir()
    Stamp("subframe times", {}, {}).write(folder / STAMP)
    np.save(folder / STARTS, 0.01 * segments[:, 3] + 0.003 * (segments[:, 3] > 0))
    finer = next(read_times(Config(), work, "dev"))
    assert [one.start for one in finer.phones[1:]] == pytest.approx([one.start + 0.003 for one in by_frame.phones[1:]])
    assert finer.words[1].start == finer.phones[1].start and finer.words[-1].end == finer.duration
    write_offsets(work.exp("align") / OFFSETS_FILE, {"silence-fricative": -10.0})
    moved = next(read_times(Config(), work, "dev"))
    assert moved.words[1].start == moved.phones[1].start == pytest.approx(0.12 + 0.003 - 0.01)
    assert moved.phones[2:] == finer.phones[2:]
    (folder / STARTS).write_bytes(b"torn")
    with pytest.raises(UserError, match=r"starts\.npy is missing or damaged"):
        next(read_times(Config(), work, "dev"))


def test_a_damaged_alignment_is_one_sentence(work: Workspace, tmp_path: Path) -> None:
    (work.exp("align") / "dev" / "segments.npy").write_bytes(b"\x93NUMPY torn")
    with pytest.raises(UserError, match=r"dev/segments\.npy.*damaged"):
        export(Config(), work, "ctm", tmp_path / "out")


def test_an_exported_alignment_is_its_own_reference(work: Workspace, tmp_path: Path) -> None:
    export(Config(), work, "textgrid", tmp_path / "grids")
    result = compare(Config(), work, "textgrid", tmp_path / "grids")
    assert result.utterances == 3 and result.missing == 0
    assert result.words["within_10ms"] == 1.0 == result.phones["within_10ms"]
    assert result.words["mean_abs_ms"] == pytest.approx(0, abs=1e-6)
    retained = json.loads((work.exp("align_compare") / "compare.json").read_text())
    assert retained["phones"]["boundaries"] == result.phones["boundaries"] > 0
    of_report = json.loads((work.exp("align_compare") / "results.json").read_text())["alignment"]
    assert of_report["boundaries"] == retained["phones"] and of_report["words"] == retained["words"]
    assert of_report["boundaries_by_kind"].keys() == {
        "silence-fricative",
        "fricative-vowel",
        "vowel-nasal",
        "other-nasal",
        "nasal-other",
        "other-silence",
    }
    figure = (work.exp("align_compare") / "example.svg").read_text(encoding="utf-8")
    texts = [element.text for element in ElementTree.fromstring(figure).iter() if element.tag.endswith("}text")]
    assert "<image " in figure
    for label, times in (("SAY", 1), ("NO", 2), ("EY", 1), ('O"W', 2)):
        assert texts.count(label) == 2 * times  # ours and the reference's


def test_comparing_with_nothing_is_one_sentence(work: Workspace, tmp_path: Path) -> None:
    (tmp_path / "grids").mkdir()
    with pytest.raises(UserError, match=r"there is no \.TextGrid file in it"):
        compare(Config(), work, "textgrid", tmp_path / "grids")
    export(Config(), work, "textgrid", tmp_path / "grids")
    for path in (tmp_path / "grids").iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(UserError, match="none of its 3 files has the name of an aligned utterance"):
        compare(Config(), work, "textgrid", tmp_path / "grids")
    assert not work.exp("align_compare").exists()


def test_a_set_that_is_not_aligned_yet_is_named_with_the_command(work: Workspace, tmp_path: Path) -> None:
    (work.exp("align") / "test").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"align/test is not there yet; make it first: asr-kd align --config"):
        export(Config(), work, "ctm", tmp_path)


def test_exporting_and_comparing_at_once_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "recipes" / "timit" / "conf" / "align.yaml"
    command = ["align", "--config", str(config), "--work-dir", str(tmp_path), "--export", "ctm", "--compare", "timit"]
    result = CliRunner().invoke(main, [*command, str(tmp_path / "out")])
    assert result.exit_code == 2 and "--export and --compare exclude each other" in result.output
    assert not (tmp_path / "out").exists()
