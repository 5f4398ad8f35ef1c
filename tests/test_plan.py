"""The plan counts what training will do, and the paper's nets take real steps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asr_kd.acoustic.loop import fit
from asr_kd.acoustic.model import AcousticModel
from asr_kd.acoustic.objectives import HardTargets
from asr_kd.artifacts import Stamp, Work
from asr_kd.config import Config, CorpusConfig, ModelConfig, TrainingConfig, load_config
from asr_kd.errors import UserError
from asr_kd.plan import NetPlan, _nets, _Noise, plan, step_seconds

CONF = Path(__file__).parents[1] / "recipes" / "librispeech" / "conf"
SMALL = NetPlan("train", ModelConfig(layers=2, width=8), TrainingConfig(epochs=3, batch_size=16), 2, 30, 12)


def test_parameters_are_those_of_the_model():
    model = AcousticModel(SMALL.model, SMALL.num_inputs, SMALL.num_states, [1])
    assert SMALL.parameters == model.parameters_per_member == sum(p.numel() for p in model.parameters())


def test_flops_are_those_of_the_products():
    # forward 2ab a frame for each layer, twice that backward, but for the input of the first
    assert SMALL.flops_per_frame == 4 * 30 * 8 + 6 * 8 * 8 + 6 * 8 * 12


def test_the_papers_system_is_the_papers():
    config = load_config(CONF / "paper.yaml")
    teacher = next(_nets(config))
    assert teacher.members == 10 and teacher.num_states == 14000 and teacher.num_inputs == 26 * 40
    assert teacher.parameters == pytest.approx(85e6, rel=0.02)  # section 5.1: "about 85M parameters"
    assert (config.soft_targets.temperature, config.student.distilled.soft_weight) == (
        2.0,
        pytest.approx(2 / 3, abs=1e-3),
    )
    text = str(plan(config, Work(Path("nowhere"), CONF / "paper.yaml"), measure=False))
    assert "960.9 hours" in text.splitlines()[0]  # hours of the three training parts
    assert "10 x 84," in text


def test_the_papers_net_takes_steps():
    teacher = next(_nets(load_config(CONF / "paper.yaml")))
    examples = _Noise(8, teacher.num_inputs)
    model = AcousticModel(teacher.model, teacher.num_inputs, teacher.num_states, [1])
    before = [parameter.detach().clone() for parameter in model.parameters()]
    settings = replace(teacher.training, batch_size=4, epochs=1, learning_rate=1e-6)
    progress = fit(model, examples, HardTargets(torch.arange(8).numpy() * 1000, torch.device("cpu")), settings, seed=1)
    assert progress.step == 2
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    # untrained, a net over 14,000 states is off by about log 14,000
    assert progress.rows[0]["loss"][0] == pytest.approx(9.55, abs=0.5)
    assert model(examples.inputs(torch.arange(3))).shape == (1, 3, 14000)


def test_every_stage_is_timed_and_summed_up(tmp_path):
    config = Config(
        corpus=CorpusConfig(name="folder", sampling_rate=8000),
        teacher=replace(Config().teacher, model=SMALL.model, members=2, training=SMALL.training),
        student=replace(Config().student, model=SMALL.model, direct=SMALL.training),
    )
    work = Work(tmp_path, tmp_path / "conf.yaml")
    with pytest.raises(UserError, match="not known yet; make the cuts first: asr-kd prepare"):
        plan(config, work)
    work.data.mkdir()
    Stamp("prepare", {}, {}).write(work.data / "stamp.json", {"sets": {"train": {"minutes": 30.0}}})
    found = plan(config, work)
    assert found.frames == 180_000
    stages = [row.stage for row in found.rows]
    assert stages == [
        "features",
        "align",
        "train --ensemble",
        "soft-targets",
        "train",
        "distill",
        "train --pair monophone",
    ]
    assert all(row.seconds and row.seconds > 0 for row in found.rows)
    text = str(found)
    assert "180,000 training frames (0.5 hours" in text and "312 TFLOP/s" in text
    faster = plan(config, work, gpu_tflops=624.0, measure=False)
    assert "624 TFLOP/s" in str(faster) and all(row.seconds is None for row in faster.rows)


def test_memory_and_work_grow_with_members_frames_and_states():
    one = next(_nets(load_config(CONF / "mini.yaml")))
    assert one.memory(10**6) < replace(one, members=20).memory(10**6)
    assert one.memory(10**6) < one.memory(2 * 10**6)
    assert replace(one, num_states=one.num_states + 100).flops_per_frame == one.flops_per_frame + 600 * one.model.width


def test_a_step_is_timed_whatever_the_net():
    wide = replace(SMALL, model=ModelConfig(layers=6, width=1024), members=4)
    assert step_seconds(wide, 64) > 2 * step_seconds(SMALL, 8)  # 1,700 times the work
