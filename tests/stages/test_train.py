"""Systems are trained in order of dependence, with the soft targets that they need, each from what the config says."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import yaml
from click.testing import CliRunner

from asr_kd.acoustic.model_files import load_model
from asr_kd.acoustic.training import fit, read_log
from asr_kd.cli import main
from asr_kd.errors import UserError
from asr_kd.frames.sampler import draw_fraction, fold_of_utterances
from asr_kd.frames.store import FrameStore
from asr_kd.io.stamp import Stamp, read_stamp
from asr_kd.stages.system_run import SystemRun
from asr_kd.stages.train import train
from asr_kd.stages.training_run import TrainResult
from asr_kd.stages.training_set import seeds_of

from ..stores import write_store
from .toy import HARD, MODEL, OPTIONS, TRAINING, Toy, make_toy, soft


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path / "work")


def names_of(results: list[Any]) -> list[str]:
    return [result.folder.name for result in results if result.ran]


CHAIN = {
    "distilled": soft(**{"from": "assistant"}),
    "assistant": soft(**{"from": "teacher"}),
    "teacher": HARD | {"members": 2},
}


def test_a_chain_is_trained_in_one_call_as_stage_by_stage(toy: Toy, tmp_path: Path) -> None:
    config = toy.config(**CHAIN)
    made = ["teacher", "teacher,T2,keep_mass=1.0,max_entries=6", "assistant"]
    made += ["assistant,T2,keep_mass=1.0,max_entries=6", "distilled"]
    assert names_of(train(config, toy.work, OPTIONS, nj=1)) == made
    assert names_of(train(config, toy.work, OPTIONS, nj=1)) == []
    staged = make_toy(tmp_path / "staged")
    for system in ("teacher", "assistant", "distilled"):
        train(config, staged.work, OPTIONS, [system], nj=1)
    for system in CHAIN:
        assert toy.weights(system) == staged.weights(system)
    assert len({toy.weights(system)[0] for system in CHAIN}) == 3


def test_what_a_system_learns_from_must_be_trained(toy: Toy) -> None:
    config = toy.config(**CHAIN)
    with pytest.raises(UserError, match=r"exp/teacher is not there yet; make it first: asr-kd train teacher --config"):
        train(config, toy.work, OPTIONS, ["assistant"])
    with pytest.raises(UserError, match="there is no system 'student' in the config"):
        train(config, toy.work, OPTIONS, ["student"])
    train(config, toy.work, OPTIONS, ["teacher"])
    toy.label(seed=1)
    with pytest.raises(UserError, match=r"exp/teacher was trained on train senones .*asr-kd train teacher"):
        train(config, toy.work, OPTIONS, ["assistant"])
    shutil.rmtree(toy.work.tree("tied"))
    with pytest.raises(UserError, match="tree is not there yet; make it first: asr-kd align"):
        train(config, toy.work, OPTIONS)


def test_only_what_depends_on_a_setting_is_trained_again(toy: Toy) -> None:
    train(toy.config(**CHAIN), toy.work, OPTIONS, nj=1)
    changed = CHAIN | {"assistant": soft(**{"from": "teacher", "soft_weight": 0.9})}
    stores = "assistant,T2,keep_mass=1.0,max_entries=6"  # soft_weight does not enter the teacher's store
    assert names_of(train(toy.config(**changed), toy.work, OPTIONS, nj=1)) == ["assistant", stores, "distilled"]


def test_systems_with_the_same_targets_share_a_store(toy: Toy) -> None:
    systems = {
        "teacher": HARD,
        "a": soft(**{"from": "teacher"}),
        "b": soft(**{"from": "teacher", "soft_weight": 0.2, "loss": "logits"}),
        "c": soft(**{"from": "teacher", "online": True}),
    }
    store = "teacher,T2,keep_mass=1.0,max_entries=6"
    assert sorted(names_of(train(toy.config(**systems), toy.work, OPTIONS, nj=1))) == ["a", "b", "c", "teacher", store]
    assert [path.name for path in toy.work.exp("targets").iterdir()] == [store]


def test_teachers_of_another_context_teach_beside_a_student_as_from_a_store(toy: Toy) -> None:
    wide = HARD | {"model": MODEL | {"left_context": 5, "right_context": 4}, "members": 2}
    tdnn = HARD | {"model": {"kind": "tdnn", "width": 6, "dilations": [1, 2], "chunk_frames": 8}}
    systems = {
        "wide": wide,
        "tdnn": tdnn,
        "stored": soft(**{"from": ["wide", "tdnn"]}),
        "online": soft(**{"from": ["wide", "tdnn"], "online": True}),
        "of_one": soft(**{"from": "wide", "online": True}),
    }
    train(toy.config(**systems), toy.work, OPTIONS, nj=1)
    losses = {
        name: [json.loads(line)["soft"] for line in (toy.work.exp(name) / "log.jsonl").read_text().splitlines()]
        for name in ("stored", "online", "of_one")
    }
    np.testing.assert_allclose(losses["online"], losses["stored"], rtol=1e-3)
    assert not np.allclose(losses["of_one"], losses["stored"], rtol=1e-2)


def test_a_loss_that_needs_whole_distributions_is_refused_with_a_store_that_cuts(toy: Toy) -> None:
    cut = HARD | {"targets": {"from": "teacher", "loss": "logits"}}
    with pytest.raises(UserError, match=r"systems.b.targets.loss: logits needs .*max_entries: 6"):
        train(toy.config(teacher=HARD, b=cut | {"targets": cut["targets"] | {"max_entries": 5}}), toy.work, OPTIONS)
    assert not toy.work.exp("teacher").exists()  # it is said before anything is trained


def test_side_by_side_they_are_as_one_after_the_other(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asr_kd.stages.train.usable_cores", lambda: 2)  # on a machine with one core too
    config = toy.config(teacher=HARD | {"members": 2}, direct=HARD, distilled=soft(**{"from": "teacher"}))
    train(config, toy.work, OPTIONS, nj=1)
    other = make_toy(tmp_path / "other")
    train(config, other.work, OPTIONS, nj=2)
    for name in config.systems:
        assert other.weights(name) == toy.weights(name), name

    for name in ("direct", "distilled"):
        shutil.rmtree(other.work.exp(name))
    ids = next(other.work.exp("targets").iterdir()) / "ids.npy"
    ids.write_bytes(ids.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"soft targets are damaged .*asr-kd soft-targets distilled"):
        train(config, other.work, OPTIONS, nj=2)
    assert "distilled cannot be trained" in caplog.text
    assert other.weights("direct") == toy.weights("direct") and not other.work.exp("distilled").exists()


def test_what_is_longest_starts_first_and_what_is_left_runs_with_all_cores(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr_kd.stages.train.usable_cores", lambda: 2)
    started: list[list[str]] = []

    def note(run, what, options, nj):  # type: ignore[no-untyped-def]
        started.append([name for name, _ in what])
        return [SystemRun(run.config, run.work, name, run.data).train(options) for name, _ in what]

    monkeypatch.setattr("asr_kd.stages.train._side_by_side", note)
    long = HARD | {"training": HARD["training"] | {"epochs": 4}}
    results = train(toy.config(a=HARD, b=HARD, c=long), toy.work, OPTIONS)
    assert started == [["c", "a", "b"]] and [result.folder.name for result in results] == ["a", "b", "c"]
    results = train(toy.config(d=HARD, e=HARD, f=HARD), toy.work, OPTIONS)
    assert started[1:] == [["d", "e"]] and [result.folder.name for result in results] == ["d", "e", "f"]


@pytest.mark.parametrize(
    ("words", "variable", "follows"),
    [([], None, True), (["--threads", "1"], None, False), ([], "1", False)],
    ids=["free", "threads", "variable"],
)
def test_a_system_by_itself_follows_the_load_unless_a_number_of_threads_is_given(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, words: list[str], variable: str | None, follows: bool
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if variable is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("asr_kd.io.cores.taken_cores", lambda: 0.0)
    followed: dict[str, bool] = {}

    def note(model, data, criterion, training, control):  # type: ignore[no-untyped-def]
        followed[control.label] = control.follow_load
        return fit(model, data, criterion, training, control)

    monkeypatch.setattr("asr_kd.stages.training_run.fit", note)
    toy.work.config_path.write_text(json.dumps({"systems": {"a": HARD}}))
    command = ["train", *words, "--config", str(toy.work.config_path), "--work-dir", str(toy.work.root)]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert followed == {"a": follows}


def test_systems_side_by_side_do_not_follow_the_load(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take the other for another program."""
    monkeypatch.setattr("asr_kd.stages.train.usable_cores", lambda: 2)
    handed: list[bool] = []

    def note(function, sides, nj):  # type: ignore[no-untyped-def]
        handed.extend(options.follow_load for _, options in sides)
        return map(function, sides)

    monkeypatch.setattr("asr_kd.stages.train.parallel_map", note)
    train(toy.config(a=HARD, b=HARD), toy.work, replace(OPTIONS, follow_load=True))
    assert handed == [False, False]


