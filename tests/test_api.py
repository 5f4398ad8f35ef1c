"""The public names: importing asr_kd costs and changes nothing, and each name does what its docstring says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import asr_kd
from asr_kd.acoustic.settings import DnnConfig
from asr_kd.alignment.tree import monophone_tree
from asr_kd.decoding.graph import compile_graph


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300).stdout


def test_importing_loads_no_heavy_library_and_changes_nothing():
    out = run_python(
        "import os, sys, threading; before = dict(os.environ)\n"
        "import asr_kd\n"
        "heavy = {'torch', 'numpy', 'numba', 'lhotse', 'k2', 'matplotlib', 'yaml', 'pydantic'} & set(sys.modules)\n"
        "print(sorted(heavy), before == dict(os.environ), threading.active_count())"
    )
    assert out == "[] True 1\n"


def test_reading_a_config_loads_neither_torch_nor_lhotse():
    out = run_python(
        "import sys, asr_kd; asr_kd.load_config\n"
        "print(sorted({'torch', 'torchaudio', 'lhotse', 'k2', 'numba', 'matplotlib'} & set(sys.modules)))"
    )
    assert out == "[]\n"


def test_every_public_name_is_there_and_documented():
    source = Path(asr_kd.__file__).read_text(encoding="utf-8")
    typed = set(re.findall(r"^    from \S+ import \w+ as (\w+)$", source, re.MULTILINE))
    assert typed == set(asr_kd.__all__) - {"__version__"} <= set(dir(asr_kd))
    for name in typed:
        assert getattr(asr_kd, name).__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = asr_kd.nothing


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_loads_from_a_copy_of_its_folder_alone(tmp_path, precision):
    torch.manual_seed(0)
    model = asr_kd.build_model(
        DnnConfig(layers=1, width=16, left_context=3, right_context=2), num_dims=5, num_senones=7, seeds=[1, 2]
    )
    model.precision = precision
    (tmp_path / "exp" / "distilled").mkdir(parents=True)
    asr_kd.save_model(model, tmp_path / "exp" / "distilled")
    shutil.copytree(tmp_path / "exp" / "distilled", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "exp")
    features = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    loaded = asr_kd.load_model(str(tmp_path / "elsewhere"))
    assert loaded.precision == precision
    posteriors = loaded.log_posteriors(features)
    assert posteriors.shape == (30, 7)
    torch.testing.assert_close(posteriors, model.log_posteriors(features))
    torch.testing.assert_close(posteriors.exp().sum(1), torch.ones(30), atol=1e-4, rtol=0)


def test_an_ensemble_is_distilled_by_public_names_alone():
    """Frames of noise whose class is their largest dimension; the student sees no label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 600)
    frames = rng.normal(size=(600, 4)).astype(np.float32) + 4 * np.eye(4, dtype=np.float32)[labels]
    source = asr_kd.ArrayFrames([frames])
    settings = asr_kd.DnnConfig(layers=1, width=16, left_context=0, right_context=0)
    training = asr_kd.TrainingConfig(epochs=5, batch_size=32, learning_rate=1e-2, precision="float32")
    data = asr_kd.TrainingData(asr_kd.windows_of(source, settings.context))
    device = torch.device("cpu")

    teacher = asr_kd.build_model(settings, num_dims=4, num_senones=4, seeds=[1, 2])
    asr_kd.fit(teacher, data, asr_kd.HardTargets(labels, device), training, asr_kd.RunControl(seed=1))
    normalised = torch.from_numpy(source.normalised(0))
    members = teacher.member_log_posteriors(normalised)
    targets = asr_kd.TableTargets(asr_kd.ensemble_distribution(members, temperature=2.0), temperature=2.0)

    student = asr_kd.build_model(settings, num_dims=4, num_senones=4, seeds=[3])
    wrong = (labels + 1) % 4  # hard labels weigh nothing
    criterion = asr_kd.DistillationCriterion(targets, wrong, soft_weight=1.0, device=device)
    asr_kd.fit(student, data, criterion, training, asr_kd.RunControl(seed=1))
    for model in (teacher, student):
        assert (model.log_posteriors(normalised).argmax(1).numpy() == labels).mean() > 0.95


def test_decoding_by_public_names():
    lang = asr_kd.Lang(("SIL", "A", "B"), ("AB", "BA"), {"AB": ((1, 2),), "BA": ((2, 1),)})
    arpa = asr_kd.estimate_ngrams([["AB"], ["BA"], ["AB", "BA"]], 2)
    graph = compile_graph(lang, arpa, monophone_tree(lang.phones), 0.5)
    states = [0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8, 3, 4, 5, 0, 1, 2]  # silence, A B, B A, silence
    posteriors = np.log(np.eye(9)[np.repeat(states, 2)] + 1e-2)
    for decoder in (None, "kaldi"):
        (hypothesis,) = asr_kd.decode([posteriors], graph, np.zeros(9, np.float32), acoustic_scale=1.0, decoder=decoder)
        assert hypothesis.words == ("AB", "BA")


def test_word_errors_of_a_set_need_as_many_references():
    assert asr_kd.wer([], []).wer == 0
    with pytest.raises(ValueError, match="1 references and 0 hypotheses"):
        asr_kd.wer(["A"], [])
