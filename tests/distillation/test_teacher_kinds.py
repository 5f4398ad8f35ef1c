"""Teacher and student may differ in kind and context; what is invalid weighs nothing."""

import numpy as np
import pytest
import torch

from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.settings import AugmentConfig, DnnConfig, TdnnConfig, TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.distillation.loss import SoftTargets, ensemble_distribution
from asr_kd.distillation.store import SoftTargetStore, SoftTargetWriter, truncate
from asr_kd.distillation.targets import DistillationCriterion, OnlineTargets, StoredTargets, TableTargets, Teacher
from asr_kd.frames.batches import Batch, Batches
from asr_kd.frames.source import Context
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import WindowedFrames, windows_of

from ..stores import write_store

CPU = torch.device("cpu")
SMALL = DnnConfig(layers=1, width=24, left_context=1, right_context=0)
WIDE = DnnConfig(layers=1, width=24, left_context=3, right_context=2)
AHEAD = DnnConfig(layers=1, width=24, left_context=0, right_context=4)
TDNN = TdnnConfig(width=16, kernel=3, dilations=(1, 2), chunk_frames=20)
NUM_SENONES = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FrameStore:
    rng = np.random.default_rng(3)
    lengths = {"a": 90, "b": 15, "c": 140, "d": 55}
    return write_store(
        tmp_path_factory.mktemp("frames") / "store",
        [(name, rng.normal(size=(n, 5)).astype(np.float32)) for name, n in lengths.items()],
    )


def model_of(settings, *seeds: int, sharpness: float = 1.0) -> FrameModel:
    model = build_model(settings, num_dims=5, num_senones=NUM_SENONES, seeds=seeds)
    with torch.no_grad():
        (model.layers[-1] if settings.kind == "dnn" else model.output).weight.mul_(sharpness)
    model.precision = "float32"
    return model


def teacher_of(settings, *seeds: int) -> FrameModel:
    return model_of(settings, *seeds, sharpness=15.0)  # far from uniform


def online(*teachers: Teacher, temperature: float = 2.0) -> OnlineTargets:
    return OnlineTargets(teachers, temperature=temperature, mean="arithmetic")


def own_windows(model: FrameModel, store: FrameStore) -> WindowedFrames:
    return windows_of(store, model.context)


def train(store, provider, labels, *, settings=SMALL, soft_weight=1.0, epochs=3, augment=None):
    training = TrainingConfig(epochs=epochs, batch_size=60, learning_rate=1e-2, precision="float32")
    model = model_of(settings, 1)
    criterion = DistillationCriterion(provider, labels, soft_weight=soft_weight, device=CPU)
    data = TrainingData(windows_of(store, model.context), augment=augment)
    return fit(model, data, criterion, training, RunControl(seed=1)).rows, model


def everything(store: FrameStore, model: FrameModel, temperature: float) -> torch.Tensor:
    """(N, C) of all frames, utterance by utterance."""
    log_posteriors = [model.member_log_posteriors(store.normalised(u)) for u in range(len(store.ids))]
    return ensemble_distribution(torch.cat(log_posteriors, 1), temperature=temperature)


@pytest.mark.parametrize(("teacher", "student"), [(WIDE, TDNN), (TDNN, SMALL)])
def test_a_full_store_and_the_teachers_themselves_train_the_same_student(store, tmp_path, teacher, student):
    teachers = teacher_of(teacher, 100, 101)
    full = everything(store, teachers, 2.0)
    writer = SoftTargetWriter(tmp_path, NUM_SENONES, full.exp().mean(0).numpy(), exact=True)
    writer.append(truncate(full, keep_mass=1.0, max_entries=NUM_SENONES))
    writer.close()
    stored = StoredTargets(SoftTargetStore(tmp_path, temperature=2.0, num_frames=300))
    labels = np.random.default_rng(0).integers(0, NUM_SENONES, 300)
    beside = online(Teacher(teachers, own_windows(teachers, store)))
    models = [train(store, provider, labels, settings=student, soft_weight=0.7)[1] for provider in (beside, stored)]
    for name, value in models[0].state_dict().items():
        assert torch.allclose(value, models[1].state_dict()[name], atol=2e-3), name


@pytest.mark.parametrize("settings", [WIDE, TDNN])
def test_a_teacher_sees_frames_through_its_own_context(store, settings):
    model = teacher_of(settings, 100, 101)
    provider, full = online(Teacher(model, own_windows(model, store)), temperature=1.0), everything(store, model, 1.0)
    for length in (1, 20):
        for batch in Batches(windows_of(store, Context(1, 0)), 40, length=length, seed=1).epoch(0):
            valid = slice(None) if batch.valid is None else batch.valid
            rows = provider.targets(batch).log_probabilities[valid]
            assert torch.allclose(rows, full[batch.frames][valid], atol=1e-5)


