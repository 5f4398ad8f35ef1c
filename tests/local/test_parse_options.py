"""local/parse_options.sh: options are the variables that a script declares, and nothing else is accepted."""

import subprocess
from pathlib import Path

import pytest

LOCAL = Path(__file__).parents[2] / "local"

SCRIPT = f"""#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
help_message="Usage: run.sh [options] [words]"
stage=0              # first stage to run
stop_stage=8
some_option="a b"    # two words
skip_bad=false       # leave out what cannot be used
empty=
PRIVATE=1
. "{LOCAL}/log.sh"
. "{LOCAL}/parse_options.sh"
later=1
printf '%s|' "$stage" "$stop_stage" "$some_option" "$skip_bad" "$empty" "$@"
if stage 3; then log "Stage 3: run"; fi
"""


@pytest.fixture
def run(tmp_path):
    """Runs the script above, by a relative name, as a user would; environment variables may be given."""
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "run.sh").write_text(SCRIPT)

    def call(*words, **env):
        command = ["bash", "recipe/run.sh", *words]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"} | env
        )

    return call


def test_defaults_stay_without_options(run):
    done = run()
    assert (done.returncode, done.stdout) == (0, "0|8|a b|false||")


@pytest.mark.parametrize("words", [("--some-option", "x y"), ("--some-option=x y",), ("--some_option", "x y")])
def test_dashes_and_equals_sign_set_the_variable(run, words):
    assert run(*words).stdout == "0|8|x y|false||"


def test_positionals_follow_the_options(run):
    assert run("--stage", "2", "one", "--stage", "5").stdout == "2|8|a b|false||one|--stage|5|"
    assert run("--stage", "2", "--", "--one").stdout == "2|8|a b|false||--one|"


def test_values_are_never_evaluated(run):
    assert run("--empty", "$(echo no) `id` ; true", "--some-option==").stdout == "0|8|=|false|$(echo no) `id` ; true|"


@pytest.mark.parametrize(
    "word", ["--unknown", "--PRIVATE", "--later", "--help-message", "--path", "--stage;id", "--empty\nstage", "-x"]
)
def test_unknown_option_dies(run, word):
    done = run(word, "1", path="/usr/bin")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("run.sh: unknown option")
    assert run(f"{word}=1").returncode == 2


def test_missing_value_dies(run):
    done = run("--stage")
    assert (done.returncode, done.stderr) == (2, "run.sh: option --stage needs a value.\n")


def test_boolean_takes_true_or_false_only(run):
    assert run("--skip-bad", "true").stdout == "0|8|a b|true||"
    done = run("--skip-bad", "yes")
    assert (done.returncode, done.stderr) == (2, "run.sh: --skip-bad takes true or false, not 'yes'.\n")


def test_help_prints_message_options_and_defaults(run):
    done = run("--stage", "4", "--help", "--unknown")
    assert done.returncode == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "Usage: run.sh [options] [words]"
    assert "--skip-bad false # leave out what cannot be used" in lines
    assert "--stop-stage 8" in lines
    assert '--empty ""' in lines
    assert "later" not in done.stdout and "PRIVATE" not in done.stdout


def test_environment_cannot_add_or_hide_an_option(run):
    assert run("--stage", "1", stage="7").stdout == "1|8|a b|false||"
    assert run("--home", "1", home="x").returncode == 2


@pytest.mark.parametrize(("words", "runs"), [((), True), (("--stage", "4"), False), (("--stop-stage", "2"), False)])
def test_stage_runs_between_stage_and_stop_stage(run, words, runs):
    done = run(*words)
    assert done.returncode == 0
    assert ("Stage 3: run" in done.stderr) == runs
