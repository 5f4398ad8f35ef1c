"""Whether a kind of model keeps to what `FrameModel` asks, before hours go into training it."""

from __future__ import annotations

import torch

from asr_kd.acoustic.lda import InputTransform
from asr_kd.acoustic.model import FrameModel, build_model

_CHUNKS, _FRAMES = 2, 3  # of the probe; training may ask for one frame at a time, decoding asks for thousands


@torch.no_grad()
def check_kind(model: FrameModel, transform: InputTransform | None = None) -> None:
    """Looks at a model that has been built and not yet trained.

    Args:
      transform: that it was built with.

    Raises:
      TypeError: logits have another shape or format than (M, K * L, C) float32; or a member's tensors are not those of
        a model of its own with that seed. The class and the tensor are named.

    >>> from asr_kd.acoustic.settings import DnnConfig
    >>> check_kind(build_model(DnnConfig(layers=1, width=8), num_dims=4, num_senones=3, seeds=[1, 2]))
    """
    name, settings = type(model).__name__, model.settings
    device = next(model.parameters()).device
    frames = torch.zeros(_CHUNKS, model.context.width - 1 + _FRAMES, model.num_dims, device=device)
    logits, expected = model(frames), (model.members, _CHUNKS * _FRAMES, model.num_senones)
    if tuple(logits.shape) != expected or logits.dtype != torch.float32:
        raise TypeError(
            f"{name}.forward gives {tuple(logits.shape)} {logits.dtype} for {_CHUNKS} chunks of {_FRAMES} frames and "
            f"their context; (members, chunks * frames, senones) = {expected} torch.float32 is asked: every frame of "
            "a chunk is labelled, however many there are."
        )
    if model.members == 1:
        return
    sizes = {"num_dims": model.num_dims, "num_senones": model.num_senones}
    alone = build_model(settings, **sizes, seeds=model.seeds[-1:], transform=transform).state_dict()
    together = model.member_state(model.members - 1)
    for key in sorted(alone.keys() | together.keys()):
        if key not in alone or key not in together or alone[key].shape != together[key].shape:
            raise TypeError(
                f"{name}: {key} of one of {model.members} members is no tensor of a model alone; tensors have the "
                "members on their first axis, and modules for all members: MemberLinear is one."
            )
        if not torch.equal(alone[key].to(device), together[key]):
            raise TypeError(f"{name}: the first {key} of a member depends on more than its seed.")
