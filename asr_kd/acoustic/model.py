"""The acoustic model: fully connected, ReLU, softmax over tied states, with a leading member axis.

An ensemble is ONE module: weights (M, in, out) and batched products, so that M members train and run together; a
single model has M = 1.

Shapes:  M members, B frames in a batch, D inputs, C tied states.
"""

from __future__ import annotations

import itertools
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from torch import Tensor, nn

from asr_kd import kernels
from asr_kd.acoustic.lda import InputTransform
from asr_kd.acoustic.precision import compute_dtype
from asr_kd.acoustic.rng import StepRng
from asr_kd.errors import UserError
from asr_kd.workspace.config import ModelConfig, from_mapping, to_mapping


def _bmm(left: Tensor, right: Tensor) -> Tensor:
    """`torch.bmm`, or with more members than threads the last ones alone where they would leave threads idle.

    MKL gives each thread whole products in float32.
    """
    members, threads = len(left), torch.get_num_threads()
    together = members - members % threads
    if left.dtype != torch.float32 or left.device.type != "cpu" or together in (0, members):
        return torch.bmm(left, right)
    products = left.new_empty(members, left.shape[1], right.shape[2])
    torch.bmm(left[:together], right[:together], out=products[:together])
    for member in range(together, members):
        torch.mm(left[member], right[member], out=products[member])
    return products


