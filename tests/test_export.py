"""`asr-kd export` on a finished recipe: its files give the words of the system, and the table says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asr_kd.cli import main
from asr_kd.export.onnx_run import open_model
from asr_kd.io.stamp import identity, read_stamp
from asr_kd.stages import export_measure

from .recipe import arguments, finished_recipe


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return finished_recipe(tmp_path_factory)


def export(config: Path, *options: str) -> Result:
    command = arguments(config, ["export", "--nj", "1", *options])
    return CliRunner().invoke(main, command, catch_exceptions=False)


def models(folder: Path) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads((folder / "export.json").read_text())["models"]}


def state(root: Path) -> dict[Path, int]:
    """All that a work folder holds, but for logs."""
    return {
        p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file() and "log" not in p.parts and p.name != ".lock"
    }


def rates(work: Path, system: str, name: str) -> tuple[float, float]:
    """Word and phone error rate of a system's first seed, as it was decoded."""
    folders = (work / "exp" / kind / system / name for kind in ("decode", "phone_decode"))
    wer, per = (json.loads((folder / "summary.json").read_text())["wer_per_seed"][0] for folder in folders)
    return wer, per


@pytest.mark.parametrize("system", ["distilled", "teacher"])
def test_every_file_is_measured_and_float32_is_the_system_itself(config, tmp_path, system):
    work, folder = config.parent.parent, tmp_path / "out"
    before = state(work)
    result = export(config, system, str(folder))
    assert result.exit_code == 0, result.output
    rows = models(folder)
    assert list(rows) == ["torch", "model.onnx", "model.float16.onnx", "model.int8.onnx", "model.int8-static.onnx"]
    for name in ("dev", "test"):
        for model in ("torch", "model.onnx"):  # each utterance is a speaker of its own: the means are the same
            figures = rows[model]["sets"][name]
            assert (figures["wer"], figures["per"]) == pytest.approx(rates(work, system, name))
        # of matrix products in bfloat16, where torch has them, some frames are otherwise
        frames = [rows[model]["sets"][name]["frame_accuracy"] for model in ("model.onnx", "torch")]
        assert frames[0] == pytest.approx(frames[1], abs=0.02)
    assert 0.9 < rows["torch"]["bytes"] / rows["model.onnx"]["bytes"] < 1  # and nothing of its other seeds
    for model in list(rows)[1:]:
        assert rows[model]["bytes"] == (folder / model).stat().st_size
        assert rows[model]["sets"]["test"]["net_rtf"] > 0
        assert f"{rows[model]['sets']['test']['wer']:.2%}" in result.output
    assert state(work) == before
    assert sorted(path.name for path in folder.iterdir()) == sorted([*list(rows)[1:], "export.json", "stamp.json"])
    again = export(config, system, str(folder))
    tables = [again.output.partition("already in ")[2], result.output.partition("exported to ")[2]]
    assert tables[0].strip() == tables[1].strip()


def test_frame_accuracy_is_that_of_the_report(config, tmp_path):
    assert export(config, "teacher", str(tmp_path / "out"), "--precision", "float32").exit_code == 0
    results = json.loads((config.parent.parent / "exp" / "report" / "results.json").read_text())
    (teacher,) = (system for system in results["systems"] if system["name"] == "teacher")
    measured = models(tmp_path / "out")["torch"]["sets"]["test"]["frame_accuracy"]
    assert measured == pytest.approx(teacher["frame_accuracy"]["test"])


def test_a_stream_has_files_of_its_own(config, tmp_path):
    folder = tmp_path / "out"
    result = export(config, "distilled", str(folder), "--streaming", "--set", "dev")
    assert result.exit_code == 0, result.output
    rows = models(folder)
    assert list(rows) == ["torch", "streaming.onnx", "streaming.float16.onnx", "streaming.int8.onnx"]
    assert all(list(row["sets"]) == ["dev"] for row in rows.values())


def test_without_measuring_the_files_alone_are_written(config, tmp_path):
    result = export(config, "distilled", str(tmp_path / "out"), "--precision", "int8", "--no-measure")
    assert result.exit_code == 0 and result.output.endswith(f"exported to {tmp_path / 'out'}\n")
    assert {path.name for path in (tmp_path / "out").glob("*.onnx")} == {"model.int8.onnx"}
    assert export(config, "distilled", str(tmp_path / "out")).output.count("exported to") == 1