def test_members_of_an_ensemble_are_reused(toy: Toy) -> None:
    config = toy.config(direct=HARD | {"seeds": 2, "reuse": "teacher"}, teacher=HARD | {"members": 3})
    results = train(config, toy.work, OPTIONS, nj=1)
    assert [str(result).partition(";")[0] for result in results] == ["teacher: trained", "direct: reused from teacher"]
    assert toy.weights("direct") == toy.weights("teacher")[:2]
    again = train(config, toy.work, OPTIONS, ["direct"])
    assert str(again[0]).startswith("direct: already reused from teacher; 2 x ")
    assert (read_stamp(toy.work.exp("direct")) or {})["step"] == "reuse"

    longer = {"model": MODEL, "training": TRAINING | {"epochs": 3}}
    changed = toy.config(direct=longer | {"seeds": 2, "reuse": "teacher"}, teacher=longer | {"members": 3})
    with pytest.raises(
        UserError, match=r"other settings than the config's teacher \(training\.epochs\); .* asr-kd train teacher"
    ):
        train(changed, toy.work, OPTIONS, ["direct"])
    more = toy.config(direct=HARD | {"seeds": 4, "reuse": "teacher"}, teacher=HARD | {"members": 4})
    with pytest.raises(UserError, match=r"config's teacher \(members or seeds\); train it again: asr-kd train teacher"):
        train(more, toy.work, OPTIONS, ["direct"])


