"""Exported models answer as torch's do, however speech is cut, and malformed input is refused."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from asr_kd.acoustic.joined import JoinedModels
from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.settings import MODELS, DnnConfig, FrontConfig, ModelKind, TdnnConfig
from asr_kd.errors import UserError
from asr_kd.export.graph_files import Scores
from asr_kd.export.onnx_acoustic import Description, streaming_model, utterance_model
from asr_kd.export.onnx_graph import OnnxGraph, save
from asr_kd.export.onnx_run import OnnxModel, OnnxStream, open_model
from asr_kd.export.quantise import quantise_dynamic, quantise_static
from asr_kd.export.sherpa import offline_model, online_model
from asr_kd.frames.normalisation import Normalisation, RunningMean

BINS, SENONES = 12, 9
DESCRIPTION = Description("small", 16000, 6.0, {"tree": "0123"})
KINDS = {
    "dnn": DnnConfig(layers=2, width=16, left_context=4, right_context=2),
    "no hidden layer, no context": DnnConfig(layers=0, left_context=0, right_context=0),
    "tdnn": TdnnConfig(width=8, dilations=(1, 2)),
    "layer norm": TdnnConfig(width=8, dilations=(1,), norm="layer", front=FrontConfig((4, 8))),
    "factored": TdnnConfig(width=8, dilations=(1, 3), bottleneck=4, front=FrontConfig((2, 3, 2))),
}
MODELS_OF_TESTS = [*KINDS, "one member", "joined"]


def model_of(name: str) -> FrameModel:
    """A model with random weights and statistics, in float32."""
    if name == "one member":
        return model_of("tdnn").select_members([1])
    if name == "joined":
        return JoinedModels([model_of("dnn"), model_of("tdnn")]).eval()
    model = build_model(KINDS[name], num_dims=BINS, num_senones=SENONES, seeds=[1, 2])
    model.precision = "float32"
    generator = torch.Generator().manual_seed(3)
    for key, value in model.state_dict().items():
        if "norm" in key or key.endswith("bias"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return model


def normalisation_of(mean: str) -> Normalisation:
    rng = np.random.default_rng(7)
    means, scale = rng.normal(-6, 1, (3, BINS)).astype(np.float32), rng.uniform(0.5, 2, BINS).astype(np.float32)
    scales = np.ones((3, BINS), np.float32) if "speaker's variance" in mean else None
    running = RunningMean(means.mean(0), 2.0) if mean == "running" else None
    return Normalisation(means, scale, scales, running, prior_frames=30 if "prior" in mean else 0)


def features_of(length: int, seed: int = 0) -> np.ndarray:
    """Log mel energies, which are far from a mean of 0."""
    return np.random.default_rng(seed).normal(-6, 3, (length, BINS)).astype(np.float32)


def expected(model: FrameModel, normalisation: Normalisation, features: np.ndarray) -> np.ndarray:
    return model.log_posteriors(normalisation.of_unknown_speaker(features)).numpy()


def close(answer: np.ndarray, reference: np.ndarray) -> bool:
    return answer.shape == reference.shape and np.allclose(answer, reference, atol=1e-4)


@pytest.mark.parametrize("mean", ["speaker", "prior", "speaker's variance", "speaker's variance, prior", "running"])
@pytest.mark.parametrize("name", MODELS_OF_TESTS)
def test_the_answers_are_torchs_for_every_kind_mean_and_length(tmp_path, name, mean):
    model, normalisation = model_of(name), normalisation_of(mean)
    save(utterance_model(model, normalisation, DESCRIPTION), tmp_path / "model.onnx")
    exported = OnnxModel(tmp_path / "model.onnx")
    for length in (1, 2, 127, 128, 129, 700):
        features = features_of(length)
        answer = exported.log_posteriors(features)
        assert close(answer, expected(model, normalisation, features))
        assert np.allclose(np.exp(answer).sum(1), 1, atol=1e-4)


@pytest.mark.parametrize("mean", ["speaker", "running"])
@pytest.mark.parametrize("name", MODELS_OF_TESTS)
def test_a_stream_cut_anywhere_is_the_utterance_with_a_running_mean(tmp_path, name, mean):
    model, normalisation = model_of(name), normalisation_of(mean)
    save(streaming_model(model, normalisation, DESCRIPTION), tmp_path / "streaming.onnx")
    stream, right = OnnxStream(tmp_path / "streaming.onnx"), model.context.right
    with_running = Normalisation(normalisation.means, normalisation.scale, None, normalisation.running_mean(6.0))

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.integers(1, 150), min_size=1, max_size=6), st.integers(0, 9))
    def cut(lengths: list[int], seed: int) -> None:
        features = features_of(sum(lengths), seed)
        stream.restart()
        parts = np.split(features, np.cumsum(lengths)[:-1])
        early = np.concatenate([stream.accept(part) for part in parts])
        assert len(early) == max(0, len(features) - right)  # as late as it says, no later
        # what follows the end: the last frame, as it would be heard
        ended = np.concatenate([features, np.repeat(features[-1:], right, axis=0)])
        reference = expected(model, with_running, ended)[: len(features)]
        assert close(np.concatenate([early, stream.finish()]), reference)
        assert close(stream.log_posteriors(features), reference)

    cut()


@pytest.mark.parametrize("form", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["dnn", "factored"])
def test_int8_is_a_quarter_as_large_and_near(tmp_path, name, form):
    kinds = {"dnn": DnnConfig(layers=2, width=128), "factored": TdnnConfig(width=128, dilations=(1, 2), bottleneck=64)}
    model = build_model(kinds[name], num_dims=BINS, num_senones=200, seeds=[1])
    model.precision = "float32"
    normalisation, whole, small = normalisation_of("running"), tmp_path / "model.onnx", tmp_path / "int8.onnx"
    save(utterance_model(model, normalisation, DESCRIPTION), whole)
    if form == "dynamic":
        quantise_dynamic(whole, small)
    else:
        quantise_static(whole, small, [features_of(200, seed) for seed in range(5)])
    running = 128 * 128 * 4  # bytes of the running mean, which stays float32
    assert (small.stat().st_size - running) / (whole.stat().st_size - running) < 0.4
    kinds_of_nodes = {node.op_type for node in onnx.load(str(small)).graph.node}
    assert kinds_of_nodes & {"MatMulInteger", "DynamicQuantizeMatMul", "QuantizeLinear"}
    features = features_of(300, 77)
    reference, answer = OnnxModel(whole).log_posteriors(features), OnnxModel(small).log_posteriors(features)
    spread = (reference - reference.mean(1, keepdims=True)).std()
    assert np.abs(answer - reference).mean() < 0.1 * spread


def test_int8_products_do_not_overflow(tmp_path):
    """All weights alike and inputs at their largest: with 8 bits of each, 16-bit sums of two overflow."""
    model = build_model(DnnConfig(layers=1, width=64), num_dims=BINS, num_senones=2, seeds=[1])
    model.precision = "float32"
    for value in model.state_dict().values():
        value.fill_(0.01)
    normalisation = Normalisation(np.zeros((1, BINS), np.float32), np.ones(BINS, np.float32))
    save(utterance_model(model, normalisation, DESCRIPTION), tmp_path / "model.onnx")
    proto = onnx.load(str(tmp_path / "model.onnx"))
    hidden = next(node.output[0] for node in proto.graph.node if node.op_type == "Relu")
    proto.graph.output.append(onnx.helper.make_tensor_value_info(hidden, onnx.TensorProto.FLOAT, [1, "frames", 64]))
    save(proto, tmp_path / "both.onnx")
    quantise_dynamic(tmp_path / "both.onnx", tmp_path / "int8.onnx")
    features = np.full((40, BINS), -1.0, np.float32)
    features[20:] = 1.0
    answers = []
    for name in ("both", "int8"):
        session = OnnxModel(tmp_path / f"{name}.onnx")._session
        answers.append(session.run([hidden], {"features": features})[0])
    assert answers[0].max() > 1 and np.allclose(answers[1], answers[0], rtol=0.05, atol=0.05)
    # nor elsewhere: with VNNI nothing overflows
    weights = [numpy_helper.to_array(t) for t in onnx.load(str(tmp_path / "int8.onnx")).graph.initializer]
    assert {int(np.abs(w.astype(int)).max()) for w in weights if w.dtype == np.int8 and w.ndim == 2} == {64}


def test_making_int8_leaves_logging_as_it_was(tmp_path):
    save(utterance_model(model_of("dnn"), normalisation_of("speaker"), DESCRIPTION), tmp_path / "model.onnx")
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    root.handlers.clear()
    try:
        quantise_dynamic(tmp_path / "model.onnx", tmp_path / "int8.onnx")
        assert root.handlers == [] and root.level == before[0]
    finally:
        root.handlers[:] = before[1]


def test_float16_is_half_as_large_and_refuses_what_it_cannot_hold(tmp_path):
    model = build_model(DnnConfig(layers=2, width=64), num_dims=BINS, num_senones=SENONES, seeds=[1])
    model.precision = "float32"
    normalisation = normalisation_of("speaker")
    save(utterance_model(model, normalisation, DESCRIPTION), tmp_path / "model.onnx")
    save(utterance_model(model, normalisation, DESCRIPTION, "float16"), tmp_path / "float16.onnx")
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("float16", "model")]
    assert sizes[0] < 0.6 * sizes[1]
    features = features_of(50)
    answer = OnnxModel(tmp_path / "float16.onnx").log_posteriors(features)
    reference = expected(model, normalisation, features)
    assert not np.array_equal(answer, reference) and np.allclose(answer, reference, atol=0.02)
    model.layers[0].weight.data[0, 0, 0] = 1e6
    with pytest.raises(UserError, match="too large for float16"):
        utterance_model(model, normalisation, DESCRIPTION, "float16")


def test_the_file_says_what_a_program_needs_to_know(tmp_path):
    model = model_of("tdnn")
    save(streaming_model(model, normalisation_of("running"), DESCRIPTION), tmp_path / "streaming.onnx")
    known = open_model(tmp_path / "streaming.onnx").metadata
    assert known["mean"] == "running, 2 s" and known["system"] == "small" and known["tree"] == "0123"
    numbers = {name: float(known[name]) for name in ("left_context", "right_context", "num_mel_bins", "num_senones")}
    assert numbers == {"left_context": 5, "right_context": 5, "num_mel_bins": BINS, "num_senones": SENONES}
    assert (known["sampling_rate"], known["high_freq"], known["frame_shift_ms"]) == ("16000", "8000.0", "10.0")
    save(utterance_model(model, normalisation_of("prior"), DESCRIPTION), tmp_path / "model.onnx")
    assert open_model(tmp_path / "model.onnx").metadata["mean"] == "utterance, with 30 frames at the mean of training"


FORMS = {"utterance": utterance_model, "streaming": streaming_model}


@pytest.fixture(params=FORMS)
def exported(request, tmp_path) -> OnnxModel:
    save(FORMS[request.param](model_of("dnn"), normalisation_of("running"), DESCRIPTION), tmp_path / "exported.onnx")
    return open_model(tmp_path / "exported.onnx")


@pytest.mark.parametrize("bad", ["empty", "bins", "one axis", "nan", "infinite"])
def test_malformed_features_are_an_error(exported, bad):
    features = features_of(5)
    given_features = {
        "empty": features[:0],
        "bins": features[:, 1:],
        "one axis": features[0],
        "nan": np.where(np.arange(BINS) == 3, np.nan, features),
        "infinite": np.where(np.arange(BINS) == 3, np.inf, features),
    }[bad]
    with pytest.raises(ValueError, match="features are"):
        exported.log_posteriors(given_features)
    assert len(exported.log_posteriors(features)) == 5


# onnxruntime alone, in a process of its own, which a crash would end; of each input its value and shape, the rest is 0
BARE = """
import sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
name, *state = [(entry.name, entry.shape, kinds[entry.type]) for entry in session.get_inputs()]
for value, *shape in map(str.split, sys.argv[2:]):
    values = {name[0]: np.full([*map(int, shape)], float(value), np.float32)}
    for key, sizes, kind in state:
        values[key] = np.zeros([size if isinstance(size, int) else 1 for size in sizes], kind)
    try:
        answer = session.run(None, values)[0]
        print(*answer.shape, "finite" if np.isfinite(answer).all() else "not finite", flush=True)
    except Exception as error:
        print("refused", flush=True)
