"""`asr-kd export --format sherpa`: sherpa-onnx finds the words that decoding finds, alone from the package."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import sherpa_onnx
import soundfile
import torch
import yaml
from click.testing import CliRunner
from torchaudio.functional import resample

from asr_kd.cli import main
from asr_kd.export.sherpa_run import SherpaRecogniser

from .recipe import CONFIG, RATE, STAGES, arguments, finished_recipe, make_recipe, run
from .test_benchmarks import load

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return finished_recipe(tmp_path_factory)


@pytest.fixture(scope="module")
def package(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sherpa") / "out"
    result = CliRunner().invoke(
        main,
        arguments(config, ["export", "distilled", str(folder), "--format", "sherpa", "--nj", "1"]),
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    return folder


def rows(package: Path) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads((package / "export.json").read_text())["models"]}


def test_it_is_complete_and_finds_the_words_of_decoding(config, package):
    names = {path.name for path in package.iterdir()}
    assert names == {
        "model.onnx", "model.int8.onnx", "streaming.onnx", "streaming.int8.onnx", "HLG.fst", "tokens.txt", "words.txt",
        "test_wavs", "README.md", "export.json", "stamp.json",
    }  # fmt: skip
    answered = rows(package)
    decoded = answered["asr-kd decode"]["rates"]  # each utterance is a speaker of its own: the means are the same
    own = answered["our own search"]
    assert own["same"] == 1 and own["rates"] == pytest.approx(decoded)
    assert answered["model.onnx"]["same"] >= 0.99
    for model, bound in (("model.onnx", 0.0), ("model.int8.onnx", 0.002), ("streaming.onnx", 0.003)):
        assert all(answered[model]["rates"][name] <= own["rates"][name] + bound for name in ("dev", "test"))
    running = answered["our own search, running mean"]
    assert answered["streaming.onnx"]["same"] >= 0.99 and answered["streaming.onnx"]["rates"] == running["rates"]
    assert answered["streaming.int8.onnx"]["same"] > 0.8
    assert all(answered[model]["empty"] == 0 for model in list(answered)[1:])


def commands(text: str) -> list[list[str]]:
    """Those that begin with sherpa-onnx, in the order of the README."""
    lines = re.findall(r"^    (sherpa-onnx.*)$", text.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line) for line in lines]


def run_tool(package: Path, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of sherpa-onnx, in the package."""
    libraries = Path(sherpa_onnx.__file__).parent / "lib"
    command = [str(Path(sys.executable).parent / tool), *arguments]
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
    return subprocess.run(command, capture_output=True, text=True, cwd=package, env=environment)


def answers(package: Path) -> Iterator[tuple[list[str], dict, str]]:
    """Runs the README's commands on its recordings: what it promises, sheet by sheet and line by line; the answers.

    Yields:
      The cells of the table; the JSON that sherpa-onnx prints; the words that the README's Python makes of it.
    """
    text = (package / "README.md").read_text()
    snippet = text.partition("```python\n")[2].partition("```")[0]
    assert [command[0] for command in commands(text)] == ["sherpa-onnx-offline", "sherpa-onnx"]
    tables = re.findall(r"((?:^\| test_wavs.*\n)+)", text, re.MULTILINE)
    for (tool, *options, _), table in zip(commands(text), tables, strict=True):
        promised = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        assert len(promised) == 3
        for cells in promised:
            ended = run_tool(package, tool, *options, cells[0])
            printed = ended.stdout + ended.stderr
            (answer,) = (json.loads(line) for line in printed.splitlines() if line.startswith("{"))
            spoken = subprocess.run(
                [sys.executable, "-c", snippet], input=printed, capture_output=True, text=True, cwd=package, check=True
            )
            yield cells[1:], answer, spoken.stdout.strip()


def test_the_commands_of_the_readme_give_what_it_promises(package):
    assert not (package / "text.fst").exists()
    for (numbers, words), answer, spoken in answers(package):
        assert answer["words"] == list(map(int, numbers.split())) and spoken == words


