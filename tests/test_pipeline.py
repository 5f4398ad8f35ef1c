"""The whole recipe on speech made of tones: every command, its second run, and `kill -9` in the middle."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from click.testing import CliRunner

from asr_kd.acoustic.model import load_model
from asr_kd.cli import main

RATE = 8000
LEXICON = {"BA": "B AA", "BI": "B IY", "SA": "S AA", "SI": "S IY", "BASI": "B AA S IY"}
TONES = {"B": (300, 900), "AA": (700, 1200), "IY": (350, 2400), "S": (2900, 3600)}  # Hz, two for each phone

CONFIG = {
    "corpus": {"name": "folder", "sampling_rate": RATE},
    "features": {"speeds": [1.0, 0.9]},
    "alignment": {"rounds": 4, "leaves": 18, "min_count": 30, "hidden": [32]},
    "teacher": {
        "members": 2,
        "model": {"layers": 1, "width": 24, "hidden_dropout": 0.1, "lda_dims": 30},
        "training": {"epochs": 3, "batch_size": 64, "learning_rate": 5.0e-3},
    },
    "student": {
        "seeds": 2,
        "model": {"layers": 1, "width": 16},
        "direct": {"epochs": 3, "batch_size": 64, "learning_rate": 5.0e-3},
        "distilled": {
            "soft_weight": 0.5,
            "lda_dims": 40,
            "training": {"epochs": 3, "batch_size": 64, "learning_rate": 5.0e-3},
        },
    },
    "decoding": {"acoustic_scales": [0.2, 0.5], "word_penalties": [0.0]},
    "evaluation": {"bootstrap_samples": 200},
}
STAGES = [
    ["prepare"],
    ["features", "--nj", "1"],
    ["align", "--nj", "1"],
    ["train", "--ensemble"],
    ["soft-targets"],
    ["train"],
    ["distill"],
    ["decode", "--nj", "1"],
    ["report"],
]
# direct and distilled nets at once, each in a process of its own
SIDE_BY_SIDE = [*STAGES[:5], ["students", "--nj", "2"], *STAGES[7:]]


def say(words: list[str], rng: np.random.Generator) -> np.ndarray:
    """Tones for phones, noise everywhere, silence around."""
    parts = [np.zeros(int(0.2 * RATE))]
    for word in words:
        for phone in LEXICON[word].split():
            time = np.arange(int(rng.uniform(0.08, 0.16) * RATE)) / RATE
            parts.append(sum(np.sin(2 * np.pi * tone * time) for tone in TONES[phone]))
    parts.append(np.zeros(int(0.2 * RATE)))
    samples = np.concatenate(parts)
    return 0.1 * samples + rng.normal(0, 0.005, len(samples))


def make_recipe(root: Path) -> Path:
    """A work folder with conf/ and corpus/; returns the config's path."""
    rng = np.random.default_rng(3)
    for name, count in (("train", 40), ("dev", 8), ("test", 10)):
        folder = root / "corpus" / name
        folder.mkdir(parents=True)
        lines = []
        for number in range(count):
            words = rng.choice(list(LEXICON), rng.integers(2, 6)).tolist()
            soundfile.write(folder / f"{name}{number:02d}.wav", say(words, rng), RATE)
            lines.append(f"{name}{number:02d} {' '.join(words)}\n")
        (folder / "text").write_text("".join(lines))
    (root / "conf").mkdir()
    (root / "conf" / "lexicon.txt").write_text("".join(f"{word} {phones}\n" for word, phones in LEXICON.items()))
    config = root / "conf" / "tiny.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    return config


def arguments(config: Path, stage: list[str]) -> list[str]:
    extra = ["--corpus-dir", str(config.parent.parent / "corpus")] if stage[0] == "prepare" else []
    return [*stage, "--config", str(config), *extra]


def run(config: Path, stages: list[list[str]]) -> list[str]:
    outputs = []
    for stage in stages:
        result = CliRunner().invoke(main, arguments(config, stage), catch_exceptions=False)
        assert result.exit_code == 0, f"{stage}: {result.output}"
        outputs.append(result.output)
    return outputs