@pytest.mark.parametrize(
    ("accuracy", "epochs", "says"),
    [
        ([0.479], [3], "dev frame accuracy 47.9% (best epoch 3)"),
        ([0.4791, 0.4789], [3, 3], "dev frame accuracy 47.9% (best epochs 3, 3)"),
        ([0.5, 0.479], [3, 4], "dev frame accuracy 47.9% to 50.0% (best epochs 3, 4)"),
    ],
)
def test_one_net_has_one_accuracy_and_one_best_epoch(accuracy: list[float], epochs: list[int], says: str) -> None:
    result = TrainResult(Path("exp/direct"), True, len(epochs), 10, accuracy, epochs, accuracy)
    assert str(result).endswith(says)


def test_models_of_one_kind_have_the_same_seeds(toy: Toy) -> None:
    config = toy.config(
        teacher=HARD | {"members": 2},
        folded=HARD | {"members": 4, "folds": 2},
        reusing=HARD | {"reuse": "alone"},
        alone=HARD,
        direct=HARD | {"seeds": 2},
        distilled=soft(**{"from": "teacher"}),
    )
    seeds = {name: seeds_of(replace(config, seed=3), name) for name in config.systems}
    assert seeds == {
        "teacher": [3000, 3001],
        "folded": [3700, 3701, 3702, 3703],
        "reusing": [3000],
        "alone": [3000],
        "direct": [3500, 3501],
        "distilled": [3500],
    }


