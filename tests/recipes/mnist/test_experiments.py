"""All experiments on made-up digits: what they measure, that they are run once, and that the report shows them."""

import importlib.util
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from asr_kd.acoustic.settings import TrainingConfig
from asr_kd.errors import UserError
from asr_kd.report.results_file import read_mnist
from asr_kd.stages.report import mnist_of

from .conftest import RECIPE  # first: it puts the recipe on the path

from digits.config import (  # isort: skip
    EXPERIMENTS,
    EnsemblesConfig,
    FewConfig,
    LogitsConfig,
    MnistConfig,
    NetConfig,
    SoftConfig,
    SweepConfig,
    TeacherConfig,
    load_mnist_config,
)
from digits.lab import Lab, Recipe  # isort: skip
from digits.report import table, write_report  # isort: skip
from digits.results import known_results, run, section, spread  # isort: skip

TRAINING = TrainingConfig(epochs=8, batch_size=30, learning_rate=5e-3)
SOFT = SoftConfig(temperature=4.0, training=TRAINING)
SMALL = NetConfig(layers=1, width=24)
CONFIG = MnistConfig(
    seeds=2,
    experiments=EXPERIMENTS,
    teacher=TeacherConfig(2, NetConfig(layers=1, width=48, hidden_dropout=0.1), TRAINING, shift=1),
    small=SMALL,
    hard=TRAINING,
    distilled=SOFT,
    shifted=SOFT,
    biased=SOFT,
    temperatures=SweepConfig((2.0, 8.0), (24, 8), TRAINING),
    logits=LogitsConfig((4.0, 400.0), TRAINING),
    ensembles=EnsemblesConfig((1, 2)),
    few=FewConfig(60, TRAINING),
)
QUIET = {"device": "cpu", "quiet": True}


