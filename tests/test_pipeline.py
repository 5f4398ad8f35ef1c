"""The whole recipe on speech made of tones: every command, its second run, and `kill -9` in the middle."""

import importlib.util
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

from asr_kd.acoustic.model_files import load_model, save_model
from asr_kd.cli import main
from asr_kd.io.stamp import identity, read_stamp

from .recipe import CONFIG, LEXICON, SIDE_BY_SIDE, STAGES, TRAINING, arguments, finished_recipe, make_recipe, run

SYSTEMS = ("teacher", "direct", "distilled", "monophone")
TDNN = {"kind": "tdnn", "width": 16, "dilations": [1, 2], "chunk_frames": 20}
CLOCK = ("rtf", "seconds_per_hour", "frames_per_second", "seconds", "memory")


def changed(**sections) -> dict:
    """The recipe's config with other values of some keys, section by section."""
    config = json.loads(json.dumps(CONFIG))
    for section, values in sections.items():
        config[section] = config.get(section, {}) | values
    return config


def systems(**settings) -> dict:
    """The config with other settings of some systems."""
    known = json.loads(json.dumps(CONFIG))["systems"]
    return changed(systems=known | {name: known.get(name, {}) | values for name, values in settings.items()})


def comparable(path: Path) -> dict:
    """results.json without what depends on the clock."""
    return json.loads(
        path.read_text(), object_hook=lambda entries: {k: v for k, v in entries.items() if k not in CLOCK}
    )


