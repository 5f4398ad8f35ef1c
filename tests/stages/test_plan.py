"""The plan counts what training will do, and the paper's nets take real steps."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from asr_kd.acoustic.model import AcousticModel
from asr_kd.acoustic.training import fit
from asr_kd.errors import UserError
from asr_kd.io.stamp import Stamp
from asr_kd.stages.plan import plan
from asr_kd.stages.plan_models import NetPlan, nets_of
from asr_kd.stages.plan_rates import step_seconds
from asr_kd.workspace.config import Config, CorpusConfig, ModelConfig, TrainingConfig, load_config, with_settings
from asr_kd.workspace.work import Workspace

CONF = Path(__file__).parents[2] / "recipes" / "librispeech" / "conf"
SMALL = NetPlan("train", ModelConfig(layers=2, width=8), TrainingConfig(epochs=3, batch_size=16), 2, 30, 12)


def test_parameters_are_those_of_the_model():
    model = AcousticModel(SMALL.model, SMALL.num_inputs, SMALL.num_states, [1])
    assert SMALL.parameters == model.parameters_per_member == sum(p.numel() for p in model.parameters())


def test_flops_are_those_of_the_products():
    # forward 2ab a frame for each layer, twice that backward, but for the input of the first
    assert SMALL.flops_per_frame == 4 * 30 * 8 + 6 * 8 * 8 + 6 * 8 * 12
    # two members share the ten discriminants; the net that is deployed is as large as without them
    few = replace(SMALL, model=replace(SMALL.model, lda_dims=10))
    assert few.flops_per_frame == 4 * 10 * 8 + 6 * 8 * 8 + 6 * 8 * 12 + 2 * 30 * 10 / 2
    assert (few.parameters, few.forward_flops) == (SMALL.parameters, SMALL.forward_flops)


def test_the_steps_that_are_timed_are_those_of_the_config(monkeypatch):
    shapes = []

    def noted(model, *args, **kwargs):
        shapes.append(tuple(model.layers[0].weight.shape))
        return fit(model, *args, **kwargs)

    monkeypatch.setattr("asr_kd.stages.plan_rates.fit", noted)
    for lda_dims in (0, 10):
        assert step_seconds(replace(SMALL, model=replace(SMALL.model, lda_dims=lda_dims)), 16) > 0
    assert shapes == [(1, 30, 8), (1, 10, 8)]


def test_the_papers_system_is_the_papers():
    config = load_config(CONF / "paper.yaml")
    teacher = next(nets_of(config))
    assert teacher.members == 10 and teacher.num_states == 14000 and teacher.num_inputs == 26 * 40
    assert teacher.parameters == pytest.approx(85e6, rel=0.02)  # section 5.1: "about 85M parameters"
    assert (config.soft_targets.temperature, config.student.distilled.soft_weight) == (
        2.0,
        pytest.approx(2 / 3, abs=1e-3),
    )
    text = str(plan(config, Workspace(Path("nowhere"), CONF / "paper.yaml"), measure=False))
    assert "960.9 hours" in text.splitlines()[0]  # hours of the three training parts
    assert "10 x 84," in text


STEPS = """
import json, resource, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from asr_kd.acoustic.training import fit
from asr_kd.acoustic.model import AcousticModel
from asr_kd.acoustic.criteria import HardTargets
from asr_kd.workspace.config import load_config
from asr_kd.distillation.targets import DistillationObjective, TableTargets
from asr_kd.stages.plan_models import nets_of
from asr_kd.stages.plan_rates import Noise

config, cpu = load_config(Path(sys.argv[1])), torch.device("cpu")
teacher = next(nets_of(config))
examples, states = Noise(8, teacher.num_inputs), np.arange(8) * 1000
model = AcousticModel(teacher.model, teacher.num_inputs, teacher.num_states, [1])
before = [layer.weight[0, :3, :3].clone() for layer in model.layers]
settings = replace(teacher.training, batch_size=4, epochs=1, learning_rate=1e-6)
hard = fit(model, examples, HardTargets(states, cpu), settings, seed=1)
moved = [not torch.equal(a, layer.weight[0, :3, :3]) for a, layer in zip(before, model.layers)]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform != "darwin" else 1)
soft_targets = torch.randn(8, teacher.num_states).log_softmax(-1)
objective = DistillationObjective(
    TableTargets(soft_targets, config.soft_targets.temperature), states,
    soft_weight=config.student.distilled.soft_weight, loss=config.student.distilled.loss, device=cpu,
)
soft = fit(model, examples, objective, settings, seed=1)
print(json.dumps({
    "steps": [hard.step, soft.step], "loss": hard.rows[0]["loss"][0], "moved": moved, "peak": peak,
    "soft": soft.rows[0]["soft"][0], "hard": soft.rows[0]["hard"][0], "total": soft.rows[0]["loss"][0],
    "shape": list(model(examples.inputs(torch.arange(3))).shape),
}))
"""


def test_the_papers_net_takes_steps_in_the_memory_that_the_plan_says():
    """One member, with small batches; the loop of the teachers on hard labels, then the student's at T = 2."""
    command = [sys.executable, "-c", STEPS, str(CONF / "paper.yaml")]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["steps"] == [2, 2] and all(found["moved"]) and found["shape"] == [1, 3, 14000]
    # untrained, a net over 14,000 states is off by about log 14,000
    assert found["loss"] == pytest.approx(9.55, abs=0.5)
    weight = load_config(CONF / "paper.yaml").student.distilled.soft_weight
    assert found["total"] == pytest.approx(weight * found["soft"] + (1 - weight) * found["hard"], rel=1e-4)
    teacher = next(nets_of(load_config(CONF / "paper.yaml")))
    one = replace(teacher, members=1, training=replace(teacher.training, batch_size=4))
    assert one.memory(8) == pytest.approx(found["peak"], rel=0.25)