@pytest.fixture(scope="module")
def main():
    """The commands of `python recipes/mnist/run.py`."""
    spec = importlib.util.spec_from_file_location("mnist_run", RECIPE / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def done(made_up_mnist, tmp_path, monkeypatch):
    monkeypatch.setattr("digits.experiments.UNLABELLED", 300)
    return run(CONFIG, tmp_path / "exp", made_up_mnist, **QUIET), tmp_path / "exp", made_up_mnist


@pytest.mark.slow
def test_everything_is_measured_once_and_shown(done):
    first, root, mnist = done
    results = first.results
    assert list(results) == list(EXPERIMENTS)
    assert len(results["teacher"]["errors"]) == 2 and len(results["hard"]["errors"]) == 2
    for errors in (results["teacher"]["errors"], results["hard"]["errors"], results["distilled"]["errors"]):
        assert max(errors) < 60  # of 200: the patterns are learnt
    assert results["teacher"]["shifts"] == 9
    for name, digits in (("no3s", [3]), ("only7s8s", [7, 8])):
        biased = results[name]
        assert biased["digits"] == digits
        assert np.mean(biased["tuned_on_test"]["errors"]) <= np.mean(biased["before"]["errors"])
        assert all(a <= b for a, b in zip(biased["before"]["of_digits"], biased["before"]["errors"], strict=True))
    assert np.mean(results["no3s"]["one_offset"]["of_digits"]) < np.mean(results["no3s"]["before"]["of_digits"])
    assert [(row["width"], row["temperature"]) for row in results["temperatures"]["rows"]] == [
        (24, 2.0), (24, 8.0), (8, 2.0), (8, 8.0)
    ]  # fmt: skip
    near, far = results["logits"]["rows"][1]["apart"], results["logits"]["rows"][2]["apart"]
    assert far < near  # the higher the temperature, the nearer to matching logits
    assert {(row["targets"], row["stopped"]) for row in results["few"]["rows"]} == {
        ("hard", False), ("hard", True), ("soft", False), ("soft", True)
    }  # fmt: skip
    for example in results["knowledge"]["examples"]:
        assert np.argmax(example["targets"]["1"]) == example["label"]
        assert sum(example["targets"]["20"]) == pytest.approx(1)

    nets = sorted((root / "nets").rglob("*.safetensors"))
    before = [path.stat().st_mtime_ns for path in nets]
    again = run(CONFIG, root, mnist, **QUIET)
    assert not again.ran and again.results == results
    assert [path.stat().st_mtime_ns for path in nets] == before
    assert known_results(root) == known_results(root, CONFIG) == results
    assert known_results(root, replace(CONFIG, seed=2)) == {}  # a report never mixes settings

    page = write_report(CONFIG, root, results, ["run.py"])
    html = (page / "index.html").read_text()
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", html)
    assert "<th>" not in html and "<td></td></tr>" not in html  # a screen reader says what each header is for
    assert len(re.findall('class="card" (?:role="region" )?tabindex="0"', html)) == html.count('class="card"')
    assert {path.stem for path in page.glob("*.svg")} == {"temperatures", "biases", "few", "knowledge"}
    for what, here, _ in table(results):
        assert what in (page / "report.md").read_text()
        assert here in html
    stamped = (page / "index.html").stat().st_mtime_ns
    write_report(CONFIG, root, results, ["run.py"])
    assert (page / "index.html").stat().st_mtime_ns == stamped

    short = json.loads((root / "section.json").read_text())
    assert short == section(root)
    assert read_mnist(root).no3.threes_right == short["no3"]["threes_right"]  # as `asr-kd report --mnist` reads it
    assert short["hard"] == np.mean(results["hard"]["errors"])
    right = 1 - np.mean(results["no3s"]["one_offset"]["of_digits"]) / results["no3s"]["scored_of_digits"]
    assert short["no3"]["threes_right"] == pytest.approx(right)


def test_the_table_says_how_many_teachers_a_student_had() -> None:
    rows = [{"teachers": 1, "errors": [84, 86]}, {"teachers": 5, "errors": [80]}]
    results = {"distilled": {"errors": [80], "teachers": 5}, "ensembles": {"rows": rows}}
    assert table(results) == [
        ("small, distilled from 5 teachers, unshifted transfer set", "80", "74 (from one)"),
        ("small, distilled from one teacher, unshifted transfer set", "85.0 ± 1.4", "74"),
    ]


@pytest.mark.slow
def test_a_changed_setting_runs_only_what_depends_on_it(made_up_mnist, tmp_path):
    def results(config, *names):
        return run(config, tmp_path, made_up_mnist, names, **QUIET).ran

    short = replace(TRAINING, epochs=1)
    config = replace(CONFIG, hard=short, distilled=replace(SOFT, training=short))
    assert results(config, "hard", "distilled")
    teacher = (tmp_path / "nets" / "teacher" / "stamp.json").stat().st_mtime_ns
    changed = replace(config, hard=replace(short, epochs=2))
    assert not results(changed, "distilled")  # what its labels are learnt by does not matter to it
    assert results(changed, "hard")
    assert (tmp_path / "nets" / "teacher" / "stamp.json").stat().st_mtime_ns == teacher
    assert not results(changed, "hard", "distilled")


def test_nets_that_diverge_are_named_with_their_folder(made_up_mnist, tmp_path):
    steep = replace(TRAINING, optimizer="sgd", learning_rate=1e9)
    says = (
        r"nets/hard: training diverged: .* not finite at step \d+ .*; lower its learning_rate \(1e\+09\) in the config"
    )
    with pytest.raises(UserError, match=says):
        run(replace(CONFIG, hard=steep), tmp_path, made_up_mnist, ["hard"], **QUIET)
    assert not (tmp_path / "nets" / "hard").exists()


def test_held_out_images_take_the_test_sets_place(made_up_mnist, tmp_path):
    config = replace(CONFIG, held_out=100, experiments=("hard",))
    lab = Lab(config, tmp_path, made_up_mnist, "cpu", quiet=True)
    assert (len(lab.train), len(lab.scored)) == (500, 100)
    train = {image.tobytes() for image in lab.train.images}
    assert not any(image.tobytes() in train for image in lab.scored.images)


def test_a_section_without_experiments_says_so(tmp_path):
    assert "'teacher' was not run" in section(tmp_path)["missing"]
    assert "section.json" in mnist_of(tmp_path).missing and mnist_of(None) is None
    assert known_results(tmp_path) == {}
    assert spread([3]) == "3" and spread([1, 3]) == "2.0 ± 1.4"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("experiments: [hard, soft]\n", "there is no 'soft'; known: teacher, hard"),
        ("experiments: [ensembles]\n", "ensembles needs 5 teachers, but teacher.members is 1"),
        ("teacher: {shift: 20}\n", "teacher.shift must be at most 8"),
        ("teachers: 1\n", "unknown key 'teachers'"),
    ],
)
def test_a_bad_config_is_one_sentence(tmp_path, main, text, says):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(says)):
        load_mnist_config(path)
    result = CliRunner().invoke(main, ["run", "--config", str(path), "--work-dir", str(tmp_path)])
    assert result.exit_code == 2 and says in result.output and "Traceback" not in result.output


