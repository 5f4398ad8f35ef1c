"""Lines that documents show, as a reader types them: commands of asr-kd run in this process, which has loaded torch.

So do those that a recipe's script calls: the script itself runs with programs that only note their arguments.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from click.testing import CliRunner

from asr_kd.cli import main

RECORDER = """#!/bin/sh
for argument; do printf '%s\\n' "$argument" >>"$CALLS"; done
echo >>"$CALLS"
"""


def shim(root: Path, *programs: str) -> dict[str, str]:
    """An environment of one core in which asr-kd and `programs` only note their arguments in root/calls."""
    (root / "bin").mkdir(exist_ok=True)
    for name, text in {**dict.fromkeys(("asr-kd", *programs), RECORDER), "nproc": "#!/bin/sh\necho 1\n"}.items():
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    return os.environ | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "CALLS": str(root / "calls")}


def noted(root: Path) -> list[list[str]]:
    """The arguments of each call, which are then forgotten."""
    calls = (root / "calls").read_text().split("\n\n")
    (root / "calls").unlink()
    return [call.splitlines() for call in calls if call]


def typed(line: str) -> str:
    """Runs a command of asr-kd in this process, another as it is; returns what it prints."""
    program, *arguments = shlex.split(line)
    if program != "asr-kd":
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, (line, result.output)
    return result.output


def typed_script(line: str, root: Path) -> None:
    """Runs a script, which notes its calls of asr-kd in the folder `root`, and then these."""
    root.mkdir(exist_ok=True)
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, env=shim(root), check=False)
    assert done.returncode == 0, (line, done.stderr)
    for call in noted(root):
        typed(shlex.join(["asr-kd", *call]))
