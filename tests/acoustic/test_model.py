"""The net with its member axis: the same as single nets, on disk and in memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from asr_kd.acoustic import model as module
from asr_kd.acoustic.dnn import _windows
from asr_kd.acoustic.member_linear import MemberLinear
from asr_kd.acoustic.model import build_model, ensemble_log_mean, first_member_log_posteriors, pick_device
from asr_kd.acoustic.rng import StepRng
from asr_kd.acoustic.settings import DnnConfig, ModelConfig, TdnnConfig
from asr_kd.errors import UserError

SETTINGS = DnnConfig(layers=2, width=8, left_context=1, right_context=0)


def make(seeds, settings=SETTINGS, num_dims=5):
    model = build_model(settings, num_dims=num_dims, num_senones=7, seeds=seeds)
    model.precision = "float32"
    return model


def test_members_are_the_nets_of_their_seeds():
    inputs = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0))
    together = make([3, 4])(inputs)
    for member, seed in enumerate((3, 4)):
        assert torch.allclose(together[member], make([seed])(inputs)[0], atol=1e-6)
    assert not torch.allclose(together[0], together[1])


def test_forward_is_what_the_equations_say():
    model, inputs = make([1]), torch.randn(4, 2, 5)
    hidden = inputs.flatten(1)
    for k, layer in enumerate(model.layers):
        hidden = hidden @ layer.weight[0] + layer.bias[0]
        hidden = hidden.clamp_min(0) if k < 2 else hidden
    assert torch.allclose(model(inputs)[0], hidden, atol=1e-6)
    assert model.parameters_per_member == 10 * 8 + 8 + 8 * 8 + 8 + 8 * 7 + 7


def test_weights_of_shared_inputs_lie_as_their_product_takes_them_and_are_the_same():
    """Neither the weights nor their gradient are copied in a step; first weights are those of any other layout."""
    model, other = make([1, 2, 3]), make([1, 2, 3], replace(SETTINGS, input_dropout=0.1))
    weight = model.layers[0].weight
    assert weight.transpose(0, 1).is_contiguous() and other.layers[0].weight.is_contiguous()
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    wide = weight.transpose(0, 1).flatten(1)
    assert wide.data_ptr() == weight.data_ptr()
    inputs = torch.randn(9, 2, 5)
    gradients = []
    for each in (model, other):
        each(inputs).square().sum().backward()
        gradients.append(each.layers[0].weight.grad)
    assert gradients[0].stride() == weight.stride()
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("members", [1, 2, 3])
def test_products_that_share_the_threads_are_those_of_each_member(members):
    random = torch.Generator().manual_seed(members)
    layer, inputs = MemberLinear(members, 6, 4), torch.randn(members, 9, 6, generator=random).requires_grad_()
    layer.weight.data.normal_(generator=random)
    goal = torch.randn(members, 9, 4, generator=random)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        products = layer.products(inputs)
        (products * goal).sum().backward()
    finally:
        torch.set_num_threads(before)
    a, b, g = inputs.detach().double(), layer.weight.detach().double(), goal.double()
    for found, expected in (
        (products, torch.einsum("mbi,mio->mbo", a, b)),
        (inputs.grad, torch.einsum("mbo,mio->mbi", g, b)),
        (layer.weight.grad, torch.einsum("mbi,mbo->mio", a, g)),
    ):
        assert torch.allclose(found.double(), expected, atol=1e-5)


def test_selected_members_answer_as_they_did():
    model, inputs = make([3, 4, 5]), torch.randn(4, 2, 5)
    selected = model.select_members([2, 0])
    assert selected.seeds == [5, 3] and selected.precision == "float32"
    assert torch.allclose(selected(inputs), model(inputs)[[2, 0]], atol=1e-6)


def test_posteriors_of_an_utterance_are_those_of_windows_with_repeated_edges(monkeypatch):
    monkeypatch.setattr("asr_kd.acoustic.model.FRAMES_AT_ONCE", 4)  # and do not depend on how it is divided
    model = make([3, 4], replace(SETTINGS, left_context=2, right_context=1))
    features = torch.randn(11, 5)
    at = lambda t: features[min(max(t, 0), 10)]  # noqa: E731
    windows = torch.stack([torch.stack([at(t + k) for k in (-2, -1, 0, 1)]) for t in range(11)])
    expected = model(windows).log_softmax(-1)
    assert torch.allclose(model.member_log_posteriors(features), expected, atol=1e-5)
    assert torch.allclose(model.log_posteriors(features.numpy()), expected.exp().mean(0).log(), atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 5), (3, 4), (5,)])
def test_features_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"not \(T, 5\)"):
        make([1]).log_posteriors(torch.zeros(shape))


def test_chunks_have_the_logits_of_single_frames():
    model, frames = make([1, 2], replace(SETTINGS, left_context=2, right_context=1)), torch.randn(3, 10, 5)
    windows = torch.stack([frames[k, t : t + 4] for k in range(3) for t in range(7)])
    assert torch.allclose(model(frames), model(windows), atol=1e-6)


def test_windows_of_single_frames_are_not_copied():
    frames = torch.randn(3, 4, 5)
    assert _windows(frames, 4).data_ptr() == frames.data_ptr()


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_mask_is_a_function_of_seed_and_step(rate):
    masks = [StepRng(1, step, torch.device("cpu")).masks([1], (200, 50), rate, torch.float32) for step in (5, 5, 6)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert (masks[0] == 0).float().mean().item() == pytest.approx(rate, abs=0.02)
    assert masks[0].mean().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3,), (5, 1000), (9, 1024)])  # less, not a multiple, and a multiple of a block
def test_dropout_mask_does_not_depend_on_the_threads_that_fill_it(shape, dtype):
    def mask(threads: int) -> torch.Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return StepRng(3, 4, torch.device("cpu")).masks([1, 2], shape, 0.25, dtype)
        finally:
            torch.set_num_threads(before)

    assert torch.equal(mask(1), mask(2))
    assert set(mask(1).unique().tolist()) <= {0.0, torch.tensor(4 / 3, dtype=dtype).item()}


def test_dropout_masks_of_layers_differ_and_every_byte_value_is_as_likely():
    noise = StepRng(1, 1, torch.device("cpu"))
    first, second = (noise.masks([1], (256, 1024), 0.5, torch.float32)[0] for _ in range(2))
    assert 0.49 < (first == second).float().mean().item() < 0.51
    ours, others = (
        StepRng(1, 1, torch.device("cpu")).masks(seeds, (256, 1024), 0.5, torch.float32) for seeds in ([7, 8], [8])
    )
    assert torch.equal(ours[1], others[0]) and 0.49 < (ours[0] == ours[1]).float().mean().item() < 0.51
    # neighbours in both directions, and numbers drawn together (1024 apart), are independent
    for a, b in ((first[:, 1:], first[:, :-1]), (first[1:], first[:-1])):
        assert 0.49 < (a == b).float().mean().item() < 0.51


def test_mean_of_members_is_arithmetic():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), (3, 6))
    mean = ensemble_log_mean(torch.from_numpy(np.log(probabilities)))
    assert np.allclose(mean.exp().numpy(), probabilities.mean(0))


@pytest.mark.parametrize(
    "settings",
    [DnnConfig(layers=1, width=8, left_context=2, right_context=1), TdnnConfig(width=8, kernel=3, dilations=(1,))],
)
def test_many_utterances_at_once_have_the_posteriors_of_each_alone(
    settings: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(n, 4)).astype(np.float32) for n in (7, 2, 11)]
    model = build_model(settings, num_dims=4, num_senones=5, seeds=[1, 2])
    model.precision = "float32"
    alone = [model.member_log_posteriors(frames)[0].numpy() for frames in features]
    monkeypatch.setattr(module, "FRAMES_AT_ONCE", 5)  # no utterance ends where a part does
    for chosen in ([2, 0, 1], [1], [0, 1, 2]):
        posteriors = first_member_log_posteriors(model, [features[u] for u in chosen])
        assert [len(rows) for rows in posteriors] == [len(alone[u]) for u in chosen]
        for rows, u in zip(posteriors, chosen, strict=True):
            np.testing.assert_allclose(rows, alone[u], atol=1e-5)


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cpu").type == "cpu" and pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(UserError, match="'gpu' is no device; name auto, cpu, cuda or cuda:<number>"):
        pick_device("gpu")
    with pytest.raises(UserError, match="there is no device 'cuda:1': torch sees 1 CUDA devices"):
        pick_device("cuda:1")
