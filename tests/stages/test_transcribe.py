"""Own recordings become words, and a recording that cannot be used is named."""

import contextlib
import dataclasses
import importlib.util
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.model_files import save_model
from asr_kd.acoustic.settings import DnnConfig
from asr_kd.alignment.tree import write_tree
from asr_kd.corpora.settings import PromptsConfig
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.distillation.settings import TargetsConfig
from asr_kd.errors import UserError
from asr_kd.frames.features import FeaturesConfig, fbank
from asr_kd.io.files import read_json_lines
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp
from asr_kd.lang.lexicon import write_lang
from asr_kd.lang.ngram import estimate as estimate_ngrams
from asr_kd.lang.ngram import write_arpa
from asr_kd.stages.decode import decode
from asr_kd.stages.transcribe import transcribe
from asr_kd.workspace.config import Comparison, Config, SystemConfig
from asr_kd.workspace.work import Workspace

from ..stores import write_store

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).parents[1] / "decoding" / "toy.py")
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)

BINS = 8
MODEL = DnnConfig(layers=1, width=8, left_context=1, right_context=1)
CONFIG = Config(
    corpus=PromptsConfig(),
    features=FeaturesConfig(num_mel_bins=BINS),
    systems={
        "plain": SystemConfig(model=MODEL, seeds=2),
        "small": SystemConfig(model=MODEL, targets=TargetsConfig(source=("plain",))),
    },
    decoding=DecodingConfig(acoustic_scales=(0.5,), phones=False),
)


@pytest.fixture
def recordings(tmp_path) -> list[Path]:
    rng = np.random.default_rng(5)
    paths = [tmp_path / f"{name}.wav" for name in ("one", "two")]
    for path in paths:
        soundfile.write(path, 0.1 * rng.normal(size=rng.integers(3000, 5000)), 8000, subtype="PCM_16")
    return paths


@pytest.fixture
def work(tmp_path, recordings) -> Workspace:
    """A system whose dev set is the same recordings, each a group of its own."""
    work = Workspace(tmp_path / "work", Path("toy.yaml"))
    with replacing_folder(work.lang, Stamp("lang", {}, {})) as folder:
        write_lang(folder, toy.LANG)
    work.lm.mkdir(parents=True)
    write_arpa(work.lm / "G.arpa", toy.ARPA)
    features = [(path.stem, fbank(soundfile.read(path, dtype="float32")[0][None], 8000, BINS)) for path in recordings]
    train = write_store(work.frames("train"), features, texts=["AB", "C"])
    write_store(work.frames("dev"), features, texts=["AB", "C"], scale=train.scale)
    with replacing_folder(work.tree("tied"), Stamp("tree", {}, {})) as folder:
        write_tree(toy.toy_tree(np.random.default_rng(0), 2), folder)
    for name, seeds in (("plain", [1, 2]), ("small", [3])):
        with replacing_folder(work.exp(name), Stamp("train", {"seeds": seeds}, {})) as folder:
            save_model(build_model(MODEL, num_dims=BINS, num_senones=24, seeds=seeds), folder)
    return work


def test_a_recording_gets_the_words_that_decoding_it_as_a_set_gives(work, recordings):
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    rows = [row for row in read_json_lines(work.decoded("plain", "dev") / "hyps.jsonl") if row["seed"] == 0]
    answer = transcribe(CONFIG, work, recordings, "plain", backend="kaldi")
    assert answer == [(path, " ".join(row["hyp"])) for path, row in zip(recordings, rows, strict=True)]


def test_the_distilled_system_of_the_first_comparison_answers(work, recordings):
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    with pytest.raises(UserError, match=r"toy\.yaml compares no systems; name one with --system"):
        transcribe(CONFIG, work, recordings, backend="kaldi")
    compared = dataclasses.replace(CONFIG, compare=(Comparison("plain", "small", "plain"),))
    expected = transcribe(CONFIG, work, recordings, "small", backend="kaldi")
    assert transcribe(compared, work, recordings, backend="kaldi") == expected