def test_a_fraction_is_of_whole_utterances_with_their_copies_and_grows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    speeds = {"": 1.0, "_sp0.9": 0.9, "_sp1.1": 1.1}
    names = [f"dr_spock_{k}{suffix}" for suffix in speeds for k in range(20)]
    arrays = [(name, rng.normal(size=(3 + k % 4, 2)).astype(np.float32)) for k, name in enumerate(names)]
    store = write_store(tmp_path / "s", arrays, speeds=[speed for speed in speeds.values() for _ in range(20)])
    assert draw_fraction(store, 1.0, 1) is None
    before: set[str] = set()
    for fraction, expected in ((0.001, 1), (0.1, 2), (0.5, 10), (0.95, 19)):
        frames = draw_fraction(store, fraction, 1)
        assert frames is not None
        parts = [frames[a:b] for a, b in zip(store.offsets, store.offsets[1:], strict=False)]
        assert all(part.all() or not part.any() for part in parts)
        drawn = {name.split("_sp0")[0].split("_sp1")[0] for name, part in zip(names, parts, strict=True) if part.all()}
        assert len(drawn) == expected and sum(part.all() for part in parts) == 3 * expected
        assert before <= drawn
        before = drawn
    assert not np.array_equal(draw_fraction(store, 0.5, 1), draw_fraction(store, 0.5, 2))


def test_systems_on_a_fraction_learn_from_it_alone_with_soft_targets_of_all(toy: Toy) -> None:
    few = {"train_fraction": 0.25}
    systems = {
        "teacher": HARD,
        "direct": HARD,
        "few-direct": HARD | few,
        "few-distilled": soft(**{"from": "teacher"}) | few,
        "distilled": soft(**{"from": "teacher"}),
    }
    config = toy.config(**systems)
    (store,) = [result for result in train(config, toy.work, OPTIONS, nj=1) if not isinstance(result, TrainResult)]
    assert store.frames == toy.train.num_frames
    assert len({toy.weights(name)[0] for name in systems}) == 5 - 1  # teacher and direct are the same system here

    # what is not drawn is not learnt from: other labels there change nothing
    drawn = draw_fraction(toy.train, 0.25, config.seed)
    assert drawn is not None and 0 < drawn.sum() < 0.5 * len(drawn)
    labels = np.array(toy.train.array("senones"))
    stamp = toy.train.array_stamp("senones")
    assert stamp is not None
    labels[~drawn & (labels >= 0)] = 0
    np.save(toy.work.frames("train") / "senones.npy", labels)
    before = toy.weights("few-direct"), toy.weights("direct")
    for name in ("few-direct", "direct"):
        shutil.rmtree(toy.work.exp(name))
    train(config, toy.work, OPTIONS, ["few-direct", "direct"], nj=1)
    assert toy.weights("few-direct") == before[0] and toy.weights("direct") != before[1]


def test_members_do_not_learn_from_their_fold(toy: Toy) -> None:
    config = toy.config(teacher=HARD | {"members": 2, "folds": 2})
    train(config, toy.work, OPTIONS)
    first = toy.weights("teacher")
    labels = np.array(toy.train.array("senones"))
    fold = np.repeat([int(name.removeprefix("train").partition("_")[0]) % 2 for name in toy.train.ids],
                     np.diff(toy.train.offsets))  # fmt: skip
    labels[(fold == 0) & (labels >= 0)] = 0
    np.save(toy.work.frames("train") / "senones.npy", labels)
    shutil.rmtree(toy.work.exp("teacher"))
    train(config, toy.work, OPTIONS)
    assert toy.weights("teacher")[0] == first[0] and toy.weights("teacher")[1] != first[1]