@pytest.mark.parametrize("units", ["characters", "bpe"])
def test_without_a_lexicon_the_text_is_what_was_said(tmp_path, units):
    config, work = make_recipe(tmp_path), tmp_path
    only_teacher = CONFIG | {"lang": {"units": units, "bpe_size": 8}, "compare": []}
    config.write_text(yaml.safe_dump(only_teacher | {"systems": {"teacher": CONFIG["systems"]["teacher"]}}))
    (config.parent / "lexicon.txt").unlink()
    folder = tmp_path / "out"
    package = ["export", "teacher", str(folder), "--format", "sherpa", "--set", "test", "--nj", "1"]
    run(config, [*STAGES[:3], ["train"], ["decode", "--system", "teacher", "--set", "test", "--nj", "1"], package])
    summary = json.loads((work / "exp" / "decode" / "teacher" / "test" / "summary.json").read_text())
    assert summary["wer"] < 0.5
    assert rows(folder)["model.onnx"]["same"] >= 0.99
    own = rows(folder)["our own search"]  # each utterance is a speaker of its own: the means are those of decoding
    assert own["characters"]["test"] == pytest.approx(summary["characters"]["wer"])
    assert f"| {own['characters']['test']:.2%} |" in (folder / "README.md").read_text()
    for (text, numbers), answer, spoken in answers(folder):
        assert answer["text"] == text == spoken and answer["words"] == list(map(int, numbers.split()))

    lines = (line.rsplit(maxsplit=1) for line in (folder / "words.txt").read_text().splitlines())
    names = {int(number): name.replace("_", " ") for name, number in lines}
    for model in ("model.onnx", "model.int8.onnx", "streaming.onnx"):
        recogniser = SherpaRecogniser(folder, model, sampling_rate=RATE, num_mel_bins=40, max_active=3000)
        for path in sorted((work / "corpus").glob("*/*.wav")):
            answered = recogniser.recognise(soundfile.read(path, dtype="float32")[0])
            assert answered.text == " ".join(names[number] for number in answered.words) != ""


def test_processes_and_chunks_change_no_words(config, package, tmp_path):
    options = ["--format", "sherpa", "--set", "dev", "--nj", "2", "--chunk", "60"]
    result = CliRunner().invoke(main, arguments(config, ["export", "distilled", str(tmp_path / "out"), *options]))
    assert result.exit_code == 0, result.output
    assert "2 processes side by side" in result.output
    # 60 frames of 10 ms, and the 5 that the paper's net looks ahead: after so many does sherpa-onnx call the model
    known = onnxruntime.InferenceSession(tmp_path / "out" / "streaming.onnx").get_modelmeta().custom_metadata_map
    assert (known["decode_chunk_len"], known["T"]) == ("60", "65")
    assert "650 ms" in (tmp_path / "out" / "README.md").read_text()
    assert "250 ms" in (package / "README.md").read_text()  # with the default of 20
    for model in ("our own search", "model.onnx", "streaming.onnx"):
        assert rows(tmp_path / "out")[model]["rates"]["dev"] == pytest.approx(rows(package)[model]["rates"]["dev"])


def test_a_nan_costs_its_surroundings_alone(package):
    samples = soundfile.read(package / "test_wavs" / "1.wav", dtype="float32")[0]
    samples[len(samples) - 20] = np.nan  # in the silence at its end
    for model in ("model.onnx", "streaming.onnx"):
        recogniser = SherpaRecogniser(package, model, sampling_rate=RATE, num_mel_bins=40, max_active=3000)
        clean = soundfile.read(package / "test_wavs" / "1.wav", dtype="float32")[0]
        assert recogniser.recognise(samples).words == recogniser.recognise(clean).words != []


