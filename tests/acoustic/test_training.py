"""The training loop: it learns, resumes exactly, and every member is trained as if it were alone."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import asr_kd.acoustic.training as training_module
from asr_kd.acoustic.checkpoint import _CarefulFile
from asr_kd.acoustic.criteria import DevScorer, HardTargets
from asr_kd.acoustic.member_linear import MemberLinear, ShadowWeights
from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.settings import DnnConfig, TrainingConfig
from asr_kd.acoustic.training import GradientLimit, RunControl, TrainingData, fit
from asr_kd.errors import FullDiskError, UserError
from asr_kd.frames.batches import Batch
from asr_kd.frames.source import ArrayFrames, Context
from asr_kd.frames.windows import WindowedFrames

from .points import CPU, Points, dnn_of

TRAINING = TrainingConfig(epochs=3, batch_size=32, learning_rate=3e-3, precision="float32")
MODEL = DnnConfig(
    layers=1, width=16, left_context=0, right_context=0, input_dropout=0.1, hidden_dropout=0.2, max_norm=2.0
)


class Killed(Exception):
    pass


def net(points: Points, seeds=(1, 2, 3), model=MODEL) -> FrameModel:
    return dnn_of(points, model, seeds)


def run(points, model, training=TRAINING, criterion=None, valid=None, **options):
    dev = Points(seed=5)
    criterion = criterion or HardTargets(points.labels, CPU)
    control = RunControl(seed=7, evaluate=DevScorer(dev, dev.labels), **options)
    return fit(model, TrainingData(points, valid), criterion, training, control)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_one_batch_is_overfitted(optimizer):
    points = Points(num_frames=24)
    model = net(points, model=replace(MODEL, layers=2, width=64, input_dropout=0.0, hidden_dropout=0.0, max_norm=0.0))
    training = TrainingConfig(
        epochs=150, batch_size=24, learning_rate=1e-2, optimizer=optimizer, precision="float32", schedule="constant"
    )
    progress = fit(model, TrainingData(points), HardTargets(points.labels, CPU), training, RunControl(seed=1))
    assert min(progress.rows[-1]["train_accuracy"]) == 1.0
    assert max(progress.rows[-1]["loss"]) < 0.05


def test_training_beats_chance_on_dev():
    points = Points(num_frames=1000)
    progress = run(points, net(points), replace(TRAINING, epochs=8))
    assert min(progress.best_accuracy) > 0.6  # chance is a quarter


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("killed_after", [1, 6, 7, 11, 20])
def test_a_killed_run_resumes_to_the_same_weights(tmp_path, killed_after, precision):
    points, training = Points(), replace(TRAINING, precision=precision)
    whole = net(points)
    expected = run(points, whole, training)

    class DiesAfter(HardTargets):
        calls = 0

        def __call__(self, logits, batch):
            DiesAfter.calls += 1
            if DiesAfter.calls > killed_after:
                raise Killed
            return super().__call__(logits, batch)

    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        criterion = DiesAfter(points.labels, CPU)
        run(points, net(points), training, criterion, checkpoint=checkpoint, checkpoint_seconds=0.0)
    resumed = net(points, seeds=(7, 8, 9))  # other weights: all must come from the checkpoint
    resumed.seeds = whole.seeds  # of dropout
    progress = run(points, resumed, training, checkpoint=checkpoint)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    timings = ("seconds", "frames_per_second")
    for row, again in zip(expected.rows, progress.rows, strict=True):
        assert {k: v for k, v in row.items() if k not in timings} == {
            k: v for k, v in again.items() if k not in timings
        }


def test_checkpoints_within_an_epoch_are_the_rarer_the_longer_they_take(tmp_path, monkeypatch):
    points, written = Points(), []
    now = 0.0  # seconds; on a busy machine the real clock goes too fast

    def tick():
        nonlocal now
        now += 1e-3
        return now

    def slow(state, file):
        nonlocal now
        progress = json.loads(state["progress"])
        written.append((progress["epoch"], progress["batch"]))
        now += 0.05

    monkeypatch.setattr("asr_kd.io.append_log.time", SimpleNamespace(monotonic=tick))
    monkeypatch.setattr("torch.save", slow)
    settings = replace(TRAINING, epochs=2)
    run(points, net(points), settings, checkpoint=tmp_path / "c.pt", checkpoint_seconds=1e-9)
    within = [batch for _, batch in written if batch > 0]
    assert within == [1]  # then 2.5 s must pass, and the run is over before
    assert [epoch for epoch, batch in written if batch == 0] == [1, 2]  # at the ends of epochs whatever it takes


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
def test_a_full_disk_while_a_checkpoint_is_written_is_an_error_that_keeps_the_last_one(tmp_path, monkeypatch):
    points, checkpoint = Points(), tmp_path / "checkpoint.pt"
    run(points, net(points), checkpoint=checkpoint, digest="one")
    before = checkpoint.read_bytes()

    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115

    class Full(_CarefulFile):
        def __init__(self, file):
            super().__init__(full)

    monkeypatch.setattr("asr_kd.acoustic.checkpoint._CarefulFile", Full)
    with pytest.raises(FullDiskError, match=r"checkpoint\.pt: the disk is full"):
        run(points, net(points), checkpoint=checkpoint, digest="two")
    full.close()
    assert checkpoint.read_bytes() == before and list(tmp_path.iterdir()) == [checkpoint]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_shadow_weights_change_nothing(optimizer, monkeypatch):
    """With bfloat16 products; the reference converts weights and gradients in each step, as autograd does."""
    points, training = Points(), replace(TRAINING, precision="bfloat16", optimizer=optimizer)
    model = replace(MODEL, layers=2, max_norm=0.5)  # a limit that is often met
    with ShadowWeights(net(points, model=model), torch.bfloat16) as shadows:
        assert shadows.copies
    shadowed = net(points, model=model)
    run(points, shadowed, training)
    monkeypatch.setattr(ShadowWeights, "__enter__", lambda self: self)
    reference = net(points, model=model)
    run(points, reference, training)
    for name, value in reference.state_dict().items():
        assert torch.equal(value, shadowed.state_dict()[name]), name
    assert all(layer.shadow is None for layer in shadowed.modules() if isinstance(layer, MemberLinear))


def test_checkpoint_of_another_run_or_damaged_is_not_used(tmp_path):
    points, checkpoint = Points(), tmp_path / "checkpoint.pt"
    run(points, net(points), checkpoint=checkpoint, digest="one")
    expected = run(points, net(points)).rows[-1]["loss"]
    assert run(points, net(points), checkpoint=checkpoint, digest="two").rows[-1]["loss"] == expected
    checkpoint.write_bytes(b"half a file")
    assert run(points, net(points), checkpoint=checkpoint, digest="one").rows[-1]["loss"] == expected


def test_a_member_learns_what_it_learns_alone():
    points = Points()
    model = replace(MODEL, input_dropout=0.0, hidden_dropout=0.0)
    together = net(points, model=model)
    run(points, together)
    alone = net(points, seeds=(2,), model=model)
    run(points, alone)
    for name, value in alone.state_dict().items():
        assert torch.allclose(value[0], together.state_dict()[name][1], atol=1e-5), name


def test_each_member_ends_with_its_best_epoch_on_dev():
    points, dev = Points(), Points(seed=5)
    model = net(points)
    progress = run(points, model, replace(TRAINING, epochs=6, learning_rate=0.05))
    scores = DevScorer(dev, dev.labels)(model)
    assert scores.accuracy == progress.best_accuracy
    for member, epoch in enumerate(progress.best_epoch):
        assert progress.rows[epoch - 1]["dev_accuracy"][member] == max(r["dev_accuracy"][member] for r in progress.rows)


def test_the_learning_rate_rises_over_the_first_steps():
    points = Points()  # 7 steps an epoch
    training = replace(TRAINING, schedule="constant", learning_rate=0.1, warmup_steps=10)
    rows = run(points, net(points), training).rows
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.07, 0.1, 0.1])


def test_a_warm_up_that_is_as_long_as_the_training_is_refused():
    points = Points()
    with pytest.raises(UserError, match="warmup_steps is 21, but the training has 21 steps in all"):
        run(points, net(points), replace(TRAINING, warmup_steps=21))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_members_gradient_is_no_longer_than_its_bound(precision):
    """As the step of plain gradient descent shows; a bound that is not reached changes nothing."""
    points = Points()
    model = replace(MODEL, input_dropout=0.0, hidden_dropout=0.0, max_norm=0.0)
    training = replace(TRAINING, epochs=1, batch_size=200, optimizer="sgd", momentum=0.0, learning_rate=0.1)
    steps = {}
    for bound in (0.0, 0.2, 100.0):
        moved = net(points, model=model)
        before = [weight.detach().clone() for weight in moved.parameters()]
        fit(moved, TrainingData(points), HardTargets(points.labels, CPU),
            replace(training, clip_norm=bound, precision=precision), RunControl(seed=1))  # fmt: skip
        steps[bound] = torch.cat([(w - b).flatten(1) for w, b in zip(moved.parameters(), before, strict=True)], 1) / 0.1
    norms = steps[0.0].norm(dim=1)
    assert bool((norms > 0.25).all()) and len(norms.unique()) == 3
    assert torch.allclose(steps[0.2].detach(), (steps[0.0] / norms[:, None] * 0.2).detach(), atol=1e-3)
    assert torch.equal(steps[100.0], steps[0.0])


def test_gradients_of_copies_are_bounded_in_place_of_those_of_the_weights():
    points = Points()
    model = net(points)
    with ShadowWeights(model, torch.bfloat16) as shadows:
        held = [shadows.copies.get(parameter, parameter) for parameter in model.parameters()]
        limit = GradientLimit(held, model.members, 0.5)
        assert any(tensor.dtype == torch.bfloat16 for tensor in held)
        for number, tensor in enumerate(held):
            tensor.grad = torch.full_like(tensor, 2.0 ** -(number % 3))
        limit.apply()
        norms = torch.stack([tensor.grad.float().flatten(1).square().sum(1) for tensor in held]).sum(0).sqrt()
        assert torch.allclose(norms, torch.full_like(norms, 0.5), rtol=0.01)
        assert all(p.grad is None for p in shadows.copies)


@pytest.mark.parametrize("follow", [True, False])
def test_threads_follow_the_load_between_steps_and_are_restored(monkeypatch, follow):
    threads, answers = torch.get_num_threads(), iter([None, 1, 1, None, 2, *[None] * 1000])
    monkeypatch.setattr(training_module, "LoadWatch", lambda: SimpleNamespace(threads=lambda: next(answers)))
    seen, points = [], Points()

    class Watched(HardTargets):
        def __call__(self, outputs, batch):
            seen.append(torch.get_num_threads())
            return super().__call__(outputs, batch)

    run(points, net(points), criterion=Watched(points.labels, CPU), follow_load=follow)
    assert seen[:7] == ([threads, threads, 1, 1, 1, 2, 2] if follow else [threads] * 7)
    assert torch.get_num_threads() == threads


def test_patience_stops_early():
    points = Points()
    progress = run(points, net(points), replace(TRAINING, epochs=200, learning_rate=0.1, patience=2))
    assert progress.epoch < 200
    best = max(progress.best_epoch)
    assert progress.epoch == best + 2


def test_max_norm_holds_and_leaves_the_output_layer_alone():
    points = Points()
    model = net(points, model=replace(MODEL, max_norm=0.5))
    run(points, model, replace(TRAINING, learning_rate=0.05))
    assert model.layers[0].weight.norm(dim=1).max() <= 0.5 + 1e-5
    assert model.layers[-1].weight.norm(dim=1).max() > 0.5


def test_members_train_only_on_their_frames():
    points = Points()
    broken = points.labels.copy()
    broken[:100] = (broken[:100] + 1) % points.senones
    trains_on = np.ones((2, 200), bool)
    trains_on[0, :100] = False  # member 0 never sees the wrong labels
    model = net(points, seeds=(1, 2))
    progress = run(points, model, replace(TRAINING, epochs=10), criterion=HardTargets(broken, CPU, trains_on))
    assert progress.best_accuracy[0] > progress.best_accuracy[1] + 0.1


def test_frames_without_a_label_are_never_drawn():
    points = Points()
    labels = points.labels.copy()
    labels[::3] = -1
    seen = set()

    class Watching(HardTargets):
        def __call__(self, logits, batch):
            seen.update(batch.frames.tolist())
            return super().__call__(logits, batch)

    run(points, net(points), criterion=Watching(labels, CPU), valid=labels >= 0)
    assert seen == set(np.flatnonzero(labels >= 0).tolist())


def test_training_is_that_of_a_loop_in_float64():
    """Order of frames, windows, loss, AdamW and schedule, written out with autograd for two members."""
    rng = np.random.default_rng(0)
    lengths, labels = (50, 7, 83), rng.integers(0, 4, 140)
    labels[::9] = -1
    source = ArrayFrames([rng.normal(size=(n, 3)) for n in lengths])
    utterances = [source.normalised(u) for u in range(3)]
    context, config = Context(2, 1), replace(TRAINING, weight_decay=0.1)
    settings = DnnConfig(layers=1, width=8, left_context=2, right_context=1)
    model = build_model(settings, num_dims=3, num_senones=4, seeds=[1, 2])
    weights = [p.detach().double().requires_grad_() for p in model.parameters()]
    moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in weights]
    rows = [
        frames[np.clip(np.arange(t - 2, t + 2), 0, len(frames) - 1)]
        for frames in utterances
        for t in range(len(frames))
    ]
    inputs, targets = torch.from_numpy(np.stack(rows)).double().flatten(1), torch.from_numpy(labels)

    data = TrainingData(WindowedFrames(source, context), valid=labels >= 0)
    fit(model, data, HardTargets(labels, CPU), config, RunControl(seed=5))

    valid, step, steps = np.flatnonzero(labels >= 0), 0, 3 * -(-int((labels >= 0).sum()) // 32)
    for epoch in range(3):
        order = np.random.default_rng([5, epoch, 1]).permutation(valid)
        for batch in np.split(order, range(32, len(order), 32)):
            hidden = torch.relu(inputs[batch] @ weights[0] + weights[1])
            logits = hidden @ weights[2] + weights[3]
            loss = sum(torch.nn.functional.cross_entropy(each, targets[batch]) for each in logits)
            gradients = torch.autograd.grad(loss, weights)
            rate = 3e-3 * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * step / steps)))
            step += 1
            with torch.no_grad():
                for w, g, (mean, square) in zip(weights, gradients, moments, strict=True):
                    mean.mul_(0.9).add_(g, alpha=0.1)
                    square.mul_(0.999).addcmul_(g, g, value=0.001)
                    denominator = (square / (1 - 0.999**step)).sqrt() + 1e-8
                    w.mul_(1 - rate * 0.1).sub_(rate * mean / (1 - 0.9**step) / denominator)
    for (name, trained), expected in zip(model.named_parameters(), weights, strict=True):
        assert torch.allclose(trained.double(), expected, atol=2e-5), name


def test_terms_of_several_ranks_add_up_to_those_of_all_frames():
    """The mean over all valid frames is what the sums of loss * count and of count give."""
    points = Points()
    criterion, logits = HardTargets(points.labels, CPU), torch.randn(2, 200, 4)
    frames, valid = torch.arange(200), torch.arange(200) % 3 > 0
    whole = criterion(logits, Batch(frames, points.inputs(frames), valid))
    parts = [
        criterion(logits[:, part], Batch(frames[part], points.inputs(frames[part]), valid[part]))
        for part in (slice(0, 30), slice(30, 200))
    ]
    count = sum(part.count for part in parts)
    assert torch.equal(count, whole.count) and count[0] == int(valid.sum())
    assert torch.allclose(sum(part.loss * part.count for part in parts) / count, whole.loss)


def test_a_writer_gets_every_epoch():
    points, seen = Points(), []

    class Writer:
        def add_scalar(self, name, value, epoch):
            seen.append((name, epoch))

    run(points, net(points), writer=Writer())
    names = ("loss", "train_accuracy", "dev_accuracy", "dev_cross_entropy", "learning_rate")
    assert set(seen) == {(name, epoch) for name in names for epoch in (1, 2, 3)}
