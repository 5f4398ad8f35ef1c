"""The plan counts what training will do, and the paper's nets take real steps."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.settings import DnnConfig, TdnnConfig, TrainingConfig
from asr_kd.acoustic.training import fit
from asr_kd.corpora.settings import FolderConfig, LibriSpeechConfig, UntranscribedConfig
from asr_kd.distillation.settings import TargetsConfig
from asr_kd.errors import UserError
from asr_kd.frames.features import FeaturesConfig
from asr_kd.io.stamp import Stamp
from asr_kd.lang.kneser_ney import estimate
from asr_kd.lang.ngram import write_arpa
from asr_kd.stages.plan import plan
from asr_kd.stages.plan_models import SystemPlan, built_costs, dnn_costs, plans_of, step_seconds
from asr_kd.workspace.config import Config, SystemConfig
from asr_kd.workspace.config_files import load_config
from asr_kd.workspace.sets import add_set, with_parts
from asr_kd.workspace.work import Workspace

CONF = Path(__file__).parents[2] / "recipes" / "librispeech" / "conf"
DNN = DnnConfig(layers=2, width=8, left_context=3, right_context=2)
TRAINING = TrainingConfig(epochs=3, batch_size=16)
SMALL = SystemPlan("small", SystemConfig(model=DNN, members=2, training=TRAINING), num_dims=5, num_senones=12)


def of_model(plan: SystemPlan, **settings) -> SystemPlan:
    """With other settings of its model."""
    return replace(plan, system=replace(plan.system, model=replace(plan.system.model, **settings)))


def test_parameters_are_those_of_the_model():
    model = build_model(DNN, num_dims=5, num_senones=12, seeds=[1])
    assert SMALL.costs.parameters == model.parameters_per_member == sum(p.numel() for p in model.parameters())


def test_flops_are_those_of_the_products():
    # forward 2ab a frame for each layer, twice that backward, but for the input of the first
    assert SMALL.costs.training_flops == 4 * 30 * 8 + 6 * 8 * 8 + 6 * 8 * 12
    # two members share the ten discriminants; the model that is deployed is as large as without them
    few = of_model(SMALL, lda_dims=10).costs
    assert few.training_flops == 4 * 10 * 8 + 6 * 8 * 8 + 6 * 8 * 12 + 2 * 30 * 10 / 2
    assert (few.parameters, few.forward_flops) == (SMALL.costs.parameters, SMALL.costs.forward_flops)


def test_a_kind_without_a_formula_is_planned_by_a_model_that_is_built():
    by_formula, built = dnn_costs(DNN, 30, 12, 1), built_costs(DNN, 5, 12)
    assert built.parameters == by_formula.parameters
    tdnn = TdnnConfig(width=8, dilations=(1, 2), chunk_frames=20)
    system = SystemPlan("tdnn", SystemConfig(model=tdnn, training=TRAINING), num_dims=5, num_senones=12)
    model = build_model(tdnn, num_dims=5, num_senones=12, seeds=[1])
    assert system.costs.parameters == model.parameters_per_member
    # every weight of a convolution once a frame, and for the frames of the context too
    assert system.costs.forward_flops == 2 * model.parameters_per_member * (20 + 2 * (2 + 1 + 2)) / 20
    assert system.costs.activation_bytes > 4 * 8 * 3
    assert step_seconds(system, 40) > 0


def test_the_steps_that_are_timed_are_those_of_the_config(monkeypatch):
    shapes = []

    def noted(model, *args, **kwargs):
        shapes.append(tuple(model.layers[0].weight.shape))
        return fit(model, *args, **kwargs)

    monkeypatch.setattr("asr_kd.stages.plan_models.fit", noted)
    for lda_dims in (0, 10):
        assert step_seconds(of_model(SMALL, lda_dims=lda_dims), 16) > 0
    assert shapes == [(1, 30, 8), (1, 10, 8)]


def test_the_papers_system_is_the_papers():
    config = load_config(CONF / "paper.yaml")
    teacher = next(plans_of(config))
    assert teacher.system.members == 10 and teacher.num_senones == 14000 and teacher.num_inputs == 26 * 40
    assert teacher.costs.parameters == pytest.approx(85e6, rel=0.02)  # section 5.1: "about 85M parameters"
    targets = config.systems["distilled"].targets
    assert (targets.temperature, targets.soft_weight) == (2.0, pytest.approx(2 / 3, abs=1e-3))
    text = str(plan(config, Workspace(Path("nowhere"), CONF / "paper.yaml"), measure=False))
    assert "960.9 hours" in text.splitlines()[0]  # hours of the three training parts
    assert "10 x 84," in text


STEPS = """
import json, resource, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.distillation.targets import DistillationCriterion, TableTargets
from asr_kd.frames.source import ArrayFrames
from asr_kd.frames.windows import windows_of
from asr_kd.stages.plan_models import plans_of
from asr_kd.workspace.config_files import load_config

