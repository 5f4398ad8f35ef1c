"""Mistakes that a new kind of model may make are named before it is trained."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from asr_kd.acoustic.kind_check import check_kind
from asr_kd.acoustic.lda import InputTransform
from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.settings import MODELS, DnnConfig, ModelConfig, ModelKind, TdnnConfig

SIZES = {"num_dims": 4, "num_senones": 3}
DNN = DnnConfig(layers=1, width=8, left_context=1, right_context=1)


class Kind(FrameModel):
    """Right, but for what tests change."""

    def __init__(self, settings: ModelConfig, *, num_dims: int, num_senones: int, seeds: Sequence[int]) -> None:
        super().__init__(settings, num_dims=num_dims, num_senones=num_senones, seeds=seeds)
        self.weight = nn.Parameter(torch.stack([self.first(torch.Generator().manual_seed(seed)) for seed in seeds]))

    def first(self, rng: torch.Generator) -> Tensor:
        return torch.randn(self.context.width * self.num_dims, self.num_senones, generator=rng)

    def forward(self, frames: Tensor, rng: object = None) -> Tensor:
        windows = frames.unfold(1, self.context.width, 1).flatten(2).flatten(0, 1)
        return windows @ self.weight


class LastFrame(Kind):
    def forward(self, frames: Tensor, rng: object = None) -> Tensor:
        return super().forward(frames[:, -self.context.width :])


class Half(Kind):
    def forward(self, frames: Tensor, rng: object = None) -> Tensor:
        return super().forward(frames).bfloat16()


class NoMembers(Kind):
    def forward(self, frames: Tensor, rng: object = None) -> Tensor:
        return super().forward(frames)[0]


class ModulePerMember(Kind):
    def __init__(self, settings: ModelConfig, *, num_dims: int, num_senones: int, seeds: Sequence[int]) -> None:
        super().__init__(settings, num_dims=num_dims, num_senones=num_senones, seeds=seeds)
        self.nets = nn.ModuleList(nn.Linear(2, 2) for _ in seeds)


class SharedDraws(Kind):
    def first(self, rng: torch.Generator) -> Tensor:
        return torch.randn(self.context.width * self.num_dims, self.num_senones)


def built(kind: type[FrameModel], monkeypatch: pytest.MonkeyPatch) -> FrameModel:
    monkeypatch.setitem(MODELS, "dnn", ModelKind(DnnConfig, f"{__name__}:{kind.__name__}"))
    monkeypatch.setattr("pkgutil.resolve_name", lambda name: globals()[name.rpartition(":")[2]])
    return build_model(DNN, **SIZES, seeds=[1, 2])


def test_a_right_kind_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    check_kind(built(Kind, monkeypatch))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (LastFrame, r"LastFrame.forward gives \(2, 2, 3\) .* for 2 chunks of 3 frames .* = \(2, 6, 3\) torch.float32"),
        (Half, "gives .* torch.bfloat16 for"),
        (NoMembers, r"gives \(6, 3\) "),
        (ModulePerMember, r"ModulePerMember: nets.0.bias of one of 2 members is no tensor of a model alone; .*MemberL"),
        (SharedDraws, "SharedDraws: the first weight of a member depends on more than its seed"),
    ],
)
def test_a_mistake_is_named(kind: type[FrameModel], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=says):
        check_kind(built(kind, monkeypatch))


@pytest.mark.parametrize("seeds", [[1], [3, 4, 5]])
def test_the_kinds_there_are_pass(seeds: list[int]) -> None:
    for settings in (DNN, TdnnConfig(width=16, dilations=(1, 2), chunk_frames=20)):
        model = build_model(settings, **SIZES, seeds=seeds)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        check_kind(model)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    transform = InputTransform(torch.eye(12)[:, :5], torch.zeros(5))
    check_kind(build_model(DNN, **SIZES, seeds=seeds, transform=transform), transform)