def test_files_that_no_export_has_written_are_not_replaced(config, package, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(package, folder)
    (folder / "test_wavs" / "mine.wav").write_bytes(b"keep")
    arguments_of = ["export", "direct", str(folder), "--format", "sherpa", "--nj", "1"]
    result = CliRunner().invoke(main, arguments(config, arguments_of))
    assert result.exit_code == 2 and "holds other files (test_wavs/mine.wav)" in result.output
    (folder / "test_wavs" / "mine.wav").unlink()
    (folder / "export.json").write_text('{"models": [{}]}')
    result = CliRunner().invoke(main, arguments(config, ["export", "distilled", str(folder), "--format", "sherpa"]))
    assert result.exit_code == 2 and "export.json is damaged; delete" in result.output


# in a process of its own, which a crash would end
SCRIPT = """
import sys, numpy as np
from pathlib import Path
from asr_kd.export.sherpa_run import SherpaRecogniser
folder, model, rate, samples = sys.argv[1:]
recogniser = SherpaRecogniser(Path(folder), model, sampling_rate=8000, num_mel_bins=40, max_active=3000)
try:
    print(recogniser.recognise(eval(samples, {"np": np}).astype(np.float32), int(rate)).words)
except RuntimeError as error:
    print("error:", str(error)[:40])
"""


@pytest.mark.parametrize("model", ["model.onnx", "streaming.int8.onnx"])
@pytest.mark.parametrize(
    ("rate", "samples"),
    [
        (RATE, "np.zeros(0)"),
        (RATE, "np.zeros(1)"),
        (RATE, "np.zeros(150)"),
        (RATE, "np.full(8000, np.nan)"),
        (RATE, "np.full(8000, 1e9)"),
        (RATE, "np.zeros(8000 * SECONDS)"),
        (44100, "np.sin(np.arange(44100) / 9)"),
        (50, "np.sin(np.arange(50))"),
    ],
    ids=["empty", "one sample", "less than a window", "nan", "too loud", "long silence", "another rate", "a low rate"],
)
def test_any_input_has_an_answer_or_an_error(package, model, rate, samples):
    # an hour takes 21 s; a stream traces its whole path back after each chunk: 5 minutes take 10 s, an hour 25 minutes
    samples = samples.replace("SECONDS", "300" if model.startswith("streaming") else "3600")
    command = [sys.executable, "-c", SCRIPT, str(package), model, str(rate), samples]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0 and ended.stdout.startswith(("[", "error:")), ended.stderr


@pytest.mark.parametrize("rate", [16000, 44100])
def test_recordings_of_another_rate_are_resampled(package, rate):
    samples = soundfile.read(package / "test_wavs" / "1.wav", dtype="float32")[0]
    faster = resample(torch.from_numpy(samples), RATE, rate).numpy()
    for model in ("model.onnx", "streaming.onnx"):
        recogniser = SherpaRecogniser(package, model, sampling_rate=RATE, num_mel_bins=40, max_active=3000)
        words = recogniser.recognise(samples).words
        assert recogniser.recognise(faster, rate).words == words != []
        recogniser.recognise(faster)  # as if it had the models' rate: other words, or none


@pytest.mark.parametrize("bad", ["empty", "one sample", "nan", "two channels", "another rate", "no audio", "missing"])
def test_the_commands_answer_any_file_or_refuse_it(package, tmp_path, bad):
    samples, path = soundfile.read(package / "test_wavs" / "1.wav", dtype="float32")[0], tmp_path / "bad.wav"
    written = {
        "empty": samples[:0],
        "one sample": samples[:1],
        "nan": np.full(RATE, np.nan),
        "two channels": np.stack([samples, samples], 1),
        "another rate": samples,
    }
    if bad in written:
        rate, kind = (2 * RATE if bad == "another rate" else RATE), ("FLOAT" if bad == "nan" else "PCM_16")
        soundfile.write(path, written[bad], rate, subtype=kind)
    elif bad == "no audio":
        path.write_text("no audio")
    for tool, *options, _ in commands((package / "README.md").read_text()):
        ended = run_tool(package, tool, *options, str(path))
        answered = re.search(r'^{.*"words"', ended.stdout + ended.stderr, re.MULTILINE)
        refused = f"Failed to read '{path}'" in ended.stderr
        assert (ended.returncode == 0 and answered) if bad in written else (ended.returncode == 255 and refused)


def test_a_second_export_does_nothing_and_wrong_options_are_named(config, package):
    def export(*options: str):
        return CliRunner().invoke(main, arguments(config, ["export", "distilled", str(package), *options]))

    again = export("--format", "sherpa", "--nj", "1")
    assert again.exit_code == 0 and "already in" in again.output and "streaming.int8.onnx" in again.output
    result = export("--format", "sherpa", "--streaming")
    assert result.exit_code == 2 and "--streaming is for --format onnx" in result.output
    result = export("--chunk", "5")
    assert result.exit_code == 2 and "--chunk is for --format sherpa" in result.output


def test_the_benchmark_of_what_takes_time_runs_sherpa_onnx_too(package, monkeypatch):
    bench = load(ROOT / "benchmarks" / "bench_runtime.py", monkeypatch)
    samples = [soundfile.read(path, dtype="float32")[0] for path in sorted((package / "test_wavs").glob("*.wav"))]
    rows = list(bench.whole(package, samples, 3000))
    assert [row[1] for row in rows] == ["sherpa-onnx model.onnx", "sherpa-onnx model.int8.onnx"]
    assert all(seconds > 0 and re.fullmatch(r"distilled, [1-9]\d* words", note) for *_, seconds, note in rows)