config, cpu = load_config(Path(sys.argv[1])), torch.device("cpu")
teacher, targets = next(plans_of(config)), config.systems["distilled"].targets
settings = teacher.system.model
source, labels = ArrayFrames([np.random.default_rng(1).normal(size=(8, teacher.num_dims))]), np.arange(8) * 1000
windows = windows_of(source, settings.context)
model = build_model(settings, num_dims=teacher.num_dims, num_senones=teacher.num_senones, seeds=[1])
before = [layer.weight[0, :300, :300].clone() for layer in model.layers]
training = replace(teacher.system.training, batch_size=4, epochs=1, learning_rate=1e-6)
hard = fit(model, TrainingData(windows), HardTargets(labels, cpu), training, RunControl(seed=1))
moved = [not torch.equal(a, layer.weight[0, :300, :300]) for a, layer in zip(before, model.layers)]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform != "darwin" else 1)
soft_targets = torch.randn(8, teacher.num_senones).log_softmax(-1)
criterion = DistillationCriterion(
    TableTargets(soft_targets, targets.temperature), labels,
    soft_weight=targets.soft_weight, loss=targets.loss, device=cpu,
)
soft = fit(model, TrainingData(windows), criterion, training, RunControl(seed=1))
print(json.dumps({
    "steps": [hard.step, soft.step], "loss": hard.rows[0]["loss"][0], "moved": moved, "peak": peak,
    "soft": soft.rows[0]["soft"][0], "hard": soft.rows[0]["hard"][0], "total": soft.rows[0]["loss"][0],
    "shape": list(model(windows.inputs(torch.arange(3))).shape),
}))
"""


def test_the_papers_net_takes_steps_in_the_memory_that_the_plan_says():
    """One member, with small batches; the loop of the teachers on hard labels, then the student's at T = 2."""
    command = [sys.executable, "-c", STEPS, str(CONF / "paper.yaml")]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert result["steps"] == [2, 2] and all(result["moved"]) and result["shape"] == [1, 3, 14000]
    # untrained, a net over 14,000 states is off by about log 14,000
    assert result["loss"] == pytest.approx(9.55, abs=0.5)
    config = load_config(CONF / "paper.yaml")
    weight = config.systems["distilled"].targets.soft_weight
    assert result["total"] == pytest.approx(weight * result["soft"] + (1 - weight) * result["hard"], rel=1e-4)
    teacher = next(plans_of(config))
    training = replace(teacher.system.training, batch_size=4)
    one = replace(teacher, system=replace(teacher.system, members=1, training=training))
    assert one.memory(8) == pytest.approx(result["peak"], rel=0.25)


def small_systems(**changes: dict) -> dict[str, SystemConfig]:
    """teacher, direct, distilled and a monophone control, all of SMALL's shape."""
    alike = {"model": DNN, "training": TRAINING}
    systems = {
        "teacher": alike | {"members": 3},
        "direct": alike | {"seeds": 3},
        "distilled": alike | {"seeds": 3, "targets": TargetsConfig(source=("teacher",))},
        "monophone": alike | {"tree": "monophone"},
    }
    return {name: SystemConfig(**settings | changes.get(name, {})) for name, settings in systems.items()}