def stamps(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*stamp.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_recipe(tmp_path_factory)


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished work folder that a test may change; its config's path."""
    shutil.copytree(finished.parent.parent, tmp_path / "work")
    return tmp_path / "work" / "conf" / finished.name


def test_the_report_has_every_system_and_the_words_were_found(finished):
    results = json.loads((finished.parent.parent / "exp" / "report" / "results.json").read_text())
    rows = {system["name"]: system for system in results["systems"]}
    assert set(SYSTEMS) == rows.keys()
    for name, system in rows.items():
        errors = system["errors"]["test"]
        wrong = errors["ins"] + errors["del"] + errors["sub"]
        assert system["wer"]["test"] == pytest.approx(wrong / errors["words"]), name
    assert rows["teacher"]["wer"]["test"] < 0.5  # tones are easy; a broken graph or alignment is not
    for name, system in rows.items():
        errors = system["phones"]["errors"]["test"]
        wrong = errors["ins"] + errors["del"] + errors["sub"]
        assert system["per"]["test"] == pytest.approx(wrong / errors["words"]), name
        assert errors["words"] > 2 * system["errors"]["test"]["words"]
    assert rows["teacher"]["per"]["test"] < 0.5 and results["distillation"]["sets"]["test"]["metrics"]["per"]
    assert results["alignment"]["failed"] == []


def test_models_that_learn_from_discriminants_are_models_like_any_other(finished):
    for name, width in (("teacher", 24), ("direct", 16), ("distilled", 16)):
        model = load_model(finished.parent.parent / "exp" / name)
        assert model.settings.lda_dims == 0
        assert model.layers[0].weight.shape == (2, 26 * 40, width)


def test_a_second_run_does_nothing(finished):
    page = finished.parent.parent / "exp" / "report" / "index.html"
    before = page.stat().st_mtime_ns
    run(finished, STAGES)
    assert page.stat().st_mtime_ns == before


def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with one core too."""
    for module in ("stages.train", "workspace.executor"):
        monkeypatch.setattr(f"asr_kd.{module}.usable_cores", lambda: 2)


def test_systems_trained_side_by_side_are_those_of_one_after_the_other(copy, monkeypatch):
    two_cores(monkeypatch)
    root = copy.parent.parent
    names = ("direct", "distilled", "monophone")
    models = {path: path.read_bytes() for name in names for path in (root / "exp" / name).glob("member_*.safetensors")}
    for name in names:
        shutil.rmtree(root / "exp" / name)
    (output,) = run(copy, [["train", "--nj", "2"]])
    assert sorted(re.findall(r"(\w+): trained", output)) == sorted(names)
    assert len(models) == 5
    for path, weights in models.items():
        assert path.read_bytes() == weights, path
    log = (root / "exp" / "log" / "train.log").read_text()
    for name in names:  # what helper processes log is not lost
        assert f"training {name}: not made yet" in log


def test_where_one_of_two_trainings_fails_the_other_is_kept(copy, monkeypatch):
    two_cores(monkeypatch)
    root = copy.parent.parent
    for name in ("direct", "distilled"):
        shutil.rmtree(root / "exp" / name)
    entries = root / "exp" / "targets" / "teacher,T2" / "ids.npy"
    entries.write_bytes(entries.read_bytes()[:-1])
    result = CliRunner().invoke(main, arguments(copy, ["train", "direct", "distilled", "--nj", "2"]))
    assert result.exit_code == 2 and "asr-kd train: " in result.output.strip().splitlines()[-1]
    log = (root / "exp" / "log" / "train.log").read_text()
    assert re.search(r"distilled cannot be trained .*targets", log)
    assert (root / "exp" / "direct" / "stamp.json").exists() and not (root / "exp" / "distilled").exists()


@pytest.mark.skipif(importlib.util.find_spec("k2") is None, reason="k2 is not installed")
def test_kaldi_decoder_finds_the_same_words(copy):
    file = copy.parent.parent / "exp" / "decode" / "teacher" / "test" / "hyps.jsonl"
    rows = {}
    for decoder in ("k2", "kaldi"):
        run(copy, [["decode", "--system", "teacher", "--decoder", decoder, "--nj", "1"]])
        rows[decoder] = [json.loads(line)["hyp"] for line in file.read_text().splitlines()]
    assert sum(a == b for a, b in zip(rows["k2"], rows["kaldi"], strict=True)) >= len(rows["k2"]) - 1


def test_own_recordings_become_words(finished):
    recordings = sorted((finished.parent.parent / "corpus" / "train").glob("*.wav"))[:2]
    command = ["transcribe", "--system", "distilled", "--config", str(finished), *map(str, recordings)]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0
    lines = [line.split("\t") for line in result.output.splitlines() if "\t" in line]
    assert [path for path, _ in lines] == list(map(str, recordings))
    assert all(word in LEXICON for _, words in lines for word in words.split())
    assert all(words for _, words in lines)
    result = CliRunner().invoke(main, [*command, "gone.wav"])
    assert result.exit_code == 2 and "gone.wav is missing" in result.output


def test_other_settings_rebuild_only_what_depends_on_them(copy):
    targets = CONFIG["systems"]["distilled"]["targets"]
    copy.write_text(yaml.safe_dump(systems(distilled={"targets": targets | {"soft_weight": 0.9}})))
    before = stamps(copy.parent.parent)
    run(copy, [["align", "--nj", "1"], ["train", "--teachers"], ["soft-targets"], ["train", "--nj", "1"]])
    after = stamps(copy.parent.parent)
    assert {path for path in after if after[path] != before.get(path)} == {Path("exp/distilled/stamp.json")}


def test_a_larger_vocabulary_changes_the_search_and_no_net(copy):
    root = copy.parent.parent
    (copy.parent / "more.txt").write_text("BASI SABI\nSABI BA\n" * 3)
    lexicon = copy.parent / "lexicon.txt"
    lexicon.write_text(lexicon.read_text() + "SABI S AA B IY\n")
    copy.write_text(yaml.safe_dump(changed(lang={"lm_text": "more.txt", "lm_transcripts": True})))
    before = stamps(root)
    outputs = run(copy, STAGES)
    assert {"SABI", *LEXICON} == set((root / "data" / "lang" / "words.txt").read_text().split())
    after = stamps(root)
    assert not {path for path in after if path.parts[:2] == ("exp", "align") and after[path] != before[path]}
    for system in SYSTEMS:
        assert after[Path("exp") / system / "stamp.json"] == before[Path("exp") / system / "stamp.json"]
        decoded = Path("exp") / "decode" / system / "test" / "stamp.json"
        assert after[decoded] != before[decoded]
    assert "already" in outputs[4]

    lexicon.write_text(lexicon.read_text().replace("BASI B AA S IY", "BASI B AA IY"))  # it is said in training
    run(copy, STAGES[:3])
    path = Path("exp") / "align" / "train" / "stamp.json"
    assert stamps(root)[path] != after[path]


def test_a_set_that_was_added_follows_pronunciations_that_came_later(copy):
    root, lexicon = copy.parent.parent, copy.parent / "lexicon.txt"
    known = lexicon.read_text()
    shutil.copytree(root / "corpus" / "test", root / "corpus" / "more")
    lines = (root / "corpus" / "more" / "text").read_text().replace("test", "more").splitlines()
    for file in (root / "corpus" / "more").glob("*.wav"):
        file.rename(file.with_name(file.name.replace("test", "more")))
    (root / "corpus" / "more" / "text").write_text("\n".join([f"{lines[0].split()[0]} SABI BA", *lines[1:]]))
    lexicon.write_text(known + "SABI S AA B IY\n")
    run(copy, [["prepare"], ["prepare", "--add-set", "more=more"], *STAGES[1:3]])
    before = stamps(root)
    lexicon.write_text(known + "SABI S AA B AA\n")
    (copy.parent / "more.txt").write_text("SABI BA\n" * 3)
    copy.write_text(yaml.safe_dump(changed(lang={"lm_text": "more.txt", "lm_transcripts": True})))
    run(copy, STAGES[:3])
    after = stamps(root)
    for name, made_again in (("more", True), ("train", False), ("test", False)):
        path = Path("exp") / "align" / name / "stamp.json"
        assert (after[path] != before[path]) is made_again, name


def test_weights_that_are_trained_again_otherwise_take_their_results_with_them(copy, monkeypatch):
    """As after a change of code, which no setting tells of, or on cores that round otherwise."""
    exp = copy.parent.parent / "exp"
    shutil.rmtree(exp / "teacher")

    def save_others(model, folder):
        with torch.no_grad():
            next(model.parameters()).add_(1e-3)
        save_model(model, folder)

    with monkeypatch.context() as context:
        context.setattr("asr_kd.stages.training_run.save_model", save_others)
        run(copy, [["train", "--teachers", "--nj", "1"]])
    stages = [["soft-targets", "--nj", "1"], ["train", "--nj", "1"], ["decode", "--nj", "1"]]
    targets, trained, _ = run(copy, stages)
    assert "already" not in targets
    assert "direct: already trained" in trained and "distilled: trained" in trained
    stamps = {name: read_stamp(exp / "decode" / name / "test") for name in ("teacher", "direct", "distilled")}
    for name, stamp in stamps.items():
        assert stamp["inputs"]["model"] == identity(read_stamp(exp / name))
    assert all("already" in output for output in run(copy, stages)[:2])


def test_a_set_that_is_added_is_scored_with_nothing_trained_again(copy):
    root = copy.parent.parent
    shutil.copytree(root / "corpus" / "test", root / "corpus" / "more")
    for path in (root / "corpus" / "more").iterdir():
        if path.name == "text":
            path.write_text(path.read_text().replace("test", "more"))
        else:
            path.rename(path.with_name(path.name.replace("test", "more")))
    before = stamps(root)
    add = ["prepare", "--add-set", "more=more", "--corpus-dir", str(root / "corpus"), "--config", str(copy)]
    result = CliRunner().invoke(main, add, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    run(
        copy,
        [
            ["features", "--nj", "1"],
            ["align", "--nj", "1"],
            ["train", "--nj", "1"],
            ["decode", "--nj", "1"],
            ["report"],
        ],
    )
    after = stamps(root)
    changed_stamps = {str(path) for path in before if after[path] != before[path]}
    assert changed_stamps <= {"exp/report/stamp.json", "exp/align/stamp.json"}
    results = json.loads((root / "exp" / "report" / "results.json").read_text())
    for system in results["systems"]:  # the same recordings by other names
        assert system["wer"]["more"] == system["wer"]["test"] and system["per"]["more"] == system["per"]["test"]
        assert system["frame_accuracy"]["more"] == pytest.approx(system["frame_accuracy"]["test"])


def test_a_chain_and_two_teachers_and_an_ensemble_of_kinds_go_through_every_stage(copy):
    small = {"model": {"layers": 1, "width": 16}, "training": TRAINING}
    chain = systems(
        chained=small | {"targets": {"from": "distilled"}},
        of_two=small | {"targets": {"from": ["teacher", "direct"], "online": True}},
        of_kinds=small | {"targets": {"from": "kinds"}},
        kinds={"members": ["teacher", "tdnn"]},
        tdnn={"model": TDNN, "training": TRAINING},
    )
    chain["compare"] = [
        *CONFIG["compare"],
        {"direct": "direct", "distilled": "chained", "teacher": "distilled"},
        {"direct": "direct", "distilled": "of_kinds", "teacher": "kinds"},
    ]
    copy.write_text(yaml.safe_dump(chain))
    run(copy, STAGES[3:])
    root = copy.parent.parent
    results = json.loads((root / "exp" / "report" / "results.json").read_text())
    rows = {system["name"]: system for system in results["systems"]}
    assert {"chained", "of_two", "of_kinds"} < rows.keys()
    for key in ("parameters", "bytes", "members"):
        assert rows["kinds"][key] == rows["teacher"][key] + rows["tdnn"][key]
    assert rows["kinds"]["wer"]["test"] < 0.5
    recording = str(next((root / "corpus" / "train").glob("*.wav")))
    result = CliRunner().invoke(main, ["transcribe", "--system", "kinds", "--config", str(copy), recording])
    assert result.exit_code == 0 and result.output.split("\t")[1].strip()


def test_untranscribed_speech_teaches_beside_the_training_set(copy):
    """A folder of recordings alone: only the systems that learn from it are trained, and nothing else is made again."""
    root, more = copy.parent.parent, copy.parent.parent / "corpus" / "more"
    more.mkdir()
    for path in (root / "corpus" / "test").glob("*.wav"):
        shutil.copy(path, more / path.name.replace("test", "more"))
    small = {"model": {"layers": 1, "width": 16}, "training": TRAINING}
    config = systems(
        wide=small | {"targets": CONFIG["systems"]["distilled"]["targets"] | {"extra": "more"}},
        online=small | {"targets": {"from": "teacher", "online": True, "extra": ["more"]}},
    )
    copy.write_text(yaml.safe_dump(config | {"untranscribed": {"more": ["more"]}}))
    before, stages = stamps(root), [*STAGES[:3], *STAGES[5:]]
    said = run(copy, stages)
    assert "more: 10 utterances without transcripts, " in said[0] and "more: 20 utterances, " in said[1]
    assert said[2].startswith("already aligned: ") and said[3].count("already trained") == 4
    after = stamps(root)
    assert {str(path) for path in before if after[path] != before[path]} <= {"exp/report/stamp.json"}
    targets = "exp/targets/teacher,T2,set=more/stamp.json"
    of_more = {"data/cuts_more.stamp.json", "data/frames/more/stamp.json"}
    learnt = {targets, *(f"exp/{name}/stamp.json" for name in ("wide", "online"))}
    decoded = {
        f"exp/{kind}/{name}/{set_name}/stamp.json"
        for kind in ("decode", "phone_decode")
        for name in ("wide", "online")
        for set_name in ("dev", "test")
    }
    assert {str(path) for path in after.keys() - before.keys()} >= of_more | learnt | decoded
    assert not [path for path in after if "more" in path.parts and "decode" in path.parts]
    results = json.loads((root / "exp" / "report" / "results.json").read_text())
    rows = {row["name"]: row for row in results["systems"]}
    frames = json.loads((root / "data" / "frames" / "more" / "stamp.json").read_text())["metadata"]["frames"]
    assert rows["wide"]["extra"] == rows["online"]["extra"] == {"more": frames} and rows["distilled"]["extra"] == {}
    assert results["data"]["sets"]["more"]["untranscribed"] and results["sets"] == ["dev", "test"]
    page = (root / "exp" / "report" / "report.md").read_text()
    assert "wide learnt from speech without transcripts, by soft targets alone: more (10 utterances, " in page

    next(more.glob("*.wav")).unlink()
    run(copy, stages)
    again = stamps(root)
    assert {str(path) for path in again if again[path] != after[path]} == {"exp/report/stamp.json"} | {
        *of_more, *learnt, *decoded, *(str(path) for path in after if "report" in path.parts)
    }  # fmt: skip


def test_a_convolutional_teacher_teaches_a_fully_connected_student(copy):
    copy.write_text(yaml.safe_dump(systems(teacher={"model": TDNN})))
    run(copy, STAGES[3:])
    results = json.loads((copy.parent.parent / "exp" / "report" / "results.json").read_text())
    accuracy = {system["name"]: system["frame_accuracy"]["test"] for system in results["systems"]}
    assert accuracy["teacher"] > 0.3


def test_a_corpus_that_changed_is_noticed_without_the_stages_that_read_it(tmp_path):
    config = make_recipe(tmp_path)
    run(config, STAGES[:3])  # up to the alignment
    text = tmp_path / "corpus" / "train" / "text"
    before = text.read_text()
    text.write_text(before + "\n")
    result = CliRunner().invoke(main, arguments(config, ["align", "--nj", "1"]))
    assert result.exit_code == 2 and "train/text changed after" in result.output and "asr-kd prepare" in result.output
    text.write_text(before)
    config.write_text(yaml.safe_dump(changed(lang={"ngram_order": 2})))
    outputs = run(config, STAGES[:3])  # a language model alone changes neither features nor alignment
    assert "up to date" in outputs[1] and "already aligned" in outputs[2]


@pytest.mark.parametrize(
    ("section", "values", "stages", "says"),
    [
        ("lang", {"ngram_order": 2}, ["align", "train", "soft-targets", "decode", "report"],
         r"data was made with another lang\.ngram_order than .*: asr-kd prepare"),
        ("features", {"speeds": [1.0]}, ["align", "train", "soft-targets", "decode", "report"],
         r"frames/train was made with another features\.speeds than .*: asr-kd features"),
        ("alignment", {"leaves": 12}, ["train", "soft-targets", "decode", "report"],
         r"was made with another alignment\.leaves than .*: asr-kd align"),
        ("systems", {"direct": CONFIG["systems"]["direct"] | {"seeds": 1}}, ["decode", "report"],
         r"direct was trained with other settings than the config's direct .*: asr-kd train direct"),
    ],
)  # fmt: skip
def test_a_stage_alone_does_not_take_what_another_config_made(copy, section, values, stages, says):
    """A report would print this config beside the numbers of that one."""
    copy.write_text(yaml.safe_dump(changed(**{section: values})))
    before = stamps(copy.parent.parent)
    for stage in stages:
        result = CliRunner().invoke(main, arguments(copy, [stage]))
        assert result.exit_code == 2 and re.search(says, result.output), result.output
    assert stamps(copy.parent.parent) == before


def test_transcripts_that_changed_are_not_scored_as_they_were(copy):
    text = copy.parent.parent / "corpus" / "test" / "text"
    first, rest = text.read_text().split("\n", 1)
    text.write_text(f"{first.split()[0]} SA SA SA\n{rest}")
    run(copy, STAGES[:1])
    for stage in ("decode", "report"):
        result = CliRunner().invoke(main, arguments(copy, [stage]))
        assert result.exit_code == 2, result.output
        assert re.search(r"frames/test was made from cuts \w+, but .* has \w+ now; .*asr-kd features", result.output)


@pytest.mark.parametrize(
    "stage", [["align"], ["train", "--teachers"], ["soft-targets"], ["train"], ["decode"], ["report"]]
)
def test_a_stage_before_its_inputs_says_what_to_run(tmp_path, stage):
    config = make_recipe(tmp_path)
    result = CliRunner().invoke(main, arguments(config, stage))
    assert result.exit_code == 2
    assert "asr-kd" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "command", [["distill"], ["students"], ["fewshot"], ["train", "--ensemble"], ["train", "--pair", "small"]]
)
def test_an_old_command_says_the_new_way(tmp_path, command):
    config = make_recipe(tmp_path)
    result = CliRunner().invoke(main, arguments(config, command))
    assert result.exit_code == 2
    assert "asr-kd train" in result.output and "Traceback" not in result.output


@pytest.mark.parametrize("option", [["--train-parts", "a,b"], ["--dev-parts"], ["--test-parts=t"]])
def test_an_old_option_of_prepare_says_the_new_way(tmp_path, option):
    config = make_recipe(tmp_path)
    result = CliRunner().invoke(main, arguments(config, ["prepare", "--corpus-dir", str(tmp_path), *option]))
    assert result.exit_code == 2
    assert f"{option[0].partition('=')[0]} is gone: name the parts of each set with --set NAME=PART" in result.output


def test_transcribe_says_that_it_takes_no_decoder(tmp_path):
    result = CliRunner().invoke(main, ["transcribe", "--model", str(tmp_path), "--decoder", "kaldi", "a.wav"])
    assert result.exit_code == 2 and "--decoder is gone: the package's own search is used; leave it" in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1\n", "unknown key 'sed'"),
        ("seed: one\n", "seed must be a whole number"),
        ("systems: {a: {model: {width: 1.5}}}\n", "width must be a whole number"),
        ("systems: {a: {targets: {from: b/, loss: mse}}}\n", "must be one of"),
        ("- 1\n", "expected a mapping"),
        ("a: [\n", "not YAML"),
        ("seed: 1\nsystems: {}\nseed: 2\n", "'seed' in line 3 stands in line 1 already; delete one of them."),
        ("lang:\n  units: words\n  units: bpe\n", "'units' in line 3 stands in line 2 already"),
        ("student: {seeds: 2}\n", "student is an old setting: name what is trained under systems"),
    ],
)
def test_a_bad_config_is_one_sentence(tmp_path, text, message):
    config = tmp_path / "bad.yaml"
    config.write_text(text)
    result = CliRunner().invoke(main, ["features", "--config", str(config), "--work-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert message in result.output
    assert str(config) in result.output


@pytest.mark.parametrize(
    ("change", "redone", "stage", "says"),
    [
        ({"alignment": {"leaves": 12}}, ["align"], ["soft-targets"], "asr-kd train teacher"),
        (
            {"alignment": {"leaves": 12}},
            ["align"],
            ["train", "distilled", "--nj", "1"],
            "teacher was trained on train senones",
        ),
        (
            {"alignment": {"leaves": 12}},
            ["align"],
            ["decode"],
            "direct was trained on train senones .*: asr-kd train direct",
        ),
        ({"features": {"speeds": [1.0]}}, ["features"], ["train"], "no .*labels .*asr-kd align"),
        ({"features": {"speeds": [1.0]}}, ["features"], ["train", "distilled"], "no .*labels .*asr-kd align"),
    ],
)
def test_artefacts_that_do_not_fit_together_are_refused(copy, change, redone, stage, says):
    work = copy.parent.parent
    copy.write_text(yaml.safe_dump(changed(**change)))
    run(copy, [[name, "--nj", "1"] for name in redone])
    before = sorted(str(path) for path in (work / "exp").rglob("*") if "log" not in path.parts)
    result = CliRunner().invoke(main, arguments(copy, stage))
    assert result.exit_code == 2
    message = result.output.strip().splitlines()[-1]
    assert re.search(says, message), result.output
    assert message.startswith(f"asr-kd {stage[0]}: ")
    assert sorted(str(path) for path in (work / "exp").rglob("*") if "log" not in path.parts) == before


def test_soft_targets_follow_their_teacher_and_their_settings(copy):
    """Stage 6 makes the targets that its systems need where stage 5 has not, or made them otherwise."""
    targets = CONFIG["systems"]["distilled"]["targets"]
    copy.write_text(yaml.safe_dump(systems(distilled={"targets": targets | {"temperature": 3.0}})))
    run(copy, [["train", "distilled", "--nj", "1"]])
    assert (copy.parent.parent / "exp" / "targets" / "teacher,T3" / "stamp.json").exists()


@pytest.fixture
def reusing(copy):
    """A finished run whose direct system is to be the teacher's first member."""
    teacher = CONFIG["systems"]["teacher"]
    direct = {"model": teacher["model"], "training": teacher["training"], "seeds": 1, "reuse": "teacher"}
    copy.write_text(yaml.safe_dump(changed(systems=CONFIG["systems"] | {"direct": direct})))
    return copy


def test_a_system_may_reuse_members_of_an_ensemble(reusing):
    exp = reusing.parent.parent / "exp"
    unfinished = exp / ".direct.checkpoint.pt"  # of a training that was killed before the config said reuse
    unfinished.write_bytes(b"?")
    assert "direct: reused from teacher" in run(reusing, [["train", "--nj", "1"]])[0]
    assert not unfinished.exists()
    reused, member = (exp / name / "member_0.safetensors" for name in ("direct", "teacher"))
    assert reused.read_bytes() == member.read_bytes() and not (exp / "direct" / "member_1.safetensors").exists()
    logs = [(exp / name / "log.jsonl").read_text().splitlines() for name in ("direct", "teacher")]
    assert len(logs[0]) == len(logs[1]) == 3
    for row, of_all in zip(*(map(json.loads, log) for log in logs), strict=True):
        assert row["dev_accuracy"] == of_all["dev_accuracy"][:1] and row["epoch"] == of_all["epoch"]
    run(reusing, STAGES[6:])
    assert "teacher" in (exp / "report" / "report.md").read_text()
    assert "direct: already reused from teacher" in run(reusing, [["train", "direct", "--nj", "1"]])[0]


def test_an_ensemble_that_is_trained_otherwise_cannot_be_reused(reusing):
    config = yaml.safe_load(reusing.read_text())
    config["systems"]["direct"]["training"] = TRAINING | {"epochs": 2}
    reusing.write_text(yaml.safe_dump(config))
    result = CliRunner().invoke(main, arguments(reusing, ["train", "direct"]))
    assert result.exit_code == 2 and "systems.direct.reuse: teacher is not trained alike" in result.output


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, 16 KiB at first; yields its folder and a function that sets its size in KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if sys.platform != "linux" or os.geteuid() != 0 or not mount("size=16k"):
        pytest.skip("filling a disk for real needs the right to mount one")
    try:
        yield folder, lambda size: mount("remount", f"size={size}k")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_every_stage_says_that_the_disk_is_full_and_goes_on_when_there_is_room(finished, small_disk, tmp_path):
    folder, resize = small_disk
    config = make_recipe(tmp_path)
    size, stages, refused = 16, list(SIDE_BY_SIDE), set()
    must_refuse = {"prepare", "features", "train"}
    while stages:
        command = [*arguments(config, stages[0]), "--work-dir", str(folder)]
        result = CliRunner().invoke(main, command)
        if result.exit_code == 0:
            stages.pop(0)
            if stages and stages[0][0] in must_refuse:  # what the stage before had left over is taken away again
                disk = os.statvfs(folder)
                size = (disk.f_blocks - disk.f_bfree) * disk.f_frsize // 1024 + 16
                assert resize(size)
            continue
        assert result.exit_code == 2 and re.search(
            "the disk is full; free some space|needs .* of disk", result.output
        ), f"{command}, {size} KiB: {result.output} {result.exception!r}"
        refused.add(stages[0][0])
        size *= 2
        assert size < 1 << 14 and resize(size)
    assert must_refuse <= refused
    report = Path("exp") / "report" / "results.json"
    assert comparable(folder / report) == comparable(finished.parent.parent / report)


def artefact_events(root: Path) -> int:
    """How many artefacts, checkpoints and commit points lie in a work folder, finished or not."""
    names = {"stamp.json", "growing.json"} | {f"round{number}.npz" for number in range(20)}
    suffixes = (".checkpoint.pt", ".stamp.json")
    # os.walk passes over folders that the run removes meanwhile
    return sum(name in names or name.endswith(suffixes) for _, _, files in os.walk(root) for name in files)


def test_killed_runs_end_with_the_results_of_a_whole_one(finished, tmp_path):
    """`kill -9` as soon as the run has left one more artefact or checkpoint, again and again, then on to the end."""
    config = make_recipe(tmp_path)
    context = multiprocessing.get_context("forkserver")  # its processes need not load torch each
    context.set_forkserver_preload([f"asr_kd.stages.{name}" for name in ("prepare", "features", "align", "train")])
    kills = 0
    for number in range(10):
        before = artefact_events(tmp_path)
        process = context.Process(target=run, args=(config, SIDE_BY_SIDE))
        process.start()
        # every second time a moment later, so that some kills fall into the middle of a write or of an epoch
        while process.is_alive() and artefact_events(tmp_path) <= before:
            time.sleep(0.01)
        time.sleep(0.3 * (number % 2))
        if process.is_alive():
            process.kill()
            kills += artefact_events(tmp_path) > before
        process.join()
    assert kills >= 5  # each of these hit a stage that had begun to write
    run(config, SIDE_BY_SIDE)
    report = Path("exp") / "report" / "results.json"
    assert comparable(tmp_path / report) == comparable(finished.parent.parent / report)
