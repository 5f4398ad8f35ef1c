"""The switch: what the environment says is what runs, and both ways agree."""

import subprocess
import sys

import pytest
import torch

from asr_kd.errors import UserError
from asr_kd.kernels import dropout, optimizer, softmax, switch
from asr_kd.kernels.optimizer import FusedAdamW, adamw

VARIABLE = "ASR_KD_KERNELS"


@pytest.mark.parametrize(
    ("value", "numba"), [(None, True), ("numba", True), ("torch", False), ("adamw", True), ("dropout_mask", False)]
)
def test_the_variable_chooses(value: str | None, numba: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, value)
    assert switch.use_numba("adamw", torch.zeros(1)) == numba
    assert not switch.use_numba("adamw", torch.zeros(1, dtype=torch.float64))
    optimizer = adamw([torch.nn.Parameter(torch.zeros(2))], lr=0.1, weight_decay=0.0)
    assert isinstance(optimizer, FusedAdamW) == numba


def test_an_unknown_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "adamw,fast")
    with pytest.raises(UserError, match="ASR_KD_KERNELS=adamw,fast"):
        switch.use_numba("adamw", torch.zeros(1))


def test_every_kernel_of_the_switch_is_an_operation() -> None:
    assert all(any(hasattr(module, name) for module in (dropout, optimizer, softmax)) for name in switch.KERNELS)


def test_the_package_loads_neither_torch_nor_numba() -> None:
    script = "import sys, asr_kd.kernels.process; sys.exit(bool({'torch', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


@pytest.mark.parametrize("shape", [(5,), (3, 100), (2, 90, 100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_masks_do_not_depend_on_the_switch(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = []
    for value in ("numba", "torch"):
        monkeypatch.setenv(VARIABLE, value)
        masks.append(dropout.dropout_mask(shape, 0.3, dtype, key=2**63 + 12345))
    assert torch.equal(*masks) and masks[0].dtype == dtype
    assert set(masks[0].unique().tolist()) <= {0.0, torch.tensor(256 / 179, dtype=dtype).item()}


def test_adamw_with_copies_does_not_depend_on_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for value in ("numba", "torch"):
        monkeypatch.setenv(VARIABLE, value)
        generator = torch.Generator().manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(2, 30, 20, generator=generator))
        copy = weight.detach().bfloat16().requires_grad_()
        optimizer = adamw([weight], lr=0.01, weight_decay=0.1, copies={weight: copy})
        assert isinstance(optimizer, FusedAdamW) == (value == "numba")
        for _ in range(5):
            optimizer.zero_grad()
            copy.grad = torch.randn(copy.shape, generator=generator).bfloat16()
            optimizer.step()
        assert torch.equal(copy, weight.bfloat16())
        weights.append(weight.detach())
    torch.testing.assert_close(*weights)