def note_minutes(work: Workspace, **minutes: float) -> None:
    work.data.mkdir(exist_ok=True)
    for name, number in minutes.items():
        Stamp("cuts", {}, {}).write(work.cuts_stamp(name), {"minutes": number})


def test_every_stage_is_counted_and_what_runs_nets_is_timed(tmp_path):
    config = Config(corpus=FolderConfig(sampling_rate=8000), systems=small_systems())
    work = Workspace(tmp_path, tmp_path / "conf.yaml")
    with pytest.raises(UserError, match="not known yet; make the cuts first: asr-kd prepare"):
        plan(config, work)
    note_minutes(work, train=30.0, dev=2.0, test=3.0)
    result = plan(config, work)
    assert "other programs kept 2 cores busy" in str(replace(result, taken=2))
    assert "other programs" not in str(replace(result, taken=0)) and "e-05" not in str(result)
    assert result.frames == 180_000
    assert [row.stage for row in result.rows] == [
        "features",
        "align",
        "realign",
        "train teacher",
        "train direct",
        "soft-targets",
        "train distilled",
        "train monophone",
        "decode",
        "decode phones",
        "report",
    ]
    in_nets = [row for row in result.rows if row.stage.startswith(("train", "soft-targets", "report"))]
    assert len(in_nets) == 6 and all(row.seconds and row.seconds > 0 for row in in_nets)
    text = str(result)
    assert "180,000 training frames (0.5 hours" in text and "312 TFLOP/s" in text
    assert "language model that is not there yet" in text
    work.lm.mkdir()
    write_arpa(work.lm / "G.arpa", estimate([["A", "B"]], 2))
    decode = next(row for row in plan(config, work, measure=False).rows if row.stage == "decode")
    assert decode.what.startswith("8 models, graph of 0.00 M n-grams") and decode.disk > 0 and decode.memory
    work.lang.mkdir()
    (work.lang / "phones.txt").write_text("SIL\nA\nB\n")
    of_phones = next(row for row in plan(config, work, measure=False).rows if row.stage == "decode phones")
    assert of_phones.what.startswith("8 models, graph of 3 phones") and of_phones.flops == decode.flops
    characters = replace(config, lang=replace(config.lang, units="characters"))
    assert "decode phones" not in {row.stage for row in plan(characters, work, measure=False).rows}
    faster = plan(config, work, gpu_tflops=624.0, measure=False)
    assert "624 TFLOP/s" in str(faster) and all(row.seconds is None for row in faster.rows)
    add_set(work, "more", ("more",))
    note_minutes(work, more=30.0)
    more = {row.stage: row.flops for row in plan(config, work, measure=False).rows}
    assert more["report"] == pytest.approx(7 * {row.stage: row.flops for row in result.rows}["report"])


def test_warped_copies_and_variances_of_speakers_count(tmp_path):
    work = Workspace(tmp_path, tmp_path / "conf.yaml")
    note_minutes(work, train=30.0)

    def planned(**features):
        return plan(Config(corpus=FolderConfig(), features=FeaturesConfig(**features)), work, measure=False)

    one, three, nine = planned(), planned(warps=(1.0, 0.9, 1.1)), planned(speeds=(1.0, 0.5), warps=(1.0, 0.9, 1.1))
    assert (three.frames, nine.frames) == (3 * one.frames, 9 * one.frames)
    assert three.rows[0].stage == "features" and three.rows[0].disk == pytest.approx(3 * one.rows[0].disk, rel=1e-6)
    assert planned(variance="speaker").rows[0].disk > one.rows[0].disk