class _Products(torch.autograd.Function):
    """`torch.bmm`, whose gradient oneDNN takes a sixth faster in bfloat16 where the turned inputs are laid out anew."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _bmm(inputs, weight)

    @staticmethod
    def backward(ctx: Any, *of_outputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (inputs, weight), (gradient,) = ctx.saved_tensors, of_outputs
        of_inputs = _bmm(gradient, weight.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        turned = inputs.transpose(1, 2)
        if turned.dtype == torch.bfloat16 and turned.device.type == "cpu":
            turned = turned.contiguous()
        return of_inputs, _bmm(turned, gradient) if ctx.needs_input_grad[1] else None


class MemberLinear(nn.Module):
    """M affine maps side by side.

    Args:
      shared_inputs: all members get the same inputs. The weights are laid out (in, M, out) then, as one wide product
        takes them and gives their gradient: else each step would copy them, and their gradient back.

    Attributes:
      copy: the weight in the number format of the products, which training computes with (`AcousticModel.hold_copies`).
    """

    def __init__(self, members: int, num_inputs: int, num_outputs: int, *, shared_inputs: bool = False) -> None:
        super().__init__()
        wide = torch.empty(num_inputs, members, num_outputs).transpose(0, 1)
        self.weight = nn.Parameter(wide if shared_inputs else wide.contiguous())
        self.bias = nn.Parameter(torch.zeros(members, 1, num_outputs))
        self.copy: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """(M, B, in), or (B, in) that all members share, -> (M, B, out), both in the type of `inputs`."""
        return self.products(inputs).add_(self.bias.to(inputs.dtype))

    def products(self, inputs: Tensor) -> Tensor:
        """The same without the biases."""
        weight = self.copy if self.copy is not None and self.training else self.weight.to(inputs.dtype)
        if inputs.dim() == 3:
            products: Tensor = _Products.apply(inputs, weight)
            return products
        # one wide product: a batched one would copy the inputs for every member, forwards and backwards
        members, _, outputs = weight.shape
        wide = inputs @ weight.transpose(0, 1).flatten(1)
        return wide.view(-1, members, outputs).transpose(0, 1)


class AcousticModel(nn.Module):
    """M nets of one shape. Dropout is applied only where `forward` is given noise.

    Args:
      settings: layers, width, dropout, max-norm, context.
      num_inputs: D.
      num_states: C.
      seeds: one per member; a member's first weights depend on its own seed alone.
      transform: of D inputs, in float32, to what the first layer takes, while it is trained; it is no part of the
        state, and `folded` takes it into the first layer.
    """

    _weight: Tensor | None  # of the transform
    _offset: Tensor | None

    def __init__(
        self,
        settings: ModelConfig,
        num_inputs: int,
        num_states: int,
        seeds: list[int],
        transform: InputTransform | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.num_inputs, self.num_states, self.seeds = num_inputs, num_states, list(seeds)
        self.register_buffer("_weight", None if transform is None else transform.weight, persistent=False)
        self.register_buffer("_offset", None if transform is None else transform.offset, persistent=False)
        taken = num_inputs if transform is None else transform.weight.shape[1]
        sizes = [taken] + [settings.width] * settings.layers + [num_states]
        self.layers = nn.ModuleList(
            MemberLinear(len(seeds), before, after, shared_inputs=number == 0 and not settings.input_dropout)
            for number, (before, after) in enumerate(itertools.pairwise(sizes))
        )
        self.precision = "auto"
        for member, seed in enumerate(seeds):
            self._initialise(member, seed)

    def _transform(self) -> InputTransform | None:
        return None if self._weight is None or self._offset is None else InputTransform(self._weight, self._offset)

    @property
    def members(self) -> int:
        return len(self.seeds)

    @property
    def parameters_per_member(self) -> int:
        return sum(p[0].numel() for p in self.parameters())

    @property
    def device(self) -> torch.device:
        return self.layers[0].weight.device

    def _initialise(self, member: int, seed: int) -> None:
        """He et al. (2015) for the hidden layers; the output layer starts small, near the uniform distribution."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in self.layers:
                # drawn apart: what is drawn depends on how memory is laid out
                weight = torch.empty(layer.weight.shape[1:])
                scale = 0.1 if layer is self.layers[-1] else 1.0
                layer.weight[member] = weight.normal_(0.0, scale * math.sqrt(2.0 / len(weight)), generator=generator)

    def forward(self, inputs: Tensor, noise: StepRng | None = None) -> Tensor:
        """Logits.

        Args:
          inputs: (B, D), the same frames for every member, or (M, B, D).
          noise: where dropout masks come from (training); None: no dropout.

        Returns:
          (M, B, C) float32.
        """
        dtype = compute_dtype(self.precision, self.device)
        transform = self._transform()
        hidden = (inputs if transform is None else inputs @ transform.weight - transform.offset).to(dtype)
        if noise is not None and self.settings.input_dropout:
            mask = noise.mask((self.members, *hidden.shape[-2:]), self.settings.input_dropout, dtype)
            hidden = hidden * mask
        for layer in self.layers[:-1]:
            products = layer.products(hidden)
            if noise is not None and self.settings.hidden_dropout:
                mask = noise.mask(tuple(products.shape), self.settings.hidden_dropout, dtype)
                hidden = kernels.relu_dropout(
                    products, layer.bias, mask, kernels.dropout_scale(self.settings.hidden_dropout, dtype)
                )
            else:
                hidden = kernels.relu_dropout(products, layer.bias)
        logits: Tensor = self.layers[-1](hidden)
        return logits.float()

    def some(self, members: list[int]) -> AcousticModel:
        """Another model, of these members alone, so that the others do not run with them; to be used, not trained."""
        seeds = [self.seeds[m] for m in members]
        model = AcousticModel(self.settings, self.num_inputs, self.num_states, seeds, self._transform())
        model.load_state_dict({name: value[members] for name, value in self.state_dict().items()})
        model.precision = self.precision
        return model.to(self.device).eval()

    @torch.no_grad()
    def folded(self) -> AcousticModel:
        """The same map without a transform: as one affine map with the first layer, found in float64."""
        transform = self._transform()
        if transform is None:
            return self
        model = AcousticModel(self.settings, self.num_inputs, self.num_states, self.seeds).to(self.device)
        state = self.state_dict()
        weight, bias = state["layers.0.weight"].double(), state["layers.0.bias"].double()
        state["layers.0.weight"] = transform.weight.double() @ weight
        state["layers.0.bias"] = bias - (transform.offset.double() @ weight).unsqueeze(1)
        model.load_state_dict(state)
        model.precision = self.precision
        return model.eval()

    @torch.no_grad()
    def log_probabilities(self, inputs: Tensor) -> Tensor:
        """(B, D) inputs -> (M, B, C) float32 natural-log posteriors at T = 1."""
        return self(inputs).log_softmax(-1)

    def hold_copies(self) -> dict[nn.Parameter, Tensor]:
        """From now on training computes with copies of the weights in the number format of the products.

        Returns:
          The copy of each such weight, which gets its gradient, and which whoever changes the weight has to change too;
          {} where the products are of float32 anyway.
        """
        dtype = compute_dtype(self.precision, self.device)
        if dtype == torch.float32:
            return {}
        for layer in self.layers:
            layer.copy = layer.weight.detach().to(dtype).requires_grad_()
        return {layer.weight: layer.copy for layer in self.layers}

    @torch.no_grad()
    def renew_copies(self) -> None:
        """After the weights were loaded."""
        for layer in self.layers:
            if layer.copy is not None:
                layer.copy.copy_(layer.weight)

    def drop_copies(self) -> None:
        """Training computes with the weights themselves again."""
        for layer in self.layers:
            layer.copy = None

    @torch.no_grad()
    def constrain(self) -> None:
        """Max-norm: each hidden unit's incoming weights are scaled back onto the ball where they left it."""
        limit = self.settings.max_norm
        if not limit:
            return
        for layer in self.layers[:-1]:
            kernels.clip_column_norms_(layer.weight, layer.copy, limit)


