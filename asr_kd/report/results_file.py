"""`results.json` on disk: written, read back as typed results, and its JSON schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from pydantic import TypeAdapter

from asr_kd.errors import UserError
from asr_kd.report.mnist_results import MnistResults
from asr_kd.report.results import Results
from asr_kd.settings import to_mapping

T = TypeVar("T")


def as_json(results: Results) -> str:
    """The text of results.json; what a run does not have is left out.

    Raises:
      ValueError: a number is not finite.
    """
    body = to_mapping(results)
    for rows in ("systems", "rescored"):
        body[rows] = [_without_none(row) for row in body[rows]]
    body["alignment"] = _without_none(body["alignment"])
    return json.dumps(_without_none(body), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _without_none(entries: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entries.items() if value is not None}


def read_results(file: Path) -> Results:
    """Reads results.json.

    Raises:
      UserError: it is missing, or is no such file.
    """
    return _read(Results, file, f"delete {file.parent} and report again")


def read_mnist(folder: Path) -> MnistResults:
    """What recipes/mnist writes for a report: `section.json`, in the form of `MnistResults`.

    Raises:
      UserError: it is missing, or is no such file.
    """
    return _read(MnistResults, folder / "section.json", "run recipes/mnist/run.sh first")


def _read(cls: type[T], file: Path, advice: str) -> T:
    try:
        return TypeAdapter(cls).validate_json(file.read_bytes())
    except (OSError, pydantic.ValidationError) as error:
        raise UserError(f"{file} is missing or damaged ({error}); {advice}.") from None


def schema() -> dict[str, Any]:
    """The JSON schema of results.json."""
    return TypeAdapter(Results).json_schema()
