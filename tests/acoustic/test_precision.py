"""A device is named as torch names it."""

from __future__ import annotations

import pytest
import torch

from asr_kd.acoustic.precision import pick_device
from asr_kd.errors import UserError


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cpu").type == "cpu" and pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(UserError, match="'gpu' is no device; name auto, cpu, cuda or cuda:<number>"):
        pick_device("gpu")
    with pytest.raises(UserError, match="there is no device 'cuda:1': torch sees 1 CUDA devices"):
        pick_device("cuda:1")
