"""Keys that configs had before version 0.2, each with one sentence that says the present way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asr_kd.errors import UserError

_SYSTEM = "name what is trained under systems: (see the recipes' configs)"
OLD_KEYS = {
    "teacher": f"{_SYSTEM}; an ensemble is a system with members: N",
    "student": f"{_SYSTEM}: a system without targets is trained directly, one with targets: {{from: ...}} is distilled",
    "small": f"{_SYSTEM}: a smaller model is one more system",
    "few": f"{_SYSTEM}: a system with train_fraction: 0.03 sees 3 % of the utterances",
    "monophone": f"{_SYSTEM}: the control is a system with tree: monophone",
    "soft_targets": "temperature, mean, keep_mass and max_entries stand in the targets: of a system; "
    "out_of_fold: K is a teacher with folds: K",
    "corpus.train_parts": "name the parts of each set under sets: {train: [...]}",
    "corpus.dev_parts": "name the parts of each set under sets: {dev: [...]}",
    "corpus.test_parts": "name the parts of each set under sets: {test: [...]}",
    "alignment.hidden": "write alignment: {model: {layers: 1, width: 128}}",
    "alignment.context": "write alignment: {model: {left_context: 1, right_context: 1}}",
    "alignment.shifts": "write alignment: {boundary_offsets: FILE}",
    "alignment.labels=own": "write alignment: {labels: forced}",
}


def check_for_old_keys(raw: Mapping[str, Any], where: str) -> None:
    """Raises UserError at a key, or a value, that has another name now."""
    for path, advice in OLD_KEYS.items():
        keys, _, value = path.partition("=")
        at: Any = raw
        for key in keys.split("."):
            at = at.get(key, _ABSENT) if isinstance(at, Mapping) else _ABSENT
        if at is not _ABSENT and (not value or at == value):
            raise UserError(f"{where}: {keys}{f': {value}' if value else ''} is an old setting: {advice}.")


_ABSENT = object()
