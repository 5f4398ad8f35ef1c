"""Settings from YAML files, the command line and plain data; what is wrong there is one sentence with file and key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from pydantic import TypeAdapter

from asr_kd.corpora.registry import CORPORA
from asr_kd.errors import UserError
from asr_kd.io.yaml_files import load_with_bases
from asr_kd.settings import dotted, first_error, keys_of, settings_class, to_mapping
from asr_kd.workspace.config import TRAIN, Config

T = TypeVar("T")


def load_config(path: Path) -> Config:
    """Reads a YAML file, and those that it extends by `base:`.

    Raises:
      UserError: a file cannot be read, is no YAML mapping, or has an unknown key or a value of a wrong type or range.
    """
    return from_mapping(Config, load_with_bases(path), str(path))


def with_settings(config: T, settings: Mapping[str, Any], where: str = "command line") -> T:
    """A copy with other values of some keys, each written with dots ("systems.direct.seeds"); None leaves a key.

    Raises:
      UserError: an unknown key, or a value of the wrong type or range.
    """
    raw = to_mapping(config)
    for path, value in settings.items():
        if value is None:
            continue
        *parents, key = path.split(".")
        at = raw
        for parent in parents:
            if not isinstance(at, dict) or parent not in at:
                raise UserError(f"{where}: there is no setting {path!r}.")
            at = at[parent]
        if not isinstance(at, dict):
            raise UserError(f"{where}: there is no setting {path!r}: what is above it is not set in the config.")
        at[key] = value
    return from_mapping(type(config), raw, where)


def from_mapping(cls: type[T], raw: Any, where: str) -> T:
    """Builds settings from plain data; `where` names the file for the error.

    Raises:
      UserError: an unknown key, or a value of the wrong type or range.
    """
    if not isinstance(raw, dict):
        raise UserError(f"{where}: expected a mapping of settings, not {raw!r}.")
    if cls is Config:
        _check_for_old_keys(raw, where)
        raw = _with_sets(raw, where)
    if (odd := _not_plain(raw)) is not None:
        location, reason = odd
        raise UserError(f"{where}: {dotted(location)}: {reason}.")
    try:
        # through JSON, whose lists pydantic takes for tuples where it is strict
        return TypeAdapter(cls).validate_json(json.dumps(raw), by_alias=True, by_name=False)
    except pydantic.ValidationError as error:
        raise UserError(f"{where}: {first_error(error, cls)}.") from None


_SYSTEM = "name what is trained under systems: (see the recipes' configs)"
OLD_KEYS = {  # keys before version 0.2, each with one sentence that says the present way
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
_ABSENT = object()


def _check_for_old_keys(raw: Mapping[str, Any], where: str) -> None:
    """Raises UserError at a key, or a value, that has another name now."""
    for path, advice in OLD_KEYS.items():
        keys, _, value = path.partition("=")
        at: Any = raw
        for key in keys.split("."):
            at = at.get(key, _ABSENT) if isinstance(at, Mapping) else _ABSENT
        if at is not _ABSENT and (not value or at == value):
            raise UserError(f"{where}: {keys}{f': {value}' if value else ''} is an old setting: {advice}.")


def _with_sets(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """The config with the sets that stand in corpus: moved to sets:; they are recognised by a set train."""
    corpus = raw.get("corpus")
    if not isinstance(corpus, dict) or TRAIN not in corpus:
        return raw
    entry = CORPORA.get(str(corpus.get("name")))
    if entry is None or not entry.names_sets:
        return raw
    # dev and test may also be mappings: what is drawn from training
    others = {*keys_of(settings_class(entry))} - {"dev", "test"}
    named = {key: value for key, value in corpus.items() if key not in others and isinstance(value, (str, list, dict))}
    if "sets" in raw:
        names = ", ".join(named)
        raise UserError(f"{where}: corpus: names {names}, and there is sets: too; name all sets in one of them.")
    sets = {
        name: [parts] if isinstance(parts, str) else [] if isinstance(parts, dict) else parts
        for name, parts in named.items()
    }
    rest = {key: value for key, value in corpus.items() if key not in named or isinstance(value, dict)}
    return raw | {"corpus": rest, "sets": sets}


def _not_plain(raw: Any, location: tuple[Any, ...] = (), above: tuple[int, ...] = ()) -> tuple[Any, str] | None:
    """Returns where something is no number, text, list or mapping, and what is wrong with it; None: all is plain."""
    if id(raw) in above:
        return location, "this contains itself"
    if isinstance(raw, (dict, list)):
        entries = raw.items() if isinstance(raw, dict) else enumerate(raw)
        inner = (_not_plain(value, (*location, key), (*above, id(raw))) for key, value in entries)
        return next((odd for odd in inner if odd is not None), None)
    if raw is None or isinstance(raw, (str, int, float)):
        return None
    return location, f"expected text, a number, true, false, a list or a mapping, not {raw!r}"