@pytest.mark.parametrize(
    ("precisions", "costly"),
    [
        (["float32", "int8"], [False, False, True]),
        (["int8", "int8"], [False, True]),
        ([], [False, False, False, True, True]),
    ],
)
def test_a_precision_that_costs_words_is_marked_beside_any_other(config, tmp_path, monkeypatch, precisions, costly):
    figures = export_measure._figures

    def worse(searches, name, results):
        true = figures(searches, name, results)
        worst = 0.003 if results[0]["right"] < 0 else 0.0
        return export_measure.Figures(true.frame_accuracy, true.wer + worst, true.per, true.net_rtf)

    of_shard = export_measure._Worker.measure

    def marked(worker, shard):
        return of_shard(worker, shard) | ({"right": -1} if shard.exported and "int8" in shard.exported.name else {})

    monkeypatch.setattr(export_measure, "_figures", worse)
    monkeypatch.setattr(export_measure._Worker, "measure", marked)
    folder = tmp_path / "out"
    result = export(config, "distilled", str(folder), *(f"--precision={name}" for name in precisions))
    assert [row["costly"] for row in models(folder).values()] == costly
    assert "model.int8.onnx !" in result.output and "! costs more than 0.2 points of the WER" in result.output


def test_the_file_names_the_tree_and_the_model_that_it_is_of(config, tmp_path):
    work = config.parent.parent
    assert export(config, "distilled", str(tmp_path / "out"), "--no-measure", "--precision=float32").exit_code == 0
    known = open_model(tmp_path / "out" / "model.onnx").metadata
    digests = [identity(read_stamp(work / "exp" / name)) for name in ("tree", "distilled")]
    assert [known["tree"], known["model"]] == digests and known["sampling_rate"] == "8000"


def test_measuring_needs_what_dev_chose_for_this_model(config, tmp_path):
    root = tmp_path / "work"
    shutil.copytree(config.parent.parent, root)
    copy = root / "conf" / config.name
    stamp = root / "exp" / "distilled" / "stamp.json"
    stamp.write_text(stamp.read_text().replace(json.loads(stamp.read_text())["digest"], "0" * 16))  # trained again
    result = export(copy, "distilled", str(tmp_path / "out"))
    assert result.exit_code == 2 and "was decoded with another model than there is now" in result.output
    assert export(copy, "distilled", str(tmp_path / "out"), "--no-measure").exit_code == 0
    shutil.rmtree(root / "exp" / "phone_graph")
    result = export(copy, "direct", str(tmp_path / "direct"))
    assert result.exit_code == 2 and "phone_graph: not made yet; make it first: asr-kd decode" in result.output
    assert not (root / "exp" / "phone_graph").exists() and not (tmp_path / "direct").exists()


def test_a_killed_export_goes_on_where_it_was(config, tmp_path, monkeypatch):
    folder, whole, measured = tmp_path / "out", tmp_path / "whole", []
    assert export(config, "distilled", str(whole)).exit_code == 0
    of_shard = export_measure._Worker.measure

    def killed(worker, shard):
        measured.append(shard)
        if len(measured) == 4:
            raise KeyboardInterrupt
        return of_shard(worker, shard)

    monkeypatch.setattr(export_measure._Worker, "measure", killed)
    assert export(config, "distilled", str(folder)).exit_code != 0
    assert not folder.exists()
    assert export(config, "distilled", str(folder)).exit_code == 0
    assert len(measured) - 4 == 10 - 3  # five models on two sets, three of which were done

    def without_time(path: Path) -> list[dict]:
        rows = list(models(path).values())
        for figures in (figures for row in rows for figures in row["sets"].values()):
            del figures["net_rtf"]
        return rows

    assert without_time(folder) == without_time(whole)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_cannot_be_is_one_sentence(config, tmp_path, monkeypatch):
    def refused(*options: str) -> str:
        result = export(config, *options)
        assert result.exit_code == 2, result.output
        return result.output

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("keep")
    assert "holds other files (thesis.tex); name a new folder" in refused("distilled", str(tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    assert "nobody" in refused("nobody", str(tmp_path / "out"))
    assert "with --streaming there is int8" in refused(
        "distilled", str(tmp_path / "out"), "--streaming", "--precision=int8-static"
    )
    assert "this name is not UTF-8" in refused("distilled", f"{tmp_path}/caf\udce9")
    (tmp_path / "file").write_text("keep")
    assert "holds other files" in refused("distilled", str(tmp_path / "file"))
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    assert "is where this command runs" in refused("distilled", ".")
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine", "new"]


def test_an_export_is_replaced_unless_something_else_is_in_its_folder(config, tmp_path):
    folder, options = tmp_path / "out", ["--no-measure", "--precision=float32"]
    assert export(config, "distilled", str(folder), *options).exit_code == 0
    assert export(config, "distilled", str(folder), *options, "--streaming").exit_code == 0
    assert [path.name for path in folder.glob("*.onnx")] == ["streaming.onnx"]
    (folder / "export.json").write_text("{}")
    result = export(config, "distilled", str(folder), *options, "--streaming")
    assert result.exit_code == 2 and "export.json is damaged; delete" in result.output
    (folder / "notes.txt").write_text("keep")
    result = export(config, "distilled", str(folder), *options)
    assert result.exit_code == 2 and "holds other files (notes.txt)" in result.output