@contextlib.contextmanager
def standard_input(content: bytes) -> Iterator[None]:
    """A pipe, as `cat a.wav | asr-kd transcribe -` has it."""
    kept, (reader, writer) = os.dup(0), os.pipe()
    os.dup2(reader, 0)
    thread = threading.Thread(target=lambda: (os.write(writer, content), os.close(writer)))
    thread.start()
    yield
    thread.join()
    os.dup2(kept, 0)
    for descriptor in (kept, reader):
        os.close(descriptor)


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_and_any_format_are_transcribed(work, recordings, tmp_path, name):
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    ((_, expected),) = transcribe(CONFIG, work, recordings[:1], "plain", backend="kaldi")
    with standard_input(recordings[0].read_bytes()):
        assert transcribe(CONFIG, work, [Path(name)], "plain", backend="kaldi") == [(Path(name), expected)]
    samples = soundfile.read(recordings[0], dtype="int16")[0]
    wide = tmp_path / "wide.flac"
    soundfile.write(wide, np.stack([samples[::-1], samples], 1), 8000)
    stereo = dataclasses.replace(CONFIG, corpus=PromptsConfig(channel=1))
    assert transcribe(stereo, work, [wide], "plain", backend="kaldi") == [(wide, expected)]
    soundfile.write(tmp_path / "fast.ogg", np.repeat(samples, 2), 16000)
    resampled = dataclasses.replace(CONFIG, corpus=PromptsConfig(resample=True))
    ((_, words),) = transcribe(resampled, work, [tmp_path / "fast.ogg"], "plain", backend="kaldi")
    assert isinstance(words, str)


def test_what_cannot_be_transcribed_is_named(work, recordings, tmp_path):
    with pytest.raises(UserError, match="decode/plain/dev is not there yet; make it first: asr-kd decode"):
        transcribe(CONFIG, work, recordings, "plain", backend="kaldi")
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    wide, gone, short = tmp_path / "wide.wav", tmp_path / "gone.wav", tmp_path / "short.wav"
    soundfile.write(wide, np.random.default_rng(0).normal(size=9000), 16000)
    soundfile.write(short, np.random.default_rng(0).normal(size=90), 8000)
    expected = transcribe(CONFIG, work, recordings, "plain", backend="kaldi")
    answer = transcribe(CONFIG, work, [wide, recordings[0], gone, recordings[1], short], "plain", backend="kaldi")
    assert [answer[1], answer[3]] == expected
    assert "wide.wav has 16000 Hz" in str(answer[0][1]) and "gone.wav is missing" in str(answer[2][1])
    assert "short.wav lasts less than 25 ms" in str(answer[4][1])
    with pytest.raises(UserError, match="no recording given"):
        transcribe(CONFIG, work, [], "plain", backend="kaldi")


def test_a_stale_graph_is_named_and_stays(work, recordings):
    """Another command may be writing in the work folder: transcribe compiles nothing."""
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    before = {path: path.read_bytes() for path in work.graph("tied").iterdir()}
    write_arpa(work.lm / "G.arpa", estimate_ngrams([["AB"], ["C", "AB"]], 2))
    with pytest.raises(UserError, match=r"this graph was made from lm \S+, but lm is .*; make it again: asr-kd decode"):
        transcribe(CONFIG, work, recordings, "plain", backend="kaldi")
    assert {path: path.read_bytes() for path in work.graph("tied").iterdir()} == before
    shutil.rmtree(work.graph("tied"))
    with pytest.raises(UserError, match=r"exp/graph is not there yet; make it first: asr-kd decode"):
        transcribe(CONFIG, work, recordings, "plain", backend="kaldi")
    with pytest.raises(UserError, match="nobody"):
        transcribe(CONFIG, work, recordings, "nobody", backend="kaldi")
