"""Whether a corpus is still the one that stage 1 read: what its files were then is noted in data/.

data/files.json is of the files that the config's sets were read from, data/files_<set>.json of those of a set that was
added. A file that is gone does not count: whoever needs the space may delete it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from asr_kd.errors import UserError, some_of
from asr_kd.io.files import write_json
from asr_kd.io.fingerprint import Fingerprint, read_fingerprints
from asr_kd.workspace.sets import added_sets, prepare_command
from asr_kd.workspace.work import Workspace

_ADVICE = "delete it, then run asr-kd prepare again."


def note_files(work: Workspace, files: Mapping[str, Fingerprint], added_set: str = "") -> None:
    """Writes the note unless it says the same already.

    Args:
      files: name, absolute or relative to the work folder -> what the file is.
    """
    note = _note(work, added_set)
    if read_fingerprints(note, _ADVICE) != files:
        write_json(note, files)


def check_inputs_unmodified(work: Workspace) -> None:
    """Checks that the files of the corpus are still what stage 1 read, as far as that was noted.

    Raises:
      UserError: a file changed, or a note is damaged.
    """
    for name in ("", *added_sets(work)):
        noted = read_fingerprints(_note(work, name), _ADVICE)
        files = ((work.root / file, before) for file, before in noted.items())
        if changed := [str(path) for path, before in files if path.exists() and not before.matches(path)]:
            raise UserError(
                f"{some_of(changed, 1)} changed after {work.data} was made; read the corpus again: "
                f"{work.command(prepare_command(work, name))}"
            )


def _note(work: Workspace, added_set: str) -> Path:
    return work.data / (f"files_{added_set}.json" if added_set else "files.json")