def test_every_stage_is_timed_and_summed_up(tmp_path):
    config = Config(
        corpus=CorpusConfig(name="folder", sampling_rate=8000),
        teacher=replace(Config().teacher, model=SMALL.model, members=2, training=SMALL.training),
        student=replace(Config().student, model=SMALL.model, direct=SMALL.training),
    )
    work = Workspace(tmp_path, tmp_path / "conf.yaml")
    with pytest.raises(UserError, match="not known yet; make the cuts first: asr-kd prepare"):
        plan(config, work)
    work.data.mkdir()
    Stamp("prepare", {}, {}).write(
        work.data / "stamp.json",
        {"sets": {"train": {"minutes": 30.0}, "dev": {"minutes": 2.0}, "test": {"minutes": 3.0}}},
    )
    found = plan(config, work)
    assert found.frames == 180_000
    stages = [row.stage for row in found.rows]
    assert stages == [
        "prepare",
        "features",
        "align",
        "train --ensemble",
        "soft-targets",
        "train",
        "distill",
        "train --pair monophone",
        "decode",
        "report",
    ]
    assert all(row.seconds and row.seconds > 0 for row in found.rows)
    text = str(found)
    assert "180,000 training frames (0.5 hours" in text and "312 TFLOP/s" in text
    faster = plan(config, work, gpu_tflops=624.0, measure=False)
    assert "624 TFLOP/s" in str(faster) and all(row.seconds is None for row in faster.rows)


def test_members_that_are_taken_are_not_trained(tmp_path):
    alike = replace(Config().student, model=SMALL.model, direct=SMALL.training, direct_of_ensemble=True)
    config = Config(teacher=replace(Config().teacher, model=SMALL.model, training=SMALL.training), student=alike)
    own = replace(config, student=replace(alike, direct_of_ensemble=False))
    seen = []
    for of in (config, own):
        work = Workspace(tmp_path, tmp_path / "conf.yaml")
        of = replace(of, corpus=CorpusConfig(name="librispeech", train_parts=("train-clean-5",)))
        found = plan(of, work, measure=False)
        rows = {row.stage: row for row in found.rows}
        seen.append((rows["train"].flops, rows["decode"].what, "run at once" in str(found)))
        assert [row.stage for row in found.rows].count("train") == 1
    (taken, decoded, at_once), (trained, decoded_too, at_once_too) = seen
    assert taken == 0 < trained and decoded == decoded_too and (at_once, at_once_too) == (False, True)


def test_memory_and_work_grow_with_members_frames_and_states():
    one = next(nets_of(load_config(CONF / "mini.yaml")))
    assert one.memory(10**6) < replace(one, members=20).memory(10**6)
    assert one.memory(10**6) < one.memory(2 * 10**6)
    assert replace(one, num_states=one.num_states + 100).flops_per_frame == one.flops_per_frame + 600 * one.model.width


def test_a_step_is_timed_whatever_the_net():
    wide = replace(SMALL, model=ModelConfig(layers=6, width=1024), members=4)
    assert step_seconds(wide, 64) > 2 * step_seconds(SMALL, 8)  # 1,700 times the work


def test_a_large_set_is_held_in_chunks_and_a_share_takes_its_share():
    one = next(nets_of(load_config(CONF / "full960.yaml")))
    hour = 360_000
    step = one.memory(101 * hour) - one.memory(100 * hour)
    assert step == pytest.approx(hour * (168 + 16 + 17))
    assert one.memory(901 * hour) - one.memory(900 * hour) == pytest.approx(hour * 17)
    few = [net for net in nets_of(load_config(CONF / "fewshot.yaml")) if net.name.startswith("fewshot")]
    assert [net.name for net in few] == ["fewshot: train", "fewshot: distill"]
    assert all(net.share == 0.03 for net in few)


def test_parts_of_the_command_line_are_planned(tmp_path):
    config = load_config(CONF / "full960.yaml")
    whole = plan(config, Workspace(tmp_path, CONF / "full960.yaml"), measure=False)
    less = with_settings(config, {"corpus.train_parts": ["train-clean-5"], "corpus.dev_parts": ["dev-clean-2"]})
    small = plan(less, Workspace(tmp_path, CONF / "full960.yaml"), measure=False)
    assert small.frames == 5.2 * 360_000 < whole.frames
    (tmp_path / "data").mkdir()
    Stamp("prepare", {}, {}).write(tmp_path / "data" / "stamp.json", {"sets": {"train": {"minutes": 60.0}}})
    there = plan(config, Workspace(tmp_path, CONF / "full960.yaml"), measure=False)
    assert there.frames == 360_000
    named = plan(less, Workspace(tmp_path, CONF / "full960.yaml"), measure=False, prepared=False)
    assert named.frames == small.frames
    disk = {row.stage: row.disk for row in whole.rows}
    assert disk["download"] > 60e9 and disk["soft-targets"] > 20e9
