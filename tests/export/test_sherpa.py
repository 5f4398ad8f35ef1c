"""Models for sherpa-onnx score as ours do, several utterances at once and in chunks; its lists name everything."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.settings import DnnConfig, TdnnConfig
from asr_kd.decoding.graph import Graph
from asr_kd.errors import UserError
from asr_kd.export.graph_files import SHERPA_BEAM, Scores, write_words
from asr_kd.export.onnx_acoustic import Description
from asr_kd.export.sherpa import offline_model, online_model, sherpa_fst, write_tokens
from asr_kd.frames.normalisation import Normalisation, RunningMean

BINS, SENONES, SILENCE = 12, 9, 2
DESCRIPTION = Description("small", 16000, 6.0, {})
KINDS = {
    "dnn": DnnConfig(layers=1, width=16, left_context=4, right_context=2),
    "no context": DnnConfig(layers=1, width=16, left_context=0, right_context=0),
    "tdnn": TdnnConfig(width=8, dilations=(1, 2)),
}
PADDING = -23.025850929940457  # log(1e-10), as sherpa-onnx fills up
SCORES = Scores(
    np.log(np.arange(1, SENONES + 1) / 45).astype(np.float32), SILENCE, acoustic_scale=0.3, prior_scale=0.8, beam=11.0
)


def model_of(kind: str) -> FrameModel:
    model = build_model(KINDS[kind], num_dims=BINS, num_senones=SENONES, seeds=[1])
    model.precision = "float32"
    return model


def normalisation_of(mean: str) -> Normalisation:
    rng = np.random.default_rng(7)
    means, scale = rng.normal(-6, 1, (3, BINS)).astype(np.float32), rng.uniform(0.5, 2, BINS).astype(np.float32)
    scales = np.ones((3, BINS), np.float32) if mean == "variance" else None
    running = RunningMean(means.mean(0), 6.0) if mean == "running" else None
    return Normalisation(means, scale, scales, running, prior_frames=30 if mean == "prior" else 0)


def features_of(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(-6, 3, (length, BINS)).astype(np.float32)


def scores(model: FrameModel, normalisation: Normalisation, features: np.ndarray) -> np.ndarray:
    """(T, C) as the search should see them."""
    posteriors = model.log_posteriors(normalisation.of_unknown_speaker(features)).numpy()
    likelihoods = posteriors - SCORES.prior_scale * SCORES.log_priors
    return likelihoods * SCORES.acoustic_scale * SHERPA_BEAM / SCORES.beam


@pytest.mark.parametrize("mean", ["speaker", "prior", "variance", "running"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_of_several_utterances_has_the_scores_that_it_has_alone(kind, mean):
    model, normalisation = model_of(kind), normalisation_of(mean)
    session = onnxruntime.InferenceSession(offline_model(model, normalisation, SCORES, DESCRIPTION).SerializeToString())
    utterances = [features_of(length, length) for length in (40, 1, 200, 130)]
    batch = np.full((4, 200, BINS), PADDING, np.float32)
    for row, features in zip(batch, utterances, strict=True):
        row[: len(features)] = features
    (answer,) = session.run(None, {"x": batch})
    assert answer.shape == (4, 200, SENONES + 1) and (answer[..., 0] == -1e4).all()
    silent = np.full(SENONES, -1e4)
    silent[SILENCE] = 0.0
    for row, features in zip(answer, utterances, strict=True):
        assert np.allclose(row[: len(features), 1:], scores(model, normalisation, features), atol=1e-3)
        assert (row[len(features) :, 1:] == silent).all()


@pytest.mark.parametrize("mean", ["speaker", "running"])
@pytest.mark.parametrize("kind", KINDS)
def test_streams_side_by_side_have_the_scores_of_a_running_mean(kind, mean):
    model, normalisation, chunk = model_of(kind), normalisation_of(mean), 7
    proto = online_model(model, normalisation, SCORES, DESCRIPTION, chunk=chunk)
    session, window = onnxruntime.InferenceSession(proto.SerializeToString()), chunk + model.context.right
    streams = [features_of(3 * chunk + window, seed) for seed in (1, 2)]
    states = {"embed_states": np.zeros((2, 128, 3, 19), np.float32), "processed_lens": np.zeros(2, np.int64)}
    answers = []
    for first in range(0, 3 * chunk + 1, chunk):
        frames = np.stack([features[first : first + window] for features in streams])
        answer, *after = session.run(None, {"x": frames, **states})
        states = dict(zip(states, after, strict=True))
        answers.append(answer)
    together = np.concatenate(answers, axis=1)
    running = Normalisation(normalisation.means, normalisation.scale, None, normalisation.running_mean(6.0))
    for row, features in zip(together, streams, strict=True):
        assert np.allclose(row[:, 1:], scores(model, running, features)[: len(row)], atol=1e-3)
    known = session.get_modelmeta().custom_metadata_map
    assert (known["T"], known["decode_chunk_len"]) == (str(window), str(chunk))


def test_a_context_that_a_stream_cannot_hold_is_refused():
    model = build_model(DnnConfig(left_context=700, layers=0), num_dims=BINS, num_senones=SENONES, seeds=[1])
    with pytest.raises(UserError, match="can keep 7,296 numbers, but 700 frames of 12 and a running mean are 8,413"):
        online_model(model, normalisation_of("running"), SCORES, DESCRIPTION, chunk=10)


def graph_of(words: tuple[str, ...]) -> Graph:
    """Two states that are entered with senones 0 and 1; one arc has two words."""
    return Graph(
        src=np.array([0, 1, 1, 2, 2], np.int32),
        dst=np.array([1, 1, 2, 2, 3], np.int32),
        senone=np.array([0, 0, 1, 1, -1], np.int32),
        output=np.array([1, 0, 3, 0, 0], np.int32),
        score=np.array([-0.5, -0.7, -0.25, -0.7, -0.1], np.float32),
        num_senones=2,
        words=words,
        sequences=((2, 1),),
    )


def test_the_graph_has_sherpas_labels_and_costs():
    fst = sherpa_fst(graph_of(("A", "B")), Scores(np.zeros(2, np.float32), 0, 0.1, word_penalty=0.5, beam=8.0))
    assert fst.ilabel.tolist() == [2, 2, 3, 3] and fst.olabel.tolist() == [1, 0, 3, 0]
    # minus score and penalties of one and of two words, times 16 / 8
    assert fst.cost == pytest.approx([0.0, 1.4, -1.5, 1.4]) and fst.final[2] == pytest.approx(0.2)


def test_words_and_tokens_have_a_line_for_each_number(tmp_path):
    assert write_words(tmp_path / "words.txt", graph_of(("A", "B"))) == "_"
    assert (tmp_path / "words.txt").read_text() == "<eps> 0\nA 1\nB 2\nB_A 3\n"
    assert write_words(tmp_path / "words.txt", graph_of(("A_", "B"))) == "+"
    assert (tmp_path / "words.txt").read_text() == "<eps> 0\nA_ 1\nB 2\nB+A_ 3\n"
    with pytest.raises(UserError, match="is in some word"):
        write_words(tmp_path / "words.txt", graph_of(("_+|", "~^")))
    write_tokens(tmp_path / "tokens.txt", ["s0", "s1"])
    assert (tmp_path / "tokens.txt").read_text() == "<blk> 0\ns0 1\ns1 2\n"
