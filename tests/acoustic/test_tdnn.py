"""The time-delay net: its context, its members, chunks of any length, and training on chunks through the one loop."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_kd.acoustic.criteria import DevScorer, HardTargets
from asr_kd.acoustic.model import FrameModel, build_model, member_slice
from asr_kd.acoustic.rng import StepRng
from asr_kd.acoustic.settings import AugmentConfig, FrontConfig, ModelConfig, Precision, TdnnConfig, TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.errors import UserError
from asr_kd.frames.source import Context
from asr_kd.frames.windows import WindowedFrames, windows_of
from asr_kd.settings import to_mapping
from asr_kd.workspace.config_files import from_mapping

from ..stores import write_store

CPU = torch.device("cpu")
SETTINGS = TdnnConfig(width=12, kernel=3, dilations=(1, 2), chunk_frames=20)
TRAINING = TrainingConfig(epochs=3, batch_size=80, learning_rate=5e-3, precision="float32")
NORM_STATE = ["weight", "bias", "running_mean", "running_var"]
KINDS = {
    "batch": SETTINGS,
    "layer": replace(SETTINGS, norm="layer"),
    "factored": replace(SETTINGS, bottleneck=6),
    "front": replace(SETTINGS, front=FrontConfig((8, 8)), norm="layer"),
}


def make(settings: TdnnConfig = SETTINGS, seeds: tuple[int, ...] = (1, 2)) -> FrameModel:
    model = build_model(settings, num_dims=4, num_senones=3, seeds=seeds)
    model.precision = "float32"
    return model


def trained_statistics(model: FrameModel) -> FrameModel:
    """With running statistics that differ from those of a new model."""
    model.train()(2 + 3 * torch.randn(5, 40, 4, generator=torch.Generator().manual_seed(0)))
    return model.eval()


class Delayed:
    """Speech whose labels lie in its past: no model without context can learn it."""

    def __init__(self, folder: Path, lengths: tuple[int, ...] = (90, 45, 12, 130), seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        drawn = [rng.integers(0, 3, n) for n in lengths]
        frames = [np.pad(2.0 * np.eye(3)[d], ((0, 0), (0, 1))) + rng.normal(0, 0.3, (len(d), 4)) for d in drawn]
        utterances = [(f"u{k}", x.astype(np.float32)) for k, x in enumerate(frames)]
        self.store = write_store(folder, utterances, groups=["all"] * len(lengths))
        self.labels = np.concatenate([np.append(d[:1], d[:-1]) for d in drawn])

    def windows(self, settings: ModelConfig = SETTINGS) -> WindowedFrames:
        windows = windows_of(self.store, settings.context)
        assert isinstance(windows, WindowedFrames)
        return windows


@pytest.fixture
def speech(tmp_path: Path) -> Delayed:
    return Delayed(tmp_path / "store")


def run(speech: Delayed, model: FrameModel, training: TrainingConfig = TRAINING, valid=None, **options):
    windows = speech.windows(model.settings)
    criterion = options.pop("criterion", HardTargets(speech.labels, CPU))
    control = RunControl(seed=3, evaluate=DevScorer(windows, speech.labels), **options)
    return fit(model, TrainingData(windows, valid), criterion, training, control)


def test_the_context_is_what_the_settings_say() -> None:
    assert TdnnConfig().context == Context(15, 15)
    assert SETTINGS.context == Context(1 + 1 + 2, 1 + 1 + 2)
    assert KINDS["factored"].context == SETTINGS.context
    assert KINDS["front"].context == Context(2 + 4, 2 + 4)
    assert TdnnConfig(kernel=1, dilations=()).context == Context(0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_the_context_matter_and_others_do_not(kind: str) -> None:
    model = trained_statistics(make(KINDS[kind]))
    around = model.context.frames
    frames = torch.randn(1, 20 + around, 4)
    before, number = model(frames), 9  # a frame of the chunk; its window begins with frame 9 of the input
    for row in range(20 + around):
        altered = frames.clone()
        altered[0, row] += torch.tensor([1.0, -2.0, 0.5, 1.0])
        same = torch.equal(model(altered)[:, number], before[:, number])
        assert same == (not 9 <= row <= 9 + around), row


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_have_the_logits_of_single_frames_and_of_whole_utterances(
    kind: str, speech: Delayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, windows = trained_statistics(make(KINDS[kind])), speech.windows(KINDS[kind])
    single = model(windows.inputs(torch.arange(90)))
    chunks = model(windows.inputs(torch.tensor([0, 20, 40, 60]), 20))
    assert torch.allclose(single[:, :80], chunks, atol=1e-5)
    features = torch.from_numpy(speech.store.normalised(0))
    assert torch.allclose(model.member_log_posteriors(features), single.log_softmax(-1), atol=1e-5)
    monkeypatch.setattr("asr_kd.acoustic.model.FRAMES_AT_ONCE", 7)
    assert torch.allclose(model.member_log_posteriors(features), single.log_softmax(-1), atol=1e-5)


def test_forward_is_what_the_equations_say() -> None:
    """As explicit sums in float64 over one member's weights."""
    model = trained_statistics(make())
    frames = torch.randn(1, 5 + 8, 4)
    state = {name: value.double() for name, value in model.member_state(1).items()}

    def convolve(x: torch.Tensor, weight: torch.Tensor, dilation: int) -> torch.Tensor:
        taps = weight.shape[-1]
        count = len(x) - (taps - 1) * dilation
        return sum(x[k * dilation : k * dilation + count] @ weight[:, :, 0, k].T for k in range(taps))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        unit = (x - state[f"{name}.running_mean"]) / (state[f"{name}.running_var"] + 1e-5).sqrt()
        return unit * state[f"{name}.weight"] + state[f"{name}.bias"]

    hidden = norm(convolve(frames[0].double(), state["input.weight"], 1), "input_norm").clamp_min(0)
    for k, dilation in enumerate((1, 2)):
        new = norm(convolve(hidden, state[f"blocks.{k}.weight"], dilation), f"norms.{k}").clamp_min(0)
        hidden = 0.66 * hidden[dilation:-dilation] + new
    logits = hidden @ state["output.weight"][0] + state["output.bias"][0, 0]
    assert torch.allclose(model(frames)[1].double(), logits, atol=1e-5)
    assert model.parameters_per_member == 12 * (4 * 3) + 2 * 12 * 12 * 3 + 3 * 2 * 12 + 12 * 3 + 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_learns_what_it_learns_alone(kind: str, speech: Delayed) -> None:
    settings, training = KINDS[kind], replace(TRAINING, clip_norm=0.5)
    together, alone = make(settings, (1, 2, 3)), make(settings, (2,))
    run(speech, together, training)
    run(speech, alone, training)
    for name, value in alone.state_dict().items():
        assert torch.allclose(value, together.member_state(1)[name], atol=1e-4), name
    assert not torch.allclose(together.member_state(0)["output.weight"], together.member_state(1)["output.weight"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_member_has_the_logits_and_gradients_that_it_has_alone(kind: str, precision: Precision) -> None:
    together, alone = make(KINDS[kind], (1, 2, 3)).train(), make(KINDS[kind], (2,)).train()
    frames = torch.randn(4, 20 + together.context.frames, 4, generator=torch.Generator().manual_seed(3))
    direction = torch.randn(4 * 20, 3, generator=torch.Generator().manual_seed(4))
    tolerance = 1e-5 if precision == "float32" else 0.03  # of the norm; bfloat16 has eight bits
    for model in (together, alone):
        model.precision = precision
        (model(frames) * direction).sum().backward()
    assert close(alone(frames)[0], together(frames)[1], tolerance)
    for (name, expected), weight in zip(alone.named_parameters(), together.parameters(), strict=True):
        assert expected.grad is not None and weight.grad is not None
        assert close(expected.grad, member_slice(weight.grad, 1, 3), tolerance), name


def close(expected: torch.Tensor, value: torch.Tensor, tolerance: float) -> bool:
    """Whether they differ by a vector of at most that share of the norm."""
    return bool((value - expected).norm() <= tolerance * expected.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns_what_needs_context(kind: str, precision: str, speech: Delayed, tmp_path: Path) -> None:
    model = make(replace(KINDS[kind], dropout=0.05))
    progress = run(speech, model, replace(TRAINING, epochs=25, precision=precision))
    assert min(progress.best_accuracy) > 0.9  # chance is a third
    # what it learnt serves other speech
    other = Delayed(tmp_path / "other", seed=1)
    assert min(DevScorer(other.windows(model.settings), other.labels)(model).accuracy) > 0.85


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed_after", [2, 5, 9])
def test_a_killed_run_resumes_to_the_same_weights(killed_after: int, speech: Delayed, tmp_path: Path) -> None:
    settings = replace(SETTINGS, dropout=0.1)
    training = replace(TRAINING, augment=AugmentConfig(freq_masks=1, freq_width=2, time_masks=2))
    whole = make(settings)
    expected = run(speech, whole, training)
    calls = 0

    class DiesAfter(HardTargets):
        def __call__(self, logits, batch):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls > killed_after:
                raise Killed
            return super().__call__(logits, batch)

    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        dies = DiesAfter(speech.labels, CPU)
        run(speech, make(settings), training, criterion=dies, checkpoint=checkpoint, checkpoint_seconds=0.0)
    resumed = make(settings, (7, 8))  # other weights: all must come from the checkpoint
    resumed.seeds = whole.seeds  # of dropout
    progress = run(speech, resumed, training, checkpoint=checkpoint)
    assert expected.step > 9 and progress.rows[-1]["loss"] == expected.rows[-1]["loss"]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_frames_without_a_label_change_nothing(speech: Delayed) -> None:
    """Whatever their label would be."""
    valid = np.random.default_rng(0).random(len(speech.labels)) < 0.7
    models = []
    for other in (-1, 2):
        labels = np.where(valid, speech.labels, other)
        models.append(make())
        progress = run(speech, models[-1], valid=valid, criterion=HardTargets(labels, CPU))
        assert progress.epoch == 3
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name


def test_dropout_is_shared_over_time() -> None:
    model = make(replace(SETTINGS, dropout=0.5, dilations=(1,), residual_scale=0.0))
    with torch.no_grad():
        model.blocks[0].weight.zero_()
        model.norms[0].bias.fill_(1.0)  # a hidden unit is 1, or 2 or 0 with dropout, in every frame
    logits = model(torch.randn(6, 30, 4), StepRng(1, 0, CPU)).view(2, 6, -1, 3)
    assert torch.allclose(logits, logits[:, :, :1].expand_as(logits))
    assert not torch.allclose(logits[:, 0], logits[:, 1]) and not torch.allclose(logits[0], logits[1])


def test_the_front_end_is_what_the_equations_say() -> None:
    """Of one member alone, in float64, on five bands of frequencies: five, then three."""
    settings = replace(SETTINGS, front=FrontConfig((3, 2)), dilations=(), kernel=1)
    model = build_model(settings, num_dims=5, num_senones=3, seeds=[1, 2])
    model.precision = "float32"
    model.train()(torch.randn(4, 30, 5))
    model.eval()
    state = {name: value.double() for name, value in model.member_state(1).items()}
    frames = torch.randn(2, 9, 5)
    images = frames.double().unsqueeze(1)
    for k, stride in enumerate((1, 2)):
        images = torch.nn.functional.conv2d(images, state[f"front.weights.{k}"], stride=(1, stride), padding=(0, 1))
        mean, variance, scale, offset = (
            state[f"front.norms.{k}.{name}"].view(1, -1, 1, 1)
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        images = ((images - mean) / (variance + 1e-5).sqrt() * scale + offset).clamp_min(0)
    assert images.shape == (2, 2, 5, 3)
    vectors = images.permute(0, 2, 3, 1).flatten(2)  # the channels of a band side by side
    hidden = vectors @ state["input.weight"].flatten(1).T
    hidden = (hidden - state["input_norm.running_mean"]) / (state["input_norm.running_var"] + 1e-5).sqrt()
    hidden = (hidden * state["input_norm.weight"] + state["input_norm.bias"]).clamp_min(0).flatten(0, 1)
    logits = hidden @ state["output.weight"][0] + state["output.bias"][0, 0]
    assert torch.allclose(model(frames)[1].double(), logits, atol=1e-5)
    weights = 3 * 9 + 2 * 3 * 9
    assert model.products_per_frame == model.parameters_per_member - weights + 5 * 3 * 9 + 3 * 2 * 3 * 9


def test_a_net_without_levers_has_the_weights_that_it_always_had() -> None:
    """By name, order and random numbers: checkpoints of nets without a front end and factored layers still load."""
    model, seeds = make(seeds=(5, 6)), (5, 6)
    norms = [f"{norm}.{name}" for norm in ("input_norm", "norms.0", "norms.1") for name in NORM_STATE]
    convolutions = ["input.weight", "blocks.0.weight", "blocks.1.weight"]
    assert set(model.state_dict()) == {*convolutions, *norms, "output.weight", "output.bias"}
    for member, seed in enumerate(seeds):
        state, generator = model.member_state(member), torch.Generator().manual_seed(seed)
        for name, size in zip(convolutions, (4, 12, 12), strict=True):
            drawn = torch.empty(12, size, 1, 3).normal_(0.0, math.sqrt(2.0 / (3 * size)), generator=generator)
            assert torch.equal(state[name], drawn), name
        drawn = torch.empty(12, 3).normal_(0.0, 0.1 * math.sqrt(2.0 / 12), generator=generator)
        assert torch.equal(state["output.weight"][0], drawn)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    settings = replace(KINDS[kind], width=4, dilations=(1,), bottleneck=KINDS[kind].bottleneck and 2)
    model = make(settings).double().train()
    frames = torch.randn(2, 3 + model.context.frames, 4, dtype=torch.float64)
    weights = [weight for name, weight in model.named_parameters() if not name.startswith("output")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "compute_dtype", torch.float64)
        patch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # of the logits
        with torch.no_grad():
            model.output.weight.mul_(10)
        assert torch.autograd.gradcheck(lambda *_: model(frames), weights, fast_mode=True)


def test_stamps_made_before_the_levers_stay_valid() -> None:
    assert to_mapping(TdnnConfig(width=64), changed_only=True) == {"kind": "tdnn", "width": 64}
    assert to_mapping(TrainingConfig(epochs=3), changed_only=True) == {"epochs": 3}


def test_factored_matrices_stay_semi_orthogonal_in_training(speech: Delayed) -> None:
    model = make(KINDS["factored"])
    run(speech, model, replace(TRAINING, learning_rate=0.02))
    for block in model.blocks:
        for matrix in block.narrow.weight.view(2, 6, 24):
            product = matrix @ matrix.T
            square = product.square().sum() / product.trace()
            assert (product / square - torch.eye(6)).abs().max() < 0.05


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(UserError, match="kernel must be odd, not 4"):
        from_mapping(TdnnConfig, {"kind": "tdnn", "kernel": 4}, "config.yaml")
    with pytest.raises(UserError, match="bottleneck must be at most the width, 64, not 65"):
        from_mapping(TdnnConfig, {"kind": "tdnn", "width": 64, "bottleneck": 65}, "config.yaml")


def test_each_member_ends_with_its_best_epoch_on_dev(speech: Delayed) -> None:
    """Running statistics too."""
    model = make()
    progress = run(speech, model, replace(TRAINING, epochs=8, learning_rate=0.05, schedule="constant"))
    assert any(epoch < 8 for epoch in progress.best_epoch)
    assert DevScorer(speech.windows(), speech.labels)(model).accuracy == progress.best_accuracy
