"""Models on disk: `model.yaml` and one `member_<k>.safetensors` per member, each a whole single model.

`model.yaml` has the kind and settings, `num_dims`, `num_senones`, the members' seeds and the precision: a model loads
from its folder alone. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import safetensors.torch
import torch
import yaml
from torch import Tensor

from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.settings import MODELS, Precision
from asr_kd.errors import UserError
from asr_kd.settings import ChosenByName, to_mapping

_SETTINGS = ChosenByName(MODELS, key="kind", default="dnn")
_DAMAGES = (safetensors.SafetensorError, yaml.YAMLError, KeyError, TypeError, RuntimeError, ValueError)


def save_model(model: FrameModel, folder: Path) -> None:
    """Writes a model into an existing folder.

    Raises:
      ValueError: it has an input transform, which is not saved: `fold_input_transform` comes first; or a weight that
        is not finite.
    """
    if model.fold_input_transform() is not model:
        raise ValueError("a model with an input transform cannot be saved: call fold_input_transform first")
    for member in range(model.members):
        tensors = {name: value.detach().cpu().contiguous() for name, value in model.member_state(member).items()}
        _check_finite(tensors)
        safetensors.torch.save_file(tensors, str(_member(folder, member)))
    description = {
        "model": to_mapping(model.settings),
        "num_dims": model.num_dims,
        "num_senones": model.num_senones,
        "seeds": model.seeds,
        "precision": model.precision,
    }
    _write_description(folder, description)


def load_model(folder: Path, device: str | torch.device = "cpu") -> FrameModel:
    """Loads all members of a folder as one model, in evaluation mode.

    Raises:
      UserError: the folder is no model, or a member's file is missing, damaged or of another shape.
    """
    with _damage_is_an_error(folder):
        description = _read_description(folder)
        model = build_model(
            _SETTINGS.validate(description["model"]),
            num_dims=int(description["num_dims"]),
            num_senones=int(description["num_senones"]),
            seeds=list(description["seeds"]),
        )
        if description["precision"] not in get_args(Precision):
            raise ValueError(f"its precision is {description['precision']!r}")
        model.precision = description["precision"]
        states = [safetensors.torch.load_file(str(_member(folder, k))) for k in range(model.members)]
        for state in states:
            _check_finite(state)
        model.load_member_states(states)
    return model.to(device).eval()


def copy_members(source: Path, folder: Path, count: int) -> None:
    """Writes the first `count` members of the model in the folder `source` as a model of their own.

    Raises:
      UserError: `source` is no model, or has no such member.
    """
    with _damage_is_an_error(source):
        description = _read_description(source)
        description["seeds"] = list(description["seeds"])[:count]
        for member in range(count):
            _check_finite(safetensors.torch.load_file(str(_member(source, member))))
            shutil.copyfile(_member(source, member), _member(folder, member))
    _write_description(folder, description)


def _check_finite(state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} has numbers that are not finite")


def _read_description(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8")))


def _write_description(folder: Path, description: dict[str, Any]) -> None:
    (folder / "model.yaml").write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")


def _member(folder: Path, member: int) -> Path:
    return folder / f"member_{member}.safetensors"


@contextlib.contextmanager
def _damage_is_an_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:  # safetensors names the file in the message only
        raise UserError(f"{folder}: a part of the model is missing ({error}); delete it and train it again.") from None
    except _DAMAGES as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{folder}: this model is damaged ({reason}); delete it and train it again.") from None
