"""The folder that `asr-kd export` writes, whatever is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2

from asr_kd.alignment.tree import TREE
from asr_kd.decoding.graph import GRAPH
from asr_kd.errors import UserError, printable, some_of
from asr_kd.frames.normalisation import CMVN
from asr_kd.io.stamp import STAMP, read_stamp
from asr_kd.lang.lexicon import LANG_FILES
from asr_kd.runtime.folder import MODEL, SETTINGS

STEP, RESULT = "export", "export.json"
README = "README.md"
ONNX, SHERPA, RECOGNISER, KALDI = "onnx", "sherpa", "recogniser", "kaldi"  # forms
_FILES = {
    ONNX: {STAMP, RESULT},
    SHERPA: {STAMP, RESULT, README, "HLG.fst", "text.fst", "tokens.txt", "words.txt"},
    RECOGNISER: {STAMP, SETTINGS, TREE, GRAPH, CMVN, *LANG_FILES},
    KALDI: {STAMP, README, "HCLG.fst", "log_priors.txt", "tree.txt", *LANG_FILES},
}
_MORE = {  # names of further files
    ONNX: re.compile(r"[^/]+\.onnx"),
    SHERPA: re.compile(r"[^/]+\.onnx|test_wavs/\d\.wav"),
    RECOGNISER: re.compile(rf"{MODEL}/(part\d+/)?({re.escape(STAMP)}|model\.yaml|member_\d+\.safetensors)"),
}


def export_folder(folder: Path) -> Path:
    """The folder's absolute name.

    Raises:
      UserError: it cannot be written, or holds what no export has written.
    """
    folder = folder.absolute()
    if printable(str(folder)) != str(folder):
        raise UserError(f"{folder}: this name is not UTF-8, and onnxruntime cannot read it; give another folder.")
    if folder in (Path.cwd(), *Path.cwd().parents):
        raise UserError(f"{folder} is where this command runs; give the name of a new folder.")
    if not folder.exists():
        return folder
    files = [path for path in folder.rglob("*") if not path.is_dir()] if folder.is_dir() else []
    inside = [str(path.relative_to(folder)) for path in files]
    stamp = read_stamp(folder) if folder.is_dir() else None
    form = stamp["settings"].get("form", ONNX) if stamp is not None and stamp["step"] == STEP else ""
    others = [name for name in inside if not _is_of(form, name)]
    if others or not folder.is_dir():
        which = f" ({some_of(sorted(others))})" if others else ""
        raise UserError(f"{folder} holds other files{which}; name a new folder.")
    return folder


def _is_of(form: str, name: str) -> bool:
    """Whether an export of this form ("": none) writes files of this name."""
    return name in _FILES.get(form, ()) or (form in _MORE and _MORE[form].fullmatch(name) is not None)


def write_readme(folder: Path, template: str, **values: Any) -> None:
    """README.md, by the template in the folder `template` beside this module."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("asr_kd.stages", template),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(f"{README}.j2").render(**values)
    (folder / README).write_text(text, encoding="utf-8")