def comparable(path: Path) -> dict:
    """results.json without what depends on the clock."""
    results = json.loads(path.read_text())
    results.pop("seconds")
    results.pop("memory")
    for system in results["systems"]:
        system.pop("rtf")
        system.get("each", None)
    return json.loads(json.dumps(results), object_hook=lambda d: {k: v for k, v in d.items() if k not in CLOCK})


CLOCK = ("rtf", "seconds_per_hour", "frames_per_second", "seconds")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    config = make_recipe(tmp_path_factory.mktemp("recipe"))
    run(config, STAGES)
    return config


def test_the_report_has_every_system_and_the_words_were_found(finished):
    results = json.loads((finished.parent.parent / "exp" / "report" / "results.json").read_text())
    systems = {system["name"]: system for system in results["systems"]}
    assert {"direct", "ensemble", "distilled"} <= systems.keys()
    for name, system in systems.items():
        errors = system["errors"]["test"]
        wrong = errors["ins"] + errors["del"] + errors["sub"]
        assert system["wer"]["test"] == pytest.approx(wrong / errors["words"]), name
    assert systems["ensemble"]["wer"]["test"] < 0.5  # tones are easy; a broken graph or alignment is not
    assert results["alignment"]["failed"] == []


def test_nets_that_learn_from_discriminants_are_nets_like_any_other(finished):
    for folder, width, dims in (("teacher", 24, 30), ("baseline", 16, 0), ("student", 16, 40)):
        model = load_model(finished.parent.parent / "exp" / folder)
        assert model.settings.lda_dims == dims
        assert model.layers[0].weight.shape == (2, 26 * 40, width)


def test_a_second_run_does_nothing(finished):
    page = finished.parent.parent / "exp" / "report" / "index.html"
    before = page.stat().st_mtime_ns
    run(finished, STAGES)
    assert page.stat().st_mtime_ns == before