def test_a_control_on_untied_states_has_its_own_labels(toy: Toy) -> None:
    config = toy.config(direct=HARD, monophone=HARD | {"tree": "monophone"})
    with pytest.raises(UserError, match=r"tree_monophone is not there yet; make it first: asr-kd align"):
        train(config, toy.work, OPTIONS)
    toy.label("monophone", num_senones=4)
    train(config, toy.work, OPTIONS, nj=1)
    assert load_model(toy.work.exp("monophone")).num_senones == 4
    metadata = (read_stamp(toy.work.exp("monophone")) or {})["metadata"]
    assert (metadata["tree"], metadata["labels"]) == ("monophone", "senones_monophone")


def test_the_precision_of_training_stays_with_the_model(toy: Toy) -> None:
    config = toy.config(teacher=HARD, other={"model": MODEL, "training": TRAINING | {"precision": "bfloat16"}})
    train(config, toy.work, OPTIONS, nj=1)
    assert load_model(toy.work.exp("teacher")).precision == "float32"
    assert load_model(toy.work.exp("other")).precision == "bfloat16"


@pytest.mark.parametrize("fails", [False, True])
def test_the_tensorboard_writer_is_closed(toy: Toy, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    events: list[str] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            events.append(f"open {Path(folder).name}")

        def add_scalar(self, *arguments: Any) -> None:
            if fails:
                raise KeyboardInterrupt
            events.append("scalar")

        def close(self) -> None:
            events.append("close")

    module = ModuleType("torch.utils.tensorboard.writer")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", ModuleType("torch.utils.tensorboard"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with contextlib.suppress(KeyboardInterrupt):
        train(toy.config(teacher=HARD), toy.work, replace(OPTIONS, tensorboard=toy.work.root / "tb"))
    assert events[0] == "open teacher" and events[-1] == "close"
    assert fails or events.count("scalar") > 2


def test_tensorboard_reads_what_training_writes(toy: Toy) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(toy.config(teacher=HARD), toy.work, replace(OPTIONS, tensorboard=toy.work.root / "tb"))
    events = EventAccumulator(str(toy.work.root / "tb" / "teacher")).Reload()
    rows = read_log(toy.work.exp("teacher"))
    assert {"loss", "dev_accuracy", "learning_rate"} <= set(events.Tags()["scalars"])
    for name in ("loss", "dev_accuracy"):
        means = [(row["epoch"], pytest.approx(sum(row[name]) / len(row[name]))) for row in rows]
        assert [(event.step, event.value) for event in events.Scalars(name)] == means


@pytest.mark.parametrize("without", ["train", "dev"])
def test_frames_without_a_label_say_so(toy: Toy, without: str) -> None:
    """Dev alone may have failed to align: without its labels no epoch is the best one."""
    store = FrameStore.open(toy.work.frames(without))
    inputs = {"tree": read_stamp(toy.work.tree("tied"))["digest"]}  # type: ignore[index]
    store.attach("senones", [np.full(store.num_frames, -1)], np.int32, Stamp("align", {"changed": True}, inputs))
    says = {"train": "teacher has nothing to learn from: no frame of .*train has a label; ",
            "dev": "no frame of .*dev has a label, so that no epoch of teacher is best; "}[without]  # fmt: skip
    with pytest.raises(UserError, match=says + r".*failed\.json says why"):
        train(toy.config(teacher=HARD), toy.work, OPTIONS, nj=1)


def test_a_member_must_have_frames_outside_its_fold(toy: Toy) -> None:
    store = toy.train
    labels = np.where(np.repeat(fold_of_utterances(store, 2) == 1, np.diff(store.offsets)), 0, -1)
    inputs = {"tree": read_stamp(toy.work.tree("tied"))["digest"]}  # type: ignore[index]
    store.attach("senones", [labels], np.int32, Stamp("align", {"changed": True}, inputs))
    with pytest.raises(UserError, match=r"teacher: all labelled frames are in fold 2, .* member 2 does not train"):
        train(toy.config(teacher=HARD | {"members": 2, "folds": 2}), toy.work, OPTIONS, nj=1)


def test_systems_are_needed(toy: Toy) -> None:
    with pytest.raises(UserError, match="has no systems to train") as error:
        train(toy.config(), toy.work, OPTIONS)
    assert re.search("toy.yaml", str(error.value))


def test_a_distilled_system_is_not_reused(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"systems\.direct\.reuse: distilled is distilled"):
        toy.config(teacher=HARD, distilled=soft(**{"from": "teacher"}), direct=HARD | {"reuse": "distilled"})


def test_the_commands_take_names_of_systems(toy: Toy) -> None:
    toy.work.config_path.write_text(yaml.safe_dump({"systems": {"teacher": HARD, "a": soft(**{"from": "teacher"})}}))

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, [*arguments, "--config", str(toy.work.config_path), "--device", "cpu"])
        return result.exit_code, result.output

    assert run("soft-targets") == (2, "asr-kd soft-targets: no teacher is trained yet (teacher); train them first: "
                                   f"asr-kd train --teachers --config {toy.work.config_path}\n")  # fmt: skip
    status, output = run("train", "--teachers")
    assert status == 0 and "teacher: trained; 1 x " in output and not toy.work.exp("a").exists()
    status, output = run("train", "a")
    assert status == 0 and "a: trained; 1 x " in output
    assert run("soft-targets", "a")[1].startswith("soft targets teacher,T2,keep_mass=1.0,max_entries=6: already stored")
    assert run("train", "--teachers", "a") == (2, "asr-kd train: --teachers and names of systems exclude each other.\n")
    assert run("train", "b")[0] == 2


