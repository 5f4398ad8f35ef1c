"""`asr-kd export` on a finished recipe: its files give the words of the system, and the table says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asr_kd.cli import main
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
    return {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file() and "log" not in p.parts}


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
        assert rows["model.onnx"]["sets"][name]["frame_accuracy"] == pytest.approx(
            rows["torch"]["sets"][name]["frame_accuracy"], abs=0.002
        )
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


def test_a_precision_that_costs_words_is_marked(config, tmp_path, monkeypatch):
    figures = export_measure._figures
    calls = []

    def worse(*arguments):
        calls.append(arguments)
        true = figures(*arguments)
        # dev and test of torch, of float32, of int8
        return export_measure.Figures(true.frame_accuracy, true.wer + (0.003 if len(calls) > 5 else 0), 0.0, 1.0)

    monkeypatch.setattr(export_measure, "_figures", worse)
    folder = tmp_path / "out"
    result = export(config, "distilled", str(folder), "--precision", "float32", "--precision", "int8")
    assert [row["costly"] for row in models(folder).values()] == [False, False, True]
    assert "model.int8.onnx !" in result.output and "! costs more than 0.2 points" in result.output


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


def test_other_files_and_systems_that_were_not_decoded_are_refused(config, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("keep")
    result = export(config, "distilled", str(tmp_path / "mine"))
    assert result.exit_code == 2 and "holds other files; name a new folder" in result.output
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    result = export(config, "nobody", str(tmp_path / "out"))
    assert result.exit_code == 2 and "nobody" in result.output
    assert not (tmp_path / "out").exists()