"""


def answers_alone(path: Path, inputs: Iterable[str]) -> list[str]:
    """Of each input: the shape of the answer and whether it is finite, or that it is refused."""
    ended = subprocess.run([sys.executable, "-c", BARE, str(path), *inputs], capture_output=True, text=True)
    assert ended.returncode == 0, (ended.stdout, ended.stderr)
    return ended.stdout.splitlines()


@pytest.mark.parametrize("mean", ["speaker", "running"])
@pytest.mark.parametrize("form", FORMS)
def test_onnxruntime_alone_answers_malformed_features_or_refuses_them(tmp_path, form, mean):
    save(FORMS[form](model_of("tdnn"), normalisation_of(mean), DESCRIPTION), tmp_path / "exported.onnx")
    answers = {
        f"-6 0 {BINS}": "refused",
        f"-6 1 {BINS}": f"1 {SENONES} finite",
        f"nan 5 {BINS}": f"5 {SENONES} not finite",
        f"inf 5 {BINS}": f"5 {SENONES} not finite",
        f"-6 5 {BINS - 1}": "refused",
        f"-6 5 {BINS + 1}": "refused",
        f"-6 {BINS}": "refused",
    }
    assert answers_alone(tmp_path / "exported.onnx", answers) == list(answers.values())


@pytest.mark.parametrize("mean", ["prior", "running"])
def test_models_for_sherpa_have_finite_scores_of_malformed_features_or_refuse_them(tmp_path, mean):
    """No search could end with scores that are not finite."""
    model, normalisation, scores = (
        model_of("tdnn"),
        normalisation_of(mean),
        Scores(np.zeros(SENONES, np.float32), 0, 1.0),
    )
    save(offline_model(model, normalisation, scores, DESCRIPTION), tmp_path / "model.onnx")
    chunk = 10 - model.context.right
    save(online_model(model, normalisation, scores, DESCRIPTION, chunk=chunk), tmp_path / "streaming.onnx")
    offline = {
        f"-6 1 0 {BINS}": f"1 0 {SENONES + 1} finite",
        f"-6 1 1 {BINS}": f"1 1 {SENONES + 1} finite",
        f"nan 1 10 {BINS}": f"1 10 {SENONES + 1} finite",
        f"-6 1 10 {BINS - 1}": "refused",
        f"-6 1 10 {BINS + 1}": "refused",
    }
    streaming = dict.fromkeys(offline, "refused")  # all but chunks of one length
    streaming[f"nan 1 10 {BINS}"] = f"1 {chunk} {SENONES + 1} finite"
    for name, answers in (("model.onnx", offline), ("streaming.onnx", streaming)):
        assert answers_alone(tmp_path / name, answers) == list(answers.values())


@pytest.mark.parametrize("mean", ["speaker", "running"])
def test_an_hour_of_silence_is_answered_as_torch_does(tmp_path, mean):
    model, normalisation = model_of("dnn"), normalisation_of(mean)
    save(utterance_model(model, normalisation, DESCRIPTION), tmp_path / "exported.onnx")
    silence = np.full((360_000, BINS), math.log(2.0**-23), np.float32)
    answer = open_model(tmp_path / "exported.onnx").log_posteriors(silence)
    assert close(answer, expected(model, normalisation, silence))


@pytest.mark.parametrize("content", [b"", b"no model", "other"])
def test_other_files_are_no_models(tmp_path, content):
    path = tmp_path / "other.onnx"
    if isinstance(content, str):
        graph = OnnxGraph()
        graph.input("features", ("frames", BINS))
        graph.output("log_posteriors", "features", ("frames", BINS))
        save(graph.model({"model_type": "other"}), path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"other\.onnx (cannot be run|is no model that asr-kd export wrote)"):
        open_model(path)


def test_a_kind_without_a_writer_is_named(monkeypatch):
    monkeypatch.setitem(MODELS, "dnn", ModelKind(DnnConfig, MODELS["dnn"].model))
    with pytest.raises(UserError, match="models of kind dnn cannot be written as ONNX"):
        utterance_model(model_of("dnn"), normalisation_of("speaker"), DESCRIPTION)


@pytest.mark.parametrize("module", ["onnx_graph", "onnx_run", "quantise"])
def test_without_the_extra_one_sentence_says_what_to_install(module):
    code = f"import sys; sys.modules['onnx'] = sys.modules['onnxruntime'] = None; import asr_kd.export.{module}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path.cwd())
    assert "UserError" in ended.stderr and "pip install 'asr_kd[export]'" in ended.stderr
