"""A student learns its teacher through the one loop, stored or online."""

import numpy as np
import torch

from asr_kd.acoustic.model import AcousticModel
from asr_kd.acoustic.training import fit
from asr_kd.distillation.ensemble import ensemble_distribution
from asr_kd.distillation.store import SoftTargetStore, SoftTargetWriter, truncate
from asr_kd.distillation.targets import DistillationObjective, OnlineTargets, StoredTargets
from asr_kd.workspace.config import ModelConfig, TrainingConfig

CPU = torch.device("cpu")
MODEL = ModelConfig(layers=1, width=24)


class Noise:
    num_frames = 300

    def __init__(self) -> None:
        self.data = torch.randn(300, 5, generator=torch.Generator().manual_seed(3))

    def inputs(self, frames: torch.Tensor) -> torch.Tensor:
        return self.data[frames]


def teacher(members: int) -> AcousticModel:
    model = AcousticModel(MODEL, 5, 6, list(range(100, 100 + members)))
    with torch.no_grad():
        model.layers[-1].weight.mul_(15)  # far from uniform
    model.precision = "float32"
    return model


def student(**changes) -> AcousticModel:
    return AcousticModel(MODEL, 5, 6, [1])


def train(provider, states, *, soft_weight=1.0, epochs=150):
    training = TrainingConfig(epochs=epochs, batch_size=50, learning_rate=1e-2, precision="float32")
    net, data = student(), Noise()
    objective = DistillationObjective(provider, states, soft_weight=soft_weight, loss="kl", device=CPU)
    return fit(net, data, objective, training, seed=1).rows, net


def test_a_student_of_the_teachers_size_drives_kl_towards_zero():
    rows, _ = train(OnlineTargets(teacher(1), temperature=2.0, mean="arithmetic"), np.zeros(300, np.int64))
    assert rows[0]["soft"][0] > 0.3
    assert rows[-1]["soft"][0] < 0.01 * rows[0]["soft"][0]


def test_a_full_store_and_the_teachers_themselves_train_the_same_student(tmp_path):
    teachers, data = teacher(3), Noise()
    online = OnlineTargets(teachers, temperature=2.0, mean="arithmetic")
    with torch.no_grad():
        full = ensemble_distribution(teachers(data.data), temperature=2.0)
    writer = SoftTargetWriter(tmp_path, 6, full.exp().mean(0).numpy(), exact=True)
    writer.append(truncate(full, keep_mass=1.0, max_entries=6))
    writer.close()
    stored = StoredTargets(SoftTargetStore(tmp_path, temperature=2.0, num_frames=300))
    states = np.random.default_rng(0).integers(0, 6, 300)
    _, one = train(online, states, soft_weight=0.7, epochs=5)
    _, other = train(stored, states, soft_weight=0.7, epochs=5)
    for name, value in one.state_dict().items():
        assert torch.allclose(value, other.state_dict()[name], atol=1e-4), name


def test_out_of_fold_members_alone_answer():
    teachers, data = teacher(2), Noise()
    answers = np.zeros((2, 300), bool)
    answers[0, :150] = answers[1, 150:] = True
    provider = OnlineTargets(teachers, temperature=1.0, mean="arithmetic", members=answers)
    frames = torch.tensor([0, 299])
    found = provider.targets(frames, data.inputs(frames)).log_probabilities
    alone = teachers.log_probabilities(data.inputs(frames))
    assert torch.allclose(found[0], alone[0, 0], atol=1e-6)
    assert torch.allclose(found[1], alone[1, 1], atol=1e-6)
