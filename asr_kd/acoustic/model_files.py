"""Models on disk: `model.yaml` and one `member_<k>.safetensors` per member, each a whole single model.

`model.yaml` has the kind and settings, `num_dims`, `num_senones`, the members' seeds and the precision: a model loads
from its folder alone. Nothing is unpickled. An ensemble of models that were trained apart is a `model.yaml` alone: it
names their folders (`parts`, relative to its own) and the digests of their stamps.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import safetensors.torch
import torch
import yaml
from torch import Tensor

from asr_kd.acoustic.joined import JoinedModels
from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.settings import MODELS, Precision
from asr_kd.errors import UserError, first_line
from asr_kd.io.files import digest_of, file_digest
from asr_kd.io.stamp import identity, read_stamp
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


def weights_digest(folder: Path) -> str:
    """Returns a digest of the members' files in a folder, 16 hexadecimal digits."""
    return digest_of([file_digest(file) for file in sorted(folder.glob("member_*.safetensors"))])[:16]


def load_model(folder: Path, device: str | torch.device = "cpu") -> FrameModel:
    """Loads all members of a folder as one model, in evaluation mode.

    Raises:
      UserError: the folder is no model, a member's file is missing, damaged or of another shape, or a part of an
        ensemble was trained again since.
    """
    with _damage_is_an_error(folder):
        description = _read_description(folder)
        if "parts" in description:
            parts = [_load_part(folder, part["folder"], part["digest"], device) for part in description["parts"]]
            return JoinedModels(parts).eval()
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


def join_models(parts: Sequence[Path], folder: Path) -> JoinedModels:
    """Writes the ensemble of all models in the folders `parts`, which stay where they are, into an existing folder.

    Raises:
      UserError: one of them holds no model, or has no stamp.
      ValueError: their dimensions or senones differ.
    """
    descriptions = []
    for part in parts:
        stamp = read_stamp(part)
        if stamp is None:
            raise UserError(f"{part} has no stamp: it holds no trained system.")
        relative = os.path.relpath(part.parent.resolve() / part.name, folder.resolve())
        descriptions.append({"folder": relative, "digest": identity(stamp)})
    model = JoinedModels([load_model(part) for part in parts])
    _write_description(folder, {"parts": descriptions})
    return model


def _load_part(folder: Path, relative: str, digest: str, device: str | torch.device) -> FrameModel:
    part = folder.resolve() / relative
    stamp = read_stamp(part)
    if stamp is None or identity(stamp) != digest:
        state = "is not there" if stamp is None else f"is {identity(stamp)} now"
        raise UserError(
            f"{folder} is an ensemble of other models than those there now ({os.path.normpath(part)}, {digest}, "
            f"{state}); train {folder.name} again."
        )
    return load_model(part, device)


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


def merge_members(sources: Sequence[Path], folder: Path) -> None:
    """Writes the models in the folders `sources`, which differ in their seeds alone, as the members of one model.

    Raises:
      UserError: one of them is no model, or of another shape.
    """
    descriptions: list[dict[str, Any]] = []
    for number, source in enumerate(sources):
        with _damage_is_an_error(source):
            descriptions.append(_read_description(source))
            if descriptions[-1] | {"seeds": []} != descriptions[0] | {"seeds": []}:
                raise ValueError(f"its model.yaml differs from that of {sources[0]} in more than the seed")
            _check_finite(safetensors.torch.load_file(str(_member(source, 0))))
            shutil.copyfile(_member(source, 0), _member(folder, number))
    seeds = [seed for description in descriptions for seed in description["seeds"]]
    _write_description(folder, descriptions[0] | {"seeds": seeds})


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
        raise UserError(
            f"{folder}: this model is damaged ({first_line(error)}); delete it and train it again."
        ) from None