def test_a_teacher_of_the_students_context_sees_its_altered_inputs(store):
    model, seen = teacher_of(SMALL, 100), []
    forward = model.forward
    model.forward = lambda frames, rng=None: seen.append(frames) or forward(frames, rng)
    train(store, online(Teacher(model)), np.zeros(300, np.int64), epochs=1, augment=lambda x, _: torch.full_like(x, 7))
    assert seen and all(bool((frames == 7).all()) for frames in seen)


@pytest.mark.parametrize(("teacher", "student"), [(WIDE, TDNN), (TDNN, SMALL), (AHEAD, SMALL)])
def test_a_teacher_sees_the_altered_frames_through_its_own_context(store, teacher, student):
    """It gives what it gives for the whole altered chunk, of which the student saw its part."""
    answers, seen = [], []

    class Watching(OnlineTargets):
        def targets(self, batch):
            answers.append((batch.inputs, super().targets(batch).log_probabilities))
            return SoftTargets(answers[-1][1], self.temperature)

    model, teachers = model_of(student, 1), teacher_of(teacher, 100, 101)
    forward = model.forward
    model.forward = lambda frames, rng=None: seen.append(frames) or forward(frames, rng)
    provider = Watching([Teacher(teachers)], temperature=1.0, mean="arithmetic")
    assert provider.context == teacher.context
    training = TrainingConfig(epochs=1, batch_size=60, augment=AugmentConfig(2, 2, 1, 3, 1.0))
    data = TrainingData(windows_of(store, student.context | provider.context))
    criterion = DistillationCriterion(provider, np.zeros(300, np.int64), soft_weight=1.0, device=CPU)
    fit(model, data, criterion, training, RunControl(seed=1))
    union = student.context | teacher.context
    assert len(seen) == len(answers) > 1
    for part, (inputs, answer) in zip(seen, answers, strict=True):
        length = inputs.shape[1] - union.frames
        assert inputs.eq(0).any() and length == student.chunk_frames
        before = union.left - student.context.left
        assert torch.equal(part, inputs[:, before : before + length + student.context.frames])
        for frame in range(length):  # frame by frame, as the teacher's equations say
            first = union.left + frame - teacher.context.left
            alone = teachers(inputs[:, first : first + teacher.context.width])
            expected = ensemble_distribution(alone, temperature=1.0)
            assert torch.allclose(answer.view(len(inputs), length, -1)[:, frame], expected, atol=1e-4)


def test_a_batch_without_a_teachers_context_is_refused(store):
    batch = next(Batches(windows_of(store, SMALL.context), 40, seed=1).epoch(0))
    with pytest.raises(ValueError, match=r"left=1, right=0\) cannot be seen in Context\(left=3, right=2"):
        online(Teacher(teacher_of(WIDE, 100))).targets(batch)


@pytest.mark.parametrize("loss", ["kl", "logits"])
def test_invalid_frames_have_no_value_and_no_gradient(loss):
    """Among them padding, whose label may be -1."""
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(12, NUM_SENONES, generator=generator).log_softmax(-1)
    labels = np.arange(12) % NUM_SENONES
    valid = torch.arange(12) % 3 > 0
    logits = torch.randn(2, 12, NUM_SENONES, generator=generator)

    def terms(frames, labels, logits, valid):
        logits = logits.clone().requires_grad_()
        batch = Batch(frames, torch.zeros(len(frames), 1, 1), valid)
        criteria = (
            HardTargets(labels, CPU),
            DistillationCriterion(TableTargets(table, 2.0), labels, soft_weight=0.6, loss=loss, device=CPU),
        )
        result = [criterion(logits, batch) for criterion in criteria]
        sum(each.loss.sum() for each in result).backward()
        return result, logits.grad

    broken = np.where(valid.numpy(), labels, -1)
    masked, gradient = terms(torch.arange(12), broken, logits, valid)
    chosen, expected = terms(torch.arange(12)[valid], labels, logits[:, valid], None)
    assert bool((gradient[:, ~valid] == 0).all())
    assert torch.allclose(gradient[:, valid], expected, atol=1e-6)
    for one, other in zip(masked, chosen, strict=True):
        assert torch.allclose(one.loss, other.loss, atol=1e-6) and torch.equal(one.count, other.count)
        for name, value in one.logged.items():
            assert torch.allclose(value, other.logged[name], atol=1e-6), name
