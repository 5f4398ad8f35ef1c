"""asr-kd doctor: what is missing or broken is named, and comes with the command that fixes it."""

import importlib
import itertools
import sys

import pytest

from asr_kd.stages import doctor


@pytest.fixture
def hide(monkeypatch):
    """Makes modules look as if they were not installed, or as if their binaries did not load."""
    real = importlib.import_module

    def call(*names, error=None):
        def import_module(name, package=None):
            if name in names:
                raise error or ModuleNotFoundError(f"No module named {name!r}", name=name)
            return real(name, package)

        monkeypatch.setattr(doctor.importlib, "import_module", import_module)

    return call


def check_of(diagnosis, name):
    return next(check for check in diagnosis.checks if check.name == name)


def test_the_reference_environment_can_do_the_main_job():
    pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    diagnosis = doctor.examine()
    assert diagnosis.ok, str(diagnosis)
    assert "The main job can be done here." in str(diagnosis)
    toy = check_of(diagnosis, "toy graph, k2")
    assert (toy.state, toy.detail) == ("ok", "the best of all paths, score -3.5000")


@pytest.mark.parametrize("backend", ["k2", "native", "kaldi"])
def test_a_decoder_finds_the_best_of_all_paths(backend):
    if backend == "k2":
        pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    paths = []
    *arcs, last = enumerate(doctor.TOY_ARCS)
    for path in itertools.product(arcs, repeat=len(doctor.TOY_SCORES)):
        states = [0, *(arc[1] for _, arc in path)]
        if states[-1] == last[1][0] and all(arc[0] == state for (_, arc), state in zip(path, states)):
            score = sum(arc[3] + frame[arc[2]] for (_, arc), frame in zip(path, doctor.TOY_SCORES, strict=True))
            paths.append((score, tuple(doctor.TOY_WORDS[number] for number, _ in path)))
    assert len(paths) > 3 and max(paths) == doctor.TOY_BEST[::-1]
    assert doctor._decode_toy(backend) == (doctor.TOY_BEST[0], pytest.approx(doctor.TOY_BEST[1], abs=1e-4))


def test_every_check_that_is_not_ok_has_a_fix(hide):
    hide("k2", "lhotse", "tensorboard", "numba")
    diagnosis = doctor.examine()
    assert all(bool(check.fix) == (check.state != "ok") for check in diagnosis.checks)
    assert all(check.fix in str(diagnosis) for check in diagnosis.checks)


@pytest.mark.parametrize("name", ["torch", "lhotse", "soundfile", "kaldifst"])
def test_a_missing_needed_part_is_named_and_fails(hide, name):
    hide(name)
    diagnosis = doctor.examine()
    assert not diagnosis.ok
    assert check_of(diagnosis, name).state == "missing"
    assert str(diagnosis).splitlines()[-1].startswith("The main job cannot be done here yet: ")


def test_without_k2_the_main_job_is_done_by_the_other_decoder(hide):
    hide("k2")
    diagnosis = doctor.examine()
    assert diagnosis.ok
    assert check_of(diagnosis, "k2").detail.startswith("not installed; asr-kd decode takes its own search")
    assert [check.name for check in diagnosis.checks if check.name.startswith("toy")] == [
        "toy graph, native", "toy graph, kaldi",
    ]  # fmt: skip


def test_the_list_is_that_of_the_packages_metadata(monkeypatch):
    lines = [
        "torch>=1.13.1",
        "kaldi-decoder (>=0.2.7)",
        "KaldiFST>=1",
        'dask>=2; extra == "dask"',
        'ruff; extra == "dev"',
    ]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: lines)
    requirements = [(r.distribution, r.versions, r.extra) for r in doctor._requirements()]
    assert requirements == [
        ("torch", ">=1.13.1", ""), ("kaldi-decoder", ">=0.2.7", ""), ("kaldifst", ">=1", ""), ("dask", ">=2", "dask")
    ]  # fmt: skip


def test_a_missing_optional_part_does_not_fail(hide):
    hide("dask", "tensorboard")
    diagnosis = doctor.examine()
    assert diagnosis.ok
    assert check_of(diagnosis, "tensorboard").state == "missing"
    assert "'tensorboard>=2.12'" in check_of(diagnosis, "tensorboard").fix


@pytest.mark.parametrize(
    "error", [ImportError("_k2.so: undefined symbol"), OSError("libk2.so: cannot open"), RuntimeError("other torch")]
)
def test_a_k2_that_cannot_load_is_broken_not_missing(hide, error):
    hide("k2", error=error)
    diagnosis = doctor.examine()
    check = check_of(diagnosis, "k2")
    assert check.state == "broken"
    assert str(error) in check.detail
    assert "make setup" in check.fix
    assert check_of(diagnosis, "toy graph, k2").state == "broken"
    assert not diagnosis.ok


def test_a_dependency_missing_inside_a_package_makes_it_broken(hide):
    hide("lhotse", error=ModuleNotFoundError("No module named 'urllib3'", name="urllib3"))
    check = check_of(doctor.examine(), "lhotse")
    assert (check.state, check.detail) == ("broken", "ModuleNotFoundError: No module named 'urllib3'")


def test_in_the_project_environment_the_fix_is_to_set_it_up_again(hide, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(doctor._ROOT / ".venv"))
    hide("k2")
    assert check_of(doctor.examine(), "k2").fix == f"cd {doctor._ROOT} && rm -rf .venv && make setup"


def test_a_decoder_with_another_answer_is_broken(monkeypatch):
    monkeypatch.setattr(doctor, "_decode_toy", lambda backend: (("B", "E", "E", "E"), -4.0))
    diagnosis = doctor.examine()
    check = check_of(diagnosis, "toy graph, kaldi")
    assert check.state == "broken"
    assert "('B', 'E', 'E', 'E')" in check.detail
    assert not diagnosis.ok


def test_without_apt_the_recipe_takes_a_copy_at_hand(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda tool: None)
    check = doctor._download_check()
    assert (check.state, check.needed) == ("missing", False)
    assert "--prompts-dir" in check.fix
