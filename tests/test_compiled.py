"""Machine code where it cannot be kept."""

from typing import Any

import pytest

from asr_kd import compiled as module


def test_machine_code_needs_no_folder_to_be_kept_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that nobody may write to, for a user without a home."""
    calls = []

    def njit(**options: Any) -> Any:
        calls.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(module.numba, "njit", njit)
    assert module.compiled(parallel=True)(len) is len
    assert [bool(options.get("cache")) for options in calls] == [True, False]
    assert all(options["parallel"] and options["nogil"] for options in calls)