def test_the_command_without_digits_says_where_to_get_them(tmp_path, main):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"experiments": ["hard"]}))
    result = CliRunner().invoke(main, ["run", "--config", str(path), "--work-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "train-images-idx3-ubyte cannot be read" in result.output and "recipes/mnist/run.sh" in result.output


@pytest.mark.slow
def test_real_digits_distilled_beat_hard_labels(real_mnist, tmp_path):
    """Two epochs on 2,000 images; the teacher has seen 12,000."""
    teacher = TeacherConfig(1, NetConfig(layers=2, width=200), TrainingConfig(epochs=8, learning_rate=4e-3), shift=0)
    student = TrainingConfig(epochs=2, batch_size=16, learning_rate=3e-3)
    config = MnistConfig(held_out=48000, teacher=teacher, small=NetConfig(layers=2, width=100))
    lab = Lab(config, tmp_path, real_mnist, "cpu", quiet=True)
    chosen = np.zeros(len(lab.train), bool)
    chosen[:2000] = True
    hard = lab.errors(lab.student("hard", student, Recipe(chosen=chosen)))
    soft = lab.errors(lab.student("soft", student, Recipe(SoftConfig(4.0, training=student), chosen=chosen)))
    assert max(soft) < min(hard), f"hard {hard}, soft {soft}"


def test_the_table_of_the_results_is_that_of_the_run() -> None:
    """results/quick.json is what the command beside the table wrote."""
    written = json.loads((RECIPE / "results" / "quick.json").read_text())
    document = (RECIPE / "RESULTS.md").read_text(encoding="utf-8")
    section = document[: document.index("## conf/paper.yaml")]
    rows = re.findall(r"^\| (?!\|)(.*?) \| (.*?) \| (.*?) \|$", section, re.MULTILINE)
    shown = [(what.replace(" from one teacher", ""), here, paper) for what, here, paper in table(written)]
    assert rows == shown


def test_the_page_begins_with_what_distilling_was_worth(tmp_path) -> None:
    results = json.loads((RECIPE / "results" / "quick.json").read_text())
    few = {"images": 10, "watched": 10, "rows": []}
    for targets, errors in (("hard", [7, 8]), ("soft", [4])):
        curves = {"train_accuracy": [0.5], "watched_accuracy": [0.5]}
        few["rows"].append({"targets": targets, "stopped": True, "errors": errors} | curves)
    grid = [{"width": 30, "temperature": t, "errors": [e, e]} for t, e in ((1.0, 327), (2.5, 352))]
    extra = {"few": few | {"seconds": 1.0}, "temperatures": {"rows": grid, "seconds": 1.0}}
    folder = write_report(MnistConfig(), tmp_path, results | extra, [])
    said = (
        "Of 10,000 test images the teacher gets 101 wrong, the small net 149.5 where it learns from labels and 125 "
        "where it learns from the teacher (the paper: 67, 146, 74): distilling takes it 51 % of the way to the teacher."
    )
    html = (folder / "index.html").read_text()
    assert re.search(r'<p class="lead">(.*?)</p>', html)[1] == said
    assert (folder / "report.md").read_text().splitlines()[2] == said
    for caption in (
        "Fewest errors: 30 units at T = 1 (327).",
        "Without 3s, one offset takes 178 errors to 155.",
        "With hard targets 7.5 errors, with soft targets 4 errors.",
    ):
        assert f"<figcaption>{caption} " in html
    alone = write_report(MnistConfig(), tmp_path / "alone", {"hard": results["hard"]}, [])
    assert "Errors in 10,000 test images: small, on labels 149.5 ± 9.2." in (alone / "index.html").read_text()