def test_untranscribed_speech_costs_features_targets_and_passes_and_is_not_scored(tmp_path):
    distilled = SystemConfig(targets=TargetsConfig(source=("teacher",)))
    wide = replace(distilled, targets=replace(distilled.targets, extra=("more",)))
    systems = {"teacher": SystemConfig(members=2), "distilled": distilled, "wide": wide}
    config = Config(
        corpus=FolderConfig(sampling_rate=8000),
        features=FeaturesConfig(speeds=(1.0, 0.8)),
        untranscribed={"more": UntranscribedConfig(parts=("more",))},
        systems=systems,
    )
    work = Workspace(tmp_path, tmp_path / "conf.yaml")
    note_minutes(work, train=30.0, dev=2.0, test=3.0)
    with pytest.raises(UserError, match="not known yet; make the cuts first"):  # of more
        plan(config, work, measure=False)
    note_minutes(work, more=0.0)
    before = {row.stage: row for row in plan(config, work, measure=False).rows}
    note_minutes(work, more=60.0)
    result = plan(config, work, measure=False)
    rows = {row.stage: row for row in result.rows}
    assert rows["train wide"].flops == pytest.approx(3 * rows["train distilled"].flops)
    assert rows["train wide"].what.endswith("10 epochs, 810,000 untranscribed frames beside train's")
    targets = [row for row in result.rows if row.stage == "soft-targets"]
    assert [row.what.partition(":")[0] for row in targets] == ["teacher,T2", "teacher,T2 of more"]
    assert targets[1].flops == pytest.approx(2 * targets[0].flops)
    assert rows["features"].disk > 2.5 * before["features"].disk
    for stage in ("align", "train distilled", "decode", "report"):
        assert rows[stage].flops == before[stage].flops and rows[stage].disk == before[stage].disk


def test_what_is_hidden_of_known_parts_is_a_share_of_them(tmp_path):
    sets = {"train": ("train-clean-100",), "dev": ("dev-clean",)}
    hidden = UntranscribedConfig(share=0.75)
    config = Config(corpus=LibriSpeechConfig(), sets=sets, untranscribed={"hidden": hidden}, systems={})
    work = Workspace(tmp_path, tmp_path / "conf.yaml")
    whole = plan(replace(config, untranscribed={}), work, measure=False)
    part = plan(config, work, measure=False)
    assert part.frames == pytest.approx(whole.frames / 4) and part.rows[1].disk == pytest.approx(whole.rows[1].disk)
    with pytest.raises(UserError, match="not known yet"):
        plan(replace(config, untranscribed={"hidden": UntranscribedConfig(speakers=3)}), work, measure=False)


def test_teachers_that_run_online_cost_their_forward_pass(tmp_path):
    work = Workspace(tmp_path, tmp_path / "conf.yaml")
    note_minutes(work, train=30.0)
    flops = []
    for online in (False, True):
        targets = TargetsConfig(source=("teacher",), online=online)
        config = Config(corpus=FolderConfig(), systems=small_systems(distilled={"targets": targets}))
        rows = {row.stage: row for row in plan(config, work, measure=False).rows}
        flops.append((rows["train distilled"].flops, rows["soft-targets"].flops if not online else 0.0))
        assert ("soft-targets" in rows) == (not online)
    (stored, making), (online_flops, _) = flops
    assert online_flops == pytest.approx(stored + TRAINING.epochs * making)


def test_members_that_are_reused_are_not_trained(tmp_path):
    seen = []
    for reuse in ("teacher", ""):
        config = Config(
            corpus=LibriSpeechConfig(),
            sets={"train": ("train-clean-5",), "dev": ("dev-clean-2",), "test": ("test-clean",)},
            systems=small_systems(direct={"reuse": reuse}),
        )
        result = plan(config, Workspace(tmp_path, tmp_path / "conf.yaml"), measure=False)
        rows = {row.stage: row for row in result.rows}
        seen.append((rows["train direct"].flops, rows["decode"].what))
        assert [row.stage for row in result.rows].count("train direct") == 1
    (reused, decoded), (trained, decoded_too) = seen
    assert reused == 0 < trained and decoded == decoded_too