def test_a_run_that_diverges_is_stopped_and_leaves_no_system(toy: Toy) -> None:
    """Every loss and gradient is finite until one is not; then nothing is written, and the sentence says what helps."""
    sgd = HARD | {"training": TRAINING | {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 1e6, "epochs": 30}}
    toy.work.config_path.write_text(yaml.safe_dump({"systems": {"direct": sgd}}))
    result = CliRunner().invoke(main, ["train", "direct", "--config", str(toy.work.config_path), "--device", "cpu"])
    assert result.exit_code == 2, result.output
    assert "direct: training diverged: " in result.output and "is not finite" in result.output
    rate = re.search(r"step \d+ \(learning rate (\S+)\)", result.output)
    assert rate is not None and 1e4 < float(rate[1]) <= 1e6  # on its way down the cosine
    assert "lower systems.direct.training.learning_rate" in result.output and "Traceback" not in result.output
    assert not toy.work.exp("direct").exists()
    calmer = sgd | {"training": sgd["training"] | {"learning_rate": 1e-3, "epochs": 1}}
    train(toy.config(direct=calmer), toy.work, OPTIONS)  # the sentence's advice
    assert toy.weights("direct")


def test_what_learnt_from_nothing_finite_teaches_nobody(toy: Toy) -> None:
    """Weights that an earlier version saved: they are refused where they are read."""
    config = toy.config(teacher=HARD, distilled=soft(**{"from": "teacher"}))
    train(config, toy.work, OPTIONS, ["teacher"])
    file = toy.work.exp("teacher") / "member_0.safetensors"
    tensors = safetensors.torch.load_file(str(file))
    safetensors.torch.save_file({name: value * float("nan") for name, value in tensors.items()}, str(file))
    with pytest.raises(UserError, match=r"teacher: this model is damaged .*not finite"):
        train(config, toy.work, OPTIONS, ["distilled"])


def test_the_advice_about_a_part_of_a_model_that_is_missing_works(toy: Toy) -> None:
    """Without being deleted it would count as trained."""
    config = toy.config(teacher=HARD, distilled=soft(**{"from": "teacher"}))
    train(config, toy.work, OPTIONS, ["teacher"])
    folder = toy.work.exp("teacher")
    (folder / "member_0.safetensors").unlink()
    assert not train(config, toy.work, OPTIONS, ["teacher"])[0].ran
    with pytest.raises(UserError, match=r"exp/teacher: a part of the model is missing .*; delete it and train it"):
        train(config, toy.work, OPTIONS, ["distilled"])
    shutil.rmtree(folder)
    assert all(result.ran for result in train(config, toy.work, OPTIONS, nj=1))