def test_students_trained_side_by_side_are_those_of_one_after_the_other(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("asr_kd.stages.train_side_by_side.default_jobs", lambda: 2)  # on a machine with one core too
    root = tmp_path / "work"
    shutil.copytree(finished.parent.parent, root)
    config = root / "conf" / finished.name
    made = {
        path.relative_to(root): path.read_bytes()
        for folder in ("baseline", "student", "monophone")
        for path in (root / "exp" / folder).glob("member_*.safetensors")
    }
    for folder in ("baseline", "student", "monophone"):
        shutil.rmtree(root / "exp" / folder)
    (output,) = run(config, [["students", "--nj", "2"]])
    assert re.findall(r"(\w+): trained", output) == ["baseline", "student", "monophone"]
    assert len(made) == 5
    for path, weights in made.items():
        assert (root / path).read_bytes() == weights, path
    log = (root / "exp" / "log" / "students.log").read_text()
    for folder in ("baseline", "student"):  # what helpers say is not lost
        assert f"training {folder}: it is not there yet" in log

    shutil.rmtree(root / "exp" / "student")
    (output,) = run(config, [["students", "--nj", "2"]])
    assert re.findall(r"(\w+): (already trained|trained);", output) == [
        ("baseline", "already trained"), ("student", "trained"), ("monophone", "already trained"),
    ]  # fmt: skip


def test_where_one_of_two_trainings_fails_the_other_is_kept(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("asr_kd.stages.train_side_by_side.default_jobs", lambda: 2)
    root = tmp_path / "work"
    shutil.copytree(finished.parent.parent, root)
    for folder in ("baseline", "student", "monophone"):
        shutil.rmtree(root / "exp" / folder)
    entries = root / "exp" / "soft_targets" / "ids.npy"
    entries.write_bytes(entries.read_bytes()[:-1])
    config = root / "conf" / finished.name
    result = CliRunner().invoke(main, arguments(config, ["students", "--nj", "2"]))
    assert result.exit_code == 2 and "asr-kd students: " in result.output.strip().splitlines()[-1]
    log = (root / "exp" / "log" / "students.log").read_text()
    assert re.search(r"the distilled nets cannot be trained on \(.*soft_targets.*\); those beside them go on", log)
    assert (root / "exp" / "baseline" / "stamp.json").exists() and not (root / "exp" / "student").exists()


def test_kaldi_decoder_finds_the_same_words(finished):
    folder = finished.parent.parent / "exp" / "decode_ensemble_test" / "hyps.jsonl"
    k2_rows = [json.loads(line)["hyp"] for line in folder.read_text().splitlines()]
    run(finished, [["decode", "--system", "ensemble", "--decoder", "kaldi", "--nj", "1"]])
    kaldi_rows = [json.loads(line)["hyp"] for line in folder.read_text().splitlines()]
    run(finished, [["decode", "--system", "ensemble", "--nj", "1"]])
    assert sum(a == b for a, b in zip(k2_rows, kaldi_rows, strict=True)) >= len(k2_rows) - 1


def test_own_recordings_become_words(finished):
    recordings = sorted((finished.parent.parent / "corpus" / "train").glob("*.wav"))[:2]
    command = ["transcribe", "--config", str(finished), *map(str, recordings)]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0
    lines = [line.split("\t") for line in result.output.splitlines() if "\t" in line]
    assert [path for path, _ in lines] == list(map(str, recordings))
    assert all(word in LEXICON for _, words in lines for word in words.split())
    assert all(words for _, words in lines)
    result = CliRunner().invoke(main, [*command, "gone.wav"])
    assert result.exit_code == 2 and "gone.wav is missing" in result.output


def test_other_settings_make_only_what_depends_on_them_anew(finished):
    config = finished.with_name("other.yaml")
    changed = json.loads(json.dumps(CONFIG))
    changed["student"]["distilled"]["soft_weight"] = 0.9
    config.write_text(yaml.safe_dump(changed))
    outputs = run(config, [["align", "--nj", "1"], ["train", "--ensemble"], ["soft-targets"], ["distill"]])
    assert ["already" in output for output in outputs] == [True, True, True, False]
    run(finished, [["distill"]])


@pytest.mark.parametrize("units", ["characters", "bpe"])
def test_words_without_a_lexicon_are_recognised_too(tmp_path, units):
    pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    config = make_recipe(tmp_path)
    changed = CONFIG | {"lang": {"units": units, "bpe_size": 8}, "monophone": False}
    config.write_text(yaml.safe_dump(changed))
    (config.parent / "lexicon.txt").unlink()
    run(config, [*STAGES[:4], ["decode", "--system", "ensemble", "--set", "test", "--nj", "1"]])
    summary = json.loads((tmp_path / "exp" / "decode_ensemble_test" / "summary.json").read_text())
    assert summary["wer"] < 0.5


def test_a_corpus_that_changed_is_noticed_without_the_stages_that_read_it(tmp_path):
    config = make_recipe(tmp_path)
    run(config, STAGES[:3])  # up to the alignment
    stamp = (tmp_path / "data" / "stamp.json").stat().st_mtime_ns
    recording = sorted((tmp_path / "corpus" / "train").glob("*.wav"))[0]
    transcripts = json.loads((tmp_path / "data" / "transcripts.json").read_text())
    assert transcripts
    for path in (recording, tmp_path / transcripts[0]):
        before = path.stat().st_mtime_ns
        os.utime(path, ns=(stamp + 10**9, stamp + 10**9))
        result = CliRunner().invoke(main, arguments(config, ["align", "--nj", "1"]))
        assert result.exit_code == 2 and f"{path.name} changed after" in result.output and "prepare" in result.output
        os.utime(path, ns=(before, before))
    changed = CONFIG | {"lang": {"ngram_order": 2}}
    config.write_text(yaml.safe_dump(changed))
    run(config, STAGES[:1])
    result = CliRunner().invoke(main, arguments(config, ["align", "--nj", "1"]))
    assert result.exit_code == 2 and "make the features again: asr-kd features" in result.output


@pytest.mark.parametrize("stage", [["align"], ["train", "--ensemble"], ["soft-targets"], ["distill"], ["report"]])
def test_a_stage_before_its_inputs_says_what_to_run(tmp_path, stage):
    config = tmp_path / "conf" / "tiny.yaml"
    config.parent.mkdir()
    config.write_text("seed: 1\n")
    result = CliRunner().invoke(main, arguments(config, stage))
    assert result.exit_code == 2
    assert "asr-kd" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1\n", "unknown key 'sed'"),
        ("seed: one\n", "seed must be a whole number"),
        ("student: {model: {width: 1.5}}\n", "width must be a whole number"),
        ("student: {distilled: {loss: mse}}\n", "must be one of"),
        ("- 1\n", "expected a mapping"),
        ("a: [\n", "not YAML"),
        ("seed: 1\nteacher: {members: 2}\nseed: 2\n", "'seed' in line 3 stands in line 1 already; delete one of them."),
        ("lang:\n  units: words\n  units: bpe\n", "'units' in line 3 stands in line 2 already"),
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
        ({"alignment": {"leaves": 12}}, [["align", "--nj", "1"]], ["soft-targets"], "train it again: .* --ensemble"),
        ({"alignment": {"leaves": 12}}, [["align", "--nj", "1"]], ["distill"], "teacher was trained on train states"),
        ({"alignment": {"leaves": 12}}, [["align", "--nj", "1"]], ["decode"], "trained on state labels .* of tree"),
        ({"features": {"speeds": [1.0]}}, [["features", "--nj", "1"]], ["train"], "no state labels .*asr-kd align"),
        ({"features": {"speeds": [1.0]}}, [["features", "--nj", "1"]], ["distill"], "no state labels .*asr-kd align"),
        ({"teacher": {"members": 3}}, [["train", "--ensemble"]], ["distill"], "was made from teacher .*soft-targets"),
        ({"soft_targets": {"temperature": 3.0}}, [], ["distill"], "other settings than the config's soft_targets"),
    ],
)
def test_artefacts_that_do_not_fit_together_are_refused(finished, tmp_path, change, redone, stage, says):
    work = tmp_path / "work"
    shutil.copytree(finished.parent.parent, work)
    config = work / "conf" / "tiny.yaml"
    changed = json.loads(json.dumps(CONFIG))
    for section, values in change.items():
        changed.setdefault(section, {}).update(values)
    config.write_text(yaml.safe_dump(changed))
    run(config, redone)
    before = sorted(str(path) for path in (work / "exp").rglob("*") if "log" not in path.parts)
    result = CliRunner().invoke(main, arguments(config, stage))
    assert result.exit_code == 2
    message = result.output.strip().splitlines()[-1]
    assert re.search(says, message), result.output
    assert message.startswith(f"asr-kd {stage[0]}: ")
    assert sorted(str(path) for path in (work / "exp").rglob("*") if "log" not in path.parts) == before


