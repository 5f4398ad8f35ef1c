"""`asr-kd new` writes a recipe that runs as it stands, or nothing."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from asr_kd.cli import main
from asr_kd.io.yaml_files import dump_yaml, load_yaml, merged
from asr_kd.stages.new import LAYOUTS
from asr_kd.workspace.config_files import load_config

from ..recipe import LEXICON, RATE, say
from ..typed import noted, shim, typed

# sizes for a test, over those of the config that is written
TRAINING = {"epochs": 1, "batch_size": 64, "learning_rate": 5.0e-3}
NET = {"layers": 1, "width": 16}
TINY = {
    "corpus": {"sampling_rate": RATE, "folder_is_speaker": True},
    "features": {"speeds": [1.0]},
    "alignment": {"rounds": 2, "leaves": 12, "min_count": 20, "model": NET | {"left_context": 1, "right_context": 1}},
    "systems": {
        "teacher": {"model": {"front": {"channels": [2]}, "width": 8}, "training": TRAINING | {"batch_size": 100}},
        "direct": {"model": NET, "seeds": 1, "training": TRAINING},
        "distilled": {"model": NET, "seeds": 1, "training": TRAINING},
    },
    "decoding": {"acoustic_scales": [0.2], "word_penalties": [0.0]},
    "evaluation": {"bootstrap_samples": 20},
}


def new(folder: Path | str, *options: str, corpus: str = "folder") -> Result:
    return CliRunner().invoke(main, ["new", str(folder), "--corpus", corpus, *options])


@pytest.mark.parametrize("language", ["en-GB", "fr", "no", "zh"])
@pytest.mark.parametrize("corpus", LAYOUTS)
def test_what_is_written_is_a_recipe(tmp_path: Path, corpus: str, language: str) -> None:
    result = new(tmp_path / "mine", "--language", language, corpus=corpus)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [".gitignore", "README.md", "conf", "run.sh"]
    config = load_config(tmp_path / "mine" / "conf" / "config.yaml")
    assert config.corpus.name == corpus and config.lang.language == language
    assert config.lang.units == ("phones" if language == "en-GB" else "characters")
    assert config.compare and set(config.sets) == {"train", "dev", "test"}
    assert os.access(tmp_path / "mine" / "run.sh", os.X_OK)


@pytest.mark.parametrize("corpus_dir", ["my speech", ""])
@pytest.mark.parametrize("corpus", LAYOUTS)
def test_the_readme_of_a_recipe_has_commands_that_can_be_typed(tmp_path: Path, corpus: str, corpus_dir: str) -> None:
    options = ["--corpus-dir", str(tmp_path / corpus_dir)] if corpus_dir else []
    (tmp_path / corpus_dir).mkdir(exist_ok=True)
    assert new(tmp_path / "a recipe", *options, corpus=corpus).exit_code == 0
    readme = (tmp_path / "a recipe" / "README.md").read_text()
    assert readme.startswith("# a recipe\n") and LAYOUTS[corpus] in readme and "{" not in readme.replace("{units:", "")
    assert not re.search(r"\n{3,}", readme) and ("--corpus-dir DIR" in readme) is not bool(corpus_dir)
    run, *commands = re.findall(r"^    (\S.*)$", readme, re.MULTILINE)
    assert shlex.split(run)[0] == str(tmp_path / "a recipe" / "run.sh")
    for line in commands:
        name, *arguments = shlex.split(line)[1:]
        main.commands[name].make_context(name, arguments)  # raises click.UsageError
    for name in re.findall(r"\| `asr-kd ([a-z-]+)", readme):
        assert name in main.commands


def test_run_sh_takes_options_and_names_what_is_wrong(tmp_path: Path) -> None:
    new(tmp_path / "mine")
    run = tmp_path / "mine" / "run.sh"
    calls = [["--help"], ["--fast"], ["--stage"], ["--stage", "9"], []]
    done = [subprocess.run([run, *options], capture_output=True, text=True, env=shim(tmp_path)) for options in calls]
    assert [result.returncode for result in done] == [0, 2, 2, 0, 2]
    assert done[0].stdout.startswith("Usage: run.sh")
    assert [result.stderr for result in done[1:4]] == [
        "run.sh: unknown option --fast; --help lists the options.\n",
        "run.sh: option --stage needs a value.\n",
        "",
    ]
    assert done[4].stderr.endswith("run.sh: name the folder of the corpus with --corpus-dir.\n")
    bare = subprocess.run(["/bin/bash", run], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert bare.returncode == 2 and "asr-kd is not on PATH" in bare.stderr


@pytest.mark.parametrize(("corpus", "status"), [("kaldi", 0), ("cuts", 0), ("table", 2)])
def test_commands_that_a_corpus_names_are_run_where_run_sh_allows_them(
    tmp_path: Path, corpus: str, status: int
) -> None:
    new(tmp_path / "mine", corpus=corpus)
    command = [tmp_path / "mine" / "run.sh", "--corpus-dir", tmp_path, "--stop-stage", "2", "--allow-pipes"]
    assert subprocess.run(command, env=shim(tmp_path), stderr=subprocess.DEVNULL).returncode == status
    if status == 0:
        assert (tmp_path / "calls").read_text().count("--allow-pipes\n") == 2  # prepare and features


def test_a_folder_that_holds_something_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert new(tmp_path / "mine").exit_code == 0  # empty
    (tmp_path / "mine" / "run.sh").write_text("my own")
    (tmp_path / "file").touch()
    for name in ("mine", "file"):
        result = new(tmp_path / name)
        assert result.exit_code == 2
        assert result.output == f"asr-kd new: {tmp_path / name} is not an empty folder; give the recipe a new one, or empty it.\n"  # fmt: skip  # noqa: E501
    assert (tmp_path / "mine" / "run.sh").read_text() == "my own"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--language", "français"], "--language français: lang.language: write a language as BCP 47 has it"),
        (["--corpus-dir", "nowhere"], "nowhere: there is no such folder; correct --corpus-dir"),
    ],
)
def test_where_something_is_wrong_nothing_is_written(tmp_path: Path, options: list[str], says: str) -> None:
    result = new(tmp_path / "mine", *options)
    assert result.exit_code == 2 and result.output.startswith(f"asr-kd new: {says}")
    assert not (tmp_path / "mine").exists()


def test_in_the_current_folder_the_printed_commands_work_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "\n./run.sh --corpus-dir CORPUS_DIR  #" in new(".").output


def speak(corpus: Path) -> None:
    """Six speakers, each in a folder, with MP3s and their transcripts."""
    rng = np.random.default_rng(3)
    for speaker in "abcdef":
        (corpus / "train" / speaker).mkdir(parents=True)
        for number in range(6):
            words = rng.choice(list(LEXICON), rng.integers(2, 5)).tolist()
            path = corpus / "train" / speaker / f"{number}.mp3"
            soundfile.write(path, say(words, rng), RATE)
            path.with_suffix(".txt").write_text(f"{' '.join(words).capitalize()}.\n")


def test_the_printed_commands_lead_from_a_folder_of_mp3s_to_a_report(tmp_path: Path) -> None:
    speak(tmp_path / "my speech")
    result = new(tmp_path / "mine", "--language", "fr", "--corpus-dir", str(tmp_path / "my speech"))
    printed = [line for line in result.output.splitlines() if "  # " in line]
    config = tmp_path / "mine" / "conf" / "config.yaml"
    config.write_text(dump_yaml(merged(load_yaml(config), TINY)))
    environment = shim(tmp_path)
    for line in printed:
        subprocess.run(line, shell=True, check=True, env=environment)
    calls = noted(tmp_path)
    assert [call[0] for call in calls] == [
        *("prepare", "prepare", "features", "align", "train", "soft-targets", "train", "decode", "report"),
    ]
    for call in calls:
        done = typed(shlex.join(["asr-kd", *call]))
        if call[0] == "prepare":
            assert "dev: 6 of 36 utterances were drawn from training, all those of 1 of 6 speakers" in done
    assert (tmp_path / "mine" / "exp" / "report" / "index.html").exists()