def save_model(model: AcousticModel, folder: Path) -> None:
    """Writes `model.yaml` and one `member_<k>.safetensors` per member (each is a whole single model)."""
    for member in range(model.members):
        tensors = {name: value[member].detach().cpu().contiguous() for name, value in model.state_dict().items()}
        safetensors.torch.save_file(tensors, str(_member(folder, member)))
    description = {
        "model": to_mapping(model.settings),
        "num_inputs": model.num_inputs,
        "num_states": model.num_states,
        "seeds": model.seeds,
    }
    _description(folder).write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")


def copy_members(source: Path, folder: Path, count: int) -> None:
    """Writes the first `count` members of the model in the folder `source` as a model of their own.

    Raises:
      UserError: `source` is no model, or has no such member.
    """
    try:
        description = yaml.safe_load(_description(source).read_text(encoding="utf-8"))
        description["seeds"] = list(description["seeds"])[:count]
        for member in range(count):
            shutil.copyfile(_member(source, member), _member(folder, member))
    except FileNotFoundError as error:
        raise UserError(f"{source}: {_missing(error)}") from None
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{source}: {_damaged(error)}") from None
    _description(folder).write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")


def load_model(folder: Path, device: str | torch.device = "cpu") -> AcousticModel:
    """Stacks the members of a folder into one model.

    Raises:
      UserError: the folder is no model, or a member's file is missing, damaged or of another shape.
    """
    try:
        description = yaml.safe_load(_description(folder).read_text(encoding="utf-8"))
        settings = from_mapping(ModelConfig, description["model"], str(_description(folder)))
        model = AcousticModel(
            settings, int(description["num_inputs"]), int(description["num_states"]), list(description["seeds"])
        )
        members = [safetensors.torch.load_file(str(_member(folder, k))) for k in range(len(model.seeds))]
        model.load_state_dict({name: torch.stack([m[name] for m in members]) for name in model.state_dict()})
    except FileNotFoundError as error:
        raise UserError(f"{folder}: {_missing(error)}") from None
    except (safetensors.SafetensorError, yaml.YAMLError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder}: {_damaged(error)}") from None
    return model.to(device).eval()


def _description(folder: Path) -> Path:
    return folder / "model.yaml"


def _member(folder: Path, member: int) -> Path:
    return folder / f"member_{member}.safetensors"


def _missing(error: FileNotFoundError) -> str:
    # safetensors tells the file in the message only
    return f"a part of the model is missing ({error}); train it again."


def _damaged(error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"this model is damaged ({reason}); delete it and train it again."


def without_dropout(settings: ModelConfig) -> ModelConfig:
    return replace(settings, input_dropout=0.0, hidden_dropout=0.0)
