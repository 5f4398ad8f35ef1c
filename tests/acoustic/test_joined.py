"""Models of several kinds as one ensemble: its logits are theirs, each with its own context."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch

from asr_kd.acoustic.joined import JoinedModels
from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.model_files import join_models, load_model, save_model
from asr_kd.acoustic.settings import DnnConfig, ModelConfig, TdnnConfig
from asr_kd.errors import UserError
from asr_kd.frames.source import Context
from asr_kd.io.stamp import Stamp

KINDS: dict[str, tuple[ModelConfig, list[int]]] = {
    "dnns": (DnnConfig(layers=1, width=8, left_context=6, right_context=1), [1, 2]),
    "tdnn": (TdnnConfig(width=8, kernel=3, dilations=(1, 2)), [3]),
    "narrow": (DnnConfig(layers=1, width=6, left_context=0, right_context=0), [4, 5]),
}


def make(name: str, num_dims: int = 5, num_senones: int = 7) -> FrameModel:
    settings, seeds = KINDS[name]
    model = build_model(settings, num_dims=num_dims, num_senones=num_senones, seeds=seeds)
    model.precision = "float32"
    return model


def write(root: Path) -> dict[str, FrameModel]:
    models = {name: make(name) for name in KINDS}
    for name, model in models.items():
        (root / name).mkdir(parents=True)
        save_model(model, root / name)
        Stamp("train", {"name": name}, {}).write(root / name / "stamp.json")
    return models


def join(root: Path, name: str = "joined") -> Path:
    (root / name).mkdir()
    join_models([root / part for part in KINDS], root / name)
    return root / name


@pytest.mark.parametrize("length", [1, 9])
def test_logits_are_those_of_the_parts_in_float64(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    monkeypatch.setattr(FrameModel, "compute_dtype", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # logits stay as they are computed
    models = [make(name).double() for name in KINDS]
    ensemble = JoinedModels(models)
    assert ensemble.context == Context(6, 4) and ensemble.members == 5
    frames = torch.randn(3, length + 10, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits = ensemble(frames)
    assert logits.dtype == torch.float64 and logits.shape == (5, 3 * length, 7)
    member = 0
    for model in models:
        before, after = 6 - model.context.left, 4 - model.context.right
        each = model(frames[:, before : frames.shape[1] - after])
        assert torch.equal(logits[member : member + model.members], each)
        member += model.members


def test_utterances_are_labelled_as_by_each_part_alone() -> None:
    models = [make(name) for name in KINDS]
    ensemble, features = JoinedModels(models).eval(), torch.randn(23, 5)
    each = torch.cat([model.eval().member_log_posteriors(features) for model in models])
    torch.testing.assert_close(ensemble.member_log_posteriors(features), each)
    mean = each.double().exp().mean(0).log().float()
    torch.testing.assert_close(ensemble.log_posteriors(features), mean)
    for chosen in ([4, 0, 1, 2], [2], [3, 4]):
        some = ensemble.select_members(chosen)
        torch.testing.assert_close(some.member_log_posteriors(features), each[chosen])
        assert some.seeds == [ensemble.seeds[member] for member in chosen]
    assert ensemble.select_members([2]).settings == KINDS["tdnn"][0]
    assert len(ensemble.member_parameters) == 5
    assert sum(ensemble.member_parameters) == sum(p.numel() for model in models for p in model.parameters())


def test_models_of_other_senones_or_dimensions_are_refused() -> None:
    for other in (make("tdnn", num_senones=8), make("tdnn", num_dims=4)):
        with pytest.raises(ValueError, match="must have the same dimensions and senones"):
            JoinedModels([make("dnns"), other])
    with pytest.raises(ValueError, match="no state in common"):
        JoinedModels([make("dnns"), make("tdnn")]).member_state(0)


def test_an_ensemble_on_disk_names_its_parts(tmp_path: Path) -> None:
    models = write(tmp_path / "exp")
    folder = join(tmp_path / "exp")
    assert [file.name for file in folder.iterdir()] == ["model.yaml"]
    features = torch.randn(9, 5)
    expected = torch.cat([model.member_log_posteriors(features) for model in models.values()])
    shutil.move(tmp_path / "exp", tmp_path / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "moved" / "joined")
    for place in (tmp_path / "moved" / "joined", tmp_path / "link"):
        torch.testing.assert_close(load_model(place).member_log_posteriors(features), expected)


def test_parts_that_changed_or_are_damaged_are_one_sentence(tmp_path: Path) -> None:
    write(tmp_path)
    folder = join(tmp_path)
    Stamp("train", {"name": "other"}, {}).write(tmp_path / "tdnn" / "stamp.json")
    with pytest.raises(UserError, match=r"joined is an ensemble of other models .*/tdnn, .* now\); train joined again"):
        load_model(folder)
    shutil.rmtree(tmp_path / "tdnn")
    with pytest.raises(UserError, match=r"/tdnn, .*, is not there\)"):
        load_model(folder)
    with pytest.raises(UserError, match="tdnn has no stamp"):
        join(tmp_path, "again")
    for text in ("parts: 3", "parts: [{folder: ../dnns}]", "parts: []"):
        (folder / "model.yaml").write_text(text)
        with pytest.raises(UserError, match="joined: this model is damaged"):
            load_model(folder)


def test_members_count_alike() -> None:
    models = [make("dnns"), make("tdnn")]
    with torch.no_grad():
        models[1].output.bias.add_(torch.tensor([50.0, *[0.0] * 6]))  # sure of its first senone
    (row,) = JoinedModels(models).log_posteriors(torch.zeros(1, 5))
    assert float(row[0].exp()) > 1 / 3 and float(row[1:].exp().sum()) < 2 / 3
    assert math.isclose(float(row.exp().sum()), 1, rel_tol=1e-5)