@pytest.fixture
def of_ensemble(finished, tmp_path):
    """A finished run whose student is to be trained as the ensemble is, and be taken from it; and its config."""
    work = tmp_path / "work"
    shutil.copytree(finished.parent.parent, work)
    settings = json.loads(json.dumps(CONFIG))
    teacher = settings["teacher"]
    settings["student"] |= {
        "seeds": 1, "model": teacher["model"], "direct": teacher["training"], "direct_of_ensemble": True
    }  # fmt: skip
    config = work / "conf" / "tiny.yaml"
    config.write_text(yaml.safe_dump(settings))
    return config, settings


def test_direct_nets_may_be_members_of_the_ensemble(of_ensemble):
    config, settings = of_ensemble
    exp = config.parent.parent / "exp"
    left = exp / ".baseline.checkpoint.pt"  # by a training that was killed before its nets were to be taken
    left.write_bytes(b"?")
    assert "baseline: taken from the ensemble" in run(config, [["students", "--nj", "2"]])[0]
    assert not left.exists()
    taken, member = (exp / folder / "member_0.safetensors" for folder in ("baseline", "teacher"))
    assert taken.read_bytes() == member.read_bytes() and not (exp / "baseline" / "member_1.safetensors").exists()
    logs = [(exp / folder / "log.jsonl").read_text().splitlines() for folder in ("baseline", "teacher")]
    assert len(logs[0]) == len(logs[1]) == 3
    for one, all_of_them in zip(*(map(json.loads, log) for log in logs), strict=True):
        assert one["dev_accuracy"] == all_of_them["dev_accuracy"][:1] and one["epoch"] == all_of_them["epoch"]
    run(config, STAGES[7:])
    assert "those of direct are the ensemble's first ones" in (exp / "report" / "report.md").read_text()
    assert "baseline: already taken from the ensemble" in run(config, [["train", "--pair", "student"]])[0]
    # no longer as the ensemble is trained
    settings["student"]["direct"] = settings["student"]["direct"] | {"epochs": 2}
    config.write_text(yaml.safe_dump(settings))
    run(config, [["train", "--pair", "student"]])
    assert len((exp / "baseline" / "log.jsonl").read_text().splitlines()) == 2
    assert taken.read_bytes() != member.read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"training": {"epochs": 4, "batch_size": 64, "learning_rate": 5.0e-3}},
            "other settings than .* train it again",
        ),
        ({"members": 5}, "teacher has 2 members, of which baseline is to have 4; train more: asr-kd train --ensemble"),
    ],
)
def test_an_ensemble_that_is_not_the_configs_is_not_taken_from(of_ensemble, change, says):
    config, settings = of_ensemble
    settings["teacher"] |= change
    settings["student"] |= {"direct": settings["teacher"]["training"], "seeds": min(4, settings["teacher"]["members"])}
    config.write_text(yaml.safe_dump(settings))
    result = CliRunner().invoke(main, arguments(config, ["train", "--pair", "student"]))
    assert result.exit_code == 2 and re.search(says, result.output), result.output


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
    must_refuse = {"prepare", "features", "train", "students"}
    while stages:
        command = [*arguments(config, stages[0]), "--work-dir", str(folder)]
        result = CliRunner().invoke(main, command)
        if result.exit_code == 0:
            stages.pop(0)
            if stages and stages[0][0] in must_refuse:  # what the stage before had left over is taken away again
                room = os.statvfs(folder)
                size = (room.f_blocks - room.f_bfree) * room.f_frsize // 1024 + 16
                assert resize(size)
            continue
        assert result.exit_code == 2 and re.search("the disk is full; make room|needs .* of disk", result.output), (
            f"{command}, {size} KiB: {result.output} {result.exception!r}"
        )
        refused.add(stages[0][0])
        size += max(16, size // 8)
        assert size < 1 << 14 and resize(size)
    assert must_refuse <= refused
    report = Path("exp") / "report" / "results.json"
    assert comparable(folder / report) == comparable(finished.parent.parent / report)


def test_killed_runs_end_with_the_results_of_a_whole_one(finished, tmp_path):
    """`kill -9` at ten random moments of the pipeline, then on to the end."""
    config = make_recipe(tmp_path)
    script = (
        "import sys; from asr_kd.cli import main; [main(a.split('\\t'), standalone_mode=False) for a in sys.argv[1:]]"
    )
    command = [sys.executable, "-c", script, *("\t".join(arguments(config, stage)) for stage in SIDE_BY_SIDE)]
    rng = np.random.default_rng(4)
    for _ in range(10):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        try:
            process.wait(float(rng.uniform(2.0, 8.0)))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    run(config, SIDE_BY_SIDE)
    report = Path("exp") / "report" / "results.json"
    assert comparable(tmp_path / report) == comparable(finished.parent.parent / report)
