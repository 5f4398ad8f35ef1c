"""Models on disk: what is loaded answers as what was saved, at its precision; damage is one sentence."""

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from torch import nn

from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.model_files import copy_members, load_model, save_model
from asr_kd.acoustic.settings import MODELS, DnnConfig, ModelConfig, ModelKind, TdnnConfig
from asr_kd.errors import UserError

KINDS: list[ModelConfig] = [
    DnnConfig(layers=2, width=8, left_context=1, right_context=0),
    TdnnConfig(width=8, kernel=3, dilations=(1, 2)),
    TdnnConfig(width=8, kernel=3, dilations=(1, 2), norm="layer"),
]


def make(settings: ModelConfig = KINDS[0], seeds: tuple[int, ...] = (4, 5, 6)) -> FrameModel:
    model = build_model(settings, num_dims=5, num_senones=7, seeds=seeds)
    model.precision = "float32"
    return model


@pytest.mark.parametrize("settings", KINDS)
def test_a_model_loads_from_its_folder_alone(settings: ModelConfig, tmp_path: Path) -> None:
    model = make(settings)
    model.train()(torch.randn(4, 30, 5))  # so that running statistics are no longer those of a new model
    save_model(model.eval(), tmp_path)
    loaded = load_model(tmp_path)
    assert not loaded.training
    features = torch.randn(9, 5)
    assert torch.equal(loaded.member_log_posteriors(features), model.member_log_posteriors(features))
    assert (loaded.settings, loaded.seeds, loaded.precision) == (settings, [4, 5, 6], "float32")
    assert (loaded.num_dims, loaded.num_senones, loaded.context) == (5, 7, settings.context)


@pytest.mark.parametrize("settings", KINDS)
def test_the_first_members_are_a_model_of_their_own(settings: ModelConfig, tmp_path: Path) -> None:
    model, (source, folder) = make(settings), (tmp_path / name for name in ("all", "first"))
    source.mkdir()
    folder.mkdir()
    save_model(model, source)
    copy_members(source, folder, 2)
    first, features = load_model(folder), torch.randn(9, 5)
    assert first.seeds == [4, 5] and first.precision == "float32"
    assert torch.allclose(first.member_log_posteriors(features), model.member_log_posteriors(features)[:2], atol=1e-6)


def test_copying_from_a_damaged_model_is_one_sentence(tmp_path: Path) -> None:
    source, folder = (tmp_path / name for name in ("all", "first"))
    source.mkdir()
    folder.mkdir()
    save_model(make(), source)
    (source / "member_1.safetensors").unlink()
    with pytest.raises(UserError, match=r"member_1.*train it again"):
        copy_members(source, folder, 2)
    (source / "model.yaml").write_text("seeds: 3")
    with pytest.raises(UserError, match="damaged"):
        copy_members(source, folder, 2)


def test_missing_or_damaged_member_is_one_sentence(tmp_path: Path) -> None:
    save_model(make(), tmp_path)
    (tmp_path / "member_1.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        load_model(tmp_path)
    (tmp_path / "member_1.safetensors").unlink()
    with pytest.raises(UserError, match="member_1"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="missing"):
        load_model(tmp_path / "elsewhere")


@pytest.mark.parametrize("change", [{"precision": "float8"}, {"num_senones": 8}, {"seeds": []}])
@pytest.mark.parametrize("key", ["kind", "width"])
def test_a_description_that_does_not_fit_is_one_sentence(change: dict, key: str, tmp_path: Path) -> None:
    save_model(make(), tmp_path)
    description = yaml.safe_load((tmp_path / "model.yaml").read_text())
    description["model"][key] = "other"
    for wrong in (description, yaml.safe_load((tmp_path / "model.yaml").read_text()) | change):
        (tmp_path / "model.yaml").write_text(yaml.safe_dump(wrong))
        with pytest.raises(UserError, match="this model is damaged"):
            load_model(tmp_path)


class Counting(FrameModel):
    """A kind with a buffer that all members share, and one that has no axis in a single model."""

    def __init__(self, settings: ModelConfig, **sizes: object) -> None:
        super().__init__(settings, **sizes)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm1d(self.num_dims * self.members)
        self.weight = nn.Parameter(torch.randn(self.members, self.num_dims, self.num_senones))

    def forward(self, frames: torch.Tensor, rng: object = None) -> torch.Tensor:
        normed = self.norm(frames[:, 0].repeat(1, self.members)).view(len(frames), self.members, self.num_dims)
        return torch.einsum("bmd,mdc->mbc", normed, self.weight)


def test_tensors_without_a_member_axis_are_saved_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchNorm's counter is one number for all members."""
    settings = replace(KINDS[0], left_context=0)  # type: ignore[call-arg]
    monkeypatch.setitem(MODELS, "dnn", ModelKind(DnnConfig, f"{__name__}:Counting"))
    model = make(settings)
    for _ in range(3):
        model.train()(torch.randn(20, 1, 5))
    save_model(model.eval(), tmp_path)
    assert safetensors.torch.load_file(str(tmp_path / "member_1.safetensors"))["norm.num_batches_tracked"] == 3
    loaded, inputs = load_model(tmp_path), torch.randn(6, 1, 5)
    assert torch.equal(loaded(inputs), model(inputs))
    assert torch.allclose(model.select_members([1])(inputs)[0], model(inputs)[1], atol=1e-6)
