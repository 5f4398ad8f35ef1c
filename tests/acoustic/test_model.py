"""The net with its member axis: the same as single nets, on disk and in memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from asr_kd.acoustic.inference import ensemble_log_mean
from asr_kd.acoustic.model import AcousticModel, MemberLinear, copy_members, load_model, save_model
from asr_kd.acoustic.rng import StepRng
from asr_kd.errors import UserError
from asr_kd.workspace.config import ModelConfig

SETTINGS = ModelConfig(layers=2, width=8)


def make(seeds, settings=SETTINGS):
    model = AcousticModel(settings, 5, 7, list(seeds))
    model.precision = "float32"
    return model


def test_members_are_the_nets_of_their_seeds():
    inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    together = make([3, 4])(inputs)
    for member, seed in enumerate((3, 4)):
        assert torch.allclose(together[member], make([seed])(inputs)[0], atol=1e-6)
    assert not torch.allclose(together[0], together[1])


def test_forward_is_what_the_equations_say():
    model, inputs = make([1]), torch.randn(4, 5)
    hidden = inputs
    for k, layer in enumerate(model.layers):
        hidden = hidden @ layer.weight[0] + layer.bias[0]
        hidden = hidden.clamp_min(0) if k < 2 else hidden
    assert torch.allclose(model(inputs)[0], hidden, atol=1e-6)
    assert model.parameters_per_member == 5 * 8 + 8 + 8 * 8 + 8 + 8 * 7 + 7


def test_weights_of_shared_inputs_lie_as_their_product_takes_them_and_are_the_same():
    """Neither the weights nor their gradient are copied in a step; first weights are those of any other layout."""
    model, other = make([1, 2, 3]), make([1, 2, 3], replace(SETTINGS, input_dropout=0.1))
    weight = model.layers[0].weight
    assert weight.transpose(0, 1).is_contiguous() and other.layers[0].weight.is_contiguous()
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    wide = weight.transpose(0, 1).flatten(1)
    assert wide.data_ptr() == weight.data_ptr()
    inputs = torch.randn(9, 5)
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
    wanted = torch.randn(members, 9, 4, generator=random)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        products = layer.products(inputs)
        (products * wanted).sum().backward()
    finally:
        torch.set_num_threads(before)
    a, b, g = inputs.detach().double(), layer.weight.detach().double(), wanted.double()
    for found, expected in (
        (products, torch.einsum("mbi,mio->mbo", a, b)),
        (inputs.grad, torch.einsum("mbo,mio->mbi", g, b)),
        (layer.weight.grad, torch.einsum("mbi,mbo->mio", a, g)),
    ):
        assert torch.allclose(found.double(), expected, atol=1e-5)


def test_first_members_are_a_model_of_their_own(tmp_path):
    model, (source, folder) = make([4, 5, 6]), (tmp_path / name for name in ("all", "first"))
    source.mkdir()
    folder.mkdir()
    save_model(model, source)
    copy_members(source, folder, 2)
    first = load_model(folder)
    first.precision = "float32"
    inputs = torch.randn(3, 5)
    assert first.seeds == [4, 5] and torch.equal(first(inputs), model(inputs)[:2])
    (source / "member_1.safetensors").unlink()
    with pytest.raises(UserError, match=r"member_1.*train it again"):
        copy_members(source, folder, 2)
    (source / "model.yaml").write_text("seeds: 3")
    with pytest.raises(UserError, match="damaged"):
        copy_members(source, folder, 2)


def test_save_and_load(tmp_path):
    model = make([1, 2, 3])
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    loaded.precision = "float32"
    inputs = torch.randn(3, 5)
    assert torch.equal(loaded(inputs), model(inputs))
    assert loaded.seeds == [1, 2, 3]


def test_missing_or_damaged_member_is_one_sentence(tmp_path):
    save_model(make([1, 2]), tmp_path)
    (tmp_path / "member_1.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        load_model(tmp_path)
    (tmp_path / "member_1.safetensors").unlink()
    with pytest.raises(UserError, match="member_1"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="missing"):
        load_model(tmp_path / "elsewhere")


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_mask_is_a_function_of_seed_and_step(rate):
    masks = [StepRng(1, step, torch.device("cpu")).mask((200, 50), rate, torch.float32) for step in (5, 5, 6)]
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
            return StepRng(3, 4, torch.device("cpu")).mask(shape, 0.25, dtype)
        finally:
            torch.set_num_threads(before)

    assert torch.equal(mask(1), mask(2))
    assert set(mask(1).unique().tolist()) <= {0.0, torch.tensor(4 / 3, dtype=dtype).item()}


def test_dropout_masks_of_layers_differ_and_every_byte_value_is_as_likely():
    noise = StepRng(1, 1, torch.device("cpu"))
    first, second = (noise.mask((256, 1024), 0.5, torch.float32) for _ in range(2))
    assert 0.49 < (first == second).float().mean().item() < 0.51
    # neighbours in both directions, and numbers drawn together (1024 apart), are independent
    for a, b in ((first[:, 1:], first[:, :-1]), (first[1:], first[:-1])):
        assert 0.49 < (a == b).float().mean().item() < 0.51


def test_mean_of_members_is_arithmetic():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), (3, 6))
    mean = ensemble_log_mean(torch.from_numpy(np.log(probabilities)))
    assert np.allclose(mean.exp().numpy(), probabilities.mean(0))