def test_an_ensemble_of_systems_costs_what_its_parts_do(tmp_path):
    work = Workspace(tmp_path, tmp_path / "conf.yaml")
    note_minutes(work, train=30.0, dev=3.0, test=3.0)
    joined = {"tdnn": SystemConfig(model=TdnnConfig(width=8)), "both": SystemConfig(members=("teacher", "tdnn"))}
    seen = []
    for source in (("teacher", "tdnn"), ("both",)):
        systems = small_systems(distilled={"targets": TargetsConfig(source=source)}) | joined
        config = Config(corpus=FolderConfig(), systems=systems)
        rows = {row.stage: row for row in plan(config, work, measure=False).rows}
        assert "train both" not in rows and rows["decode"].what.startswith("10 models")
        seen.append([(rows[stage].flops, rows[stage].memory) for stage in ("soft-targets", "decode")])
    assert seen[0] == seen[1]
    without = replace(config, systems={name: system for name, system in systems.items() if name in ("teacher", "tdnn")})
    alone = {row.stage: row.flops for row in plan(without, work, measure=False).rows}
    with_both = replace(config, systems={name: systems[name] for name in ("teacher", "tdnn", "both")})
    both = {row.stage: row.flops for row in plan(with_both, work, measure=False).rows}
    assert both["decode"] == pytest.approx(2 * alone["decode"])


def test_memory_and_work_grow_with_members_frames_and_states():
    one = next(plan for plan in plans_of(load_config(CONF / "mini.yaml")) if plan.name == "direct")
    assert one.memory(10**6) < replace(one, system=replace(one.system, seeds=20)).memory(10**6)
    assert one.memory(10**6) < one.memory(2 * 10**6)
    larger = replace(one, num_senones=one.num_senones + 100)
    assert larger.costs.training_flops == one.costs.training_flops + 600 * one.system.model.width


def test_a_step_is_timed_whatever_the_net():
    wide = replace(SMALL, system=replace(SMALL.system, model=DnnConfig(layers=6, width=1024), members=4))
    assert step_seconds(wide, 64) > 2 * step_seconds(SMALL, 8)  # 1,700 times the work


def test_a_large_set_is_held_in_blocks_and_a_fraction_takes_its_share():
    one = next(plans_of(load_config(CONF / "full960.yaml")))
    hour = 360_000
    step = one.memory(91 * hour) - one.memory(90 * hour)
    assert step == pytest.approx(hour * (168 + 16 + 17))
    assert one.memory(901 * hour) - one.memory(900 * hour) == pytest.approx(hour * 17)
    rows = plan(
        load_config(CONF / "fewshot.yaml"), Workspace(Path("nowhere"), CONF / "fewshot.yaml"), measure=False
    ).rows
    few = {row.stage: row.what for row in rows if row.stage.startswith("train few")}
    assert list(few) == ["train few-direct", "train few-distilled"]
    assert all("of 0.03 of the frames" in what for what in few.values())
    assert [row.stage for row in rows].count("soft-targets") == 1  # both distilled systems learn from the same targets


def test_parts_of_the_command_line_are_planned(tmp_path):
    config = load_config(CONF / "full960.yaml")
    work = Workspace(tmp_path, CONF / "full960.yaml")
    whole = plan(config, work, measure=False)
    less = with_parts(config, {"train": ["train-clean-5"], "dev": ["dev-clean-2"]})
    small = plan(less, work, measure=False)
    assert small.frames == 5.2 * 360_000 < whole.frames
    note_minutes(work, train=60.0)
    assert plan(config, work, measure=False).frames == 360_000
    assert plan(less, work, measure=False, prepared=False).frames == small.frames
    disk = {row.stage: row.disk for row in whole.rows}
    assert disk["download"] > 60e9 and disk["soft-targets"] > 20e9
