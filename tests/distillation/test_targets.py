"""A student learns its teachers through the one loop, from a store or from the teachers beside it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from asr_kd.acoustic.model import Context, FrameModel, build_model
from asr_kd.acoustic.settings import DnnConfig, TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.distillation.loss import SoftTargets, distillation_loss, ensemble_distribution, logit_matching
from asr_kd.distillation.store import SoftTargetStore, SoftTargetWriter, truncate
from asr_kd.distillation.targets import DistillationCriterion, OnlineTargets, StoredTargets, TargetProvider, Teacher
from asr_kd.frames.batches import Batch
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import windows_of

from ..stores import write_store

CPU = torch.device("cpu")
NO_CONTEXT = {"left_context": 0, "right_context": 0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    rng = np.random.default_rng(3)
    utterances = [(f"u{k}", rng.normal(size=(30, 5))) for k in range(10)]
    return write_store(tmp_path_factory.mktemp("frames"), utterances)


def make_teacher(members: int, seed: int = 100, **context: int) -> FrameModel:
    settings = DnnConfig(layers=1, width=24, **(NO_CONTEXT | context))
    model = build_model(settings, num_dims=5, num_senones=6, seeds=list(range(seed, seed + members)))
    with torch.no_grad():
        model.layers[-1].weight.mul_(15)  # far from uniform
    model.precision = "float32"
    return model


def train(
    store: FrameStore, provider: TargetProvider, labels: np.ndarray, *, soft_weight: float = 1.0, epochs: int = 150
) -> tuple[list[dict], FrameModel]:
    training = TrainingConfig(epochs=epochs, batch_size=50, learning_rate=1e-2, precision="float32")
    model = build_model(DnnConfig(layers=1, width=24, **NO_CONTEXT), num_dims=5, num_senones=6, seeds=[1])
    criterion = DistillationCriterion(provider, labels, soft_weight=soft_weight, device=CPU)
    data = TrainingData(windows_of(store, model.context))
    return fit(model, data, criterion, training, RunControl(seed=1)).rows, model


def batch_of(store: FrameStore, frames: list[int]) -> Batch:
    numbers = torch.tensor(frames)
    return Batch(numbers, windows_of(store, Context(0, 0)).inputs(numbers))


@pytest.mark.slow
def test_a_student_of_the_teachers_size_drives_kl_towards_zero(store: FrameStore) -> None:
    provider = OnlineTargets([Teacher(make_teacher(1))], temperature=2.0, mean="arithmetic")
    rows, _ = train(store, provider, np.zeros(300, np.int64))
    assert rows[0]["soft"][0] > 0.3
    assert rows[-1]["soft"][0] < 0.01 * rows[0]["soft"][0]


def test_a_full_store_and_the_teachers_themselves_train_the_same_student(store: FrameStore, tmp_path: Path) -> None:
    teachers = make_teacher(3)
    online = OnlineTargets([Teacher(teachers)], temperature=2.0, mean="arithmetic")
    full = torch.cat([ensemble_distribution(teachers.member_log_posteriors(store.normalised(u)), temperature=2.0)
                      for u in range(10)])  # fmt: skip
    writer = SoftTargetWriter(tmp_path, 6, full.exp().mean(0).numpy(), exact=True)
    writer.append(truncate(full, keep_mass=1.0, max_entries=6))
    writer.close()
    stored = StoredTargets(SoftTargetStore(tmp_path, temperature=2.0, num_frames=300))
    labels = np.random.default_rng(0).integers(0, 6, 300)
    _, of_teachers = train(store, online, labels, soft_weight=0.7, epochs=5)
    _, of_store = train(store, stored, labels, soft_weight=0.7, epochs=5)
    for name, value in of_teachers.state_dict().items():
        assert torch.allclose(value, of_store.state_dict()[name], atol=1e-4), name


def test_out_of_fold_members_alone_answer(store: FrameStore) -> None:
    teachers = make_teacher(2)
    answering = np.zeros((2, 300), bool)
    answering[0, :150] = answering[1, 150:] = True
    provider = OnlineTargets([Teacher(teachers, members=answering)], temperature=1.0, mean="arithmetic")
    batch = batch_of(store, [0, 299])
    targets = provider.targets(batch).log_probabilities
    alone = teachers(batch.inputs).log_softmax(-1)
    assert torch.allclose(targets[0], alone[0, 0], atol=1e-6)
    assert torch.allclose(targets[1], alone[1, 1], atol=1e-6)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_several_teachers_count_alike_whatever_their_size_and_context(store: FrameStore, mean: str) -> None:
    one, three = make_teacher(1, seed=7), make_teacher(3, left_context=2, right_context=1)
    teachers = [Teacher(one), Teacher(three, windows_of(store, three.context))]
    batch = batch_of(store, [0, 29, 30, 299])
    targets = OnlineTargets(teachers, temperature=2.0, mean=mean).targets(batch).log_probabilities
    each = []
    for model in (one, three):
        logits = torch.cat([model.member_log_posteriors(store.normalised(u)) for u in range(10)], 1)[:, batch.frames]
        each.append(ensemble_distribution(logits, temperature=2.0, mean=mean))
    expected = ensemble_distribution(torch.stack(each), temperature=1.0, mean=mean)
    assert torch.allclose(targets, expected, atol=1e-5)


def test_teachers_must_have_the_same_senones() -> None:
    settings = DnnConfig(layers=1, width=8, **NO_CONTEXT)
    other = build_model(settings, num_dims=5, num_senones=7, seeds=[1])
    with pytest.raises(ValueError, match=r"same senones, not \[6, 7\]"):
        OnlineTargets([Teacher(make_teacher(1)), Teacher(other)], temperature=1.0, mean="arithmetic")


@pytest.mark.parametrize("loss", [distillation_loss, logit_matching])
def test_frames_without_targets_have_the_hard_term_alone(loss) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, generator=rng, requires_grad=True)
    targets = torch.randn(4, 6, generator=rng).log_softmax(-1)
    labels = torch.tensor([0, 3, 5, 1])
    present = torch.tensor([True, False, True, False])
    settings = {"temperature": 2.0, "soft_weight": 0.75}
    terms = loss(logits, SoftTargets(targets, 2.0, present), labels, **settings)
    (gradient,) = torch.autograd.grad(terms.total.sum(), logits)
    each = [loss(logits[:, [b]], SoftTargets(targets[[b]], 2.0), labels[[b]], **settings) for b in range(4)]
    frames = torch.stack([
        0.75 * term.soft * has_target + 0.25 * term.hard for term, has_target in zip(each, present.tolist())
    ])  # fmt: skip
    assert torch.allclose(terms.total, frames.mean(0), atol=1e-5)
    log_posteriors = logits.log_softmax(-1)
    hard = -log_posteriors[:, [1, 3], labels[[1, 3]]].sum() * 0.25 / 4
    (expected,) = torch.autograd.grad(hard, logits)
    assert torch.allclose(gradient[:, [1, 3]], expected[:, [1, 3]], atol=1e-6)
    assert (gradient[:, [0, 2]] - expected[:, [0, 2]]).abs().max() > 1e-3
