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
from click.testing import CliRunner

import asr_kd
from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.model_files import save_model
from asr_kd.acoustic.settings import DnnConfig
from asr_kd.alignment.tree import write_tree
from asr_kd.cli import main
from asr_kd.corpora.audio import BadAudio
from asr_kd.corpora.settings import PromptsConfig
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.distillation.settings import TargetsConfig
from asr_kd.errors import UserError
from asr_kd.frames.features import FeaturesConfig, fbank
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import read_json_lines
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp
from asr_kd.lang.kneser_ney import estimate as estimate_ngrams
from asr_kd.lang.lexicon import write_lang
from asr_kd.lang.ngram import write_arpa
from asr_kd.runtime.recogniser import Recogniser
from asr_kd.runtime.transcript import Transcript
from asr_kd.stages import new_speech
from asr_kd.stages.decode import decode
from asr_kd.stages.export_recogniser import export_recogniser
from asr_kd.stages.transcribe import Answer, Recordings, recogniser_files, speakers_of, transcribe, transcribe_to
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
    features=FeaturesConfig(num_mel_bins=BINS, mean="utterance"),  # as of recordings of unknown speakers
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


def words(config: Config, work: Workspace, paths: list[Path], system: str | None = None, **options) -> list[Answer]:
    recordings = Recordings(tuple(paths), options.pop("speakers", None), options.pop("channel", None))
    return list(transcribe(recogniser_files(config, work, system), recordings, **options))


def texts(*arguments, **options) -> list[tuple[Path, str]]:
    return [(path, answer.text) for path, answer in words(*arguments, **options)]


def test_a_recording_gets_the_words_that_decoding_it_as_a_set_gives(work, recordings):
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    rows = [row for row in read_json_lines(work.decoded("plain", "dev") / "hyps.jsonl") if row["seed"] == 0]
    expected = [(path, " ".join(row["hyp"])) for path, row in zip(recordings, rows, strict=True)]
    assert texts(CONFIG, work, recordings, "plain") == expected


def test_processes_give_what_one_gives_in_the_order_given(work, recordings):
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    paths = [*recordings, recordings[0].with_name("gone.wav"), recordings[0]]
    one, two = (words(CONFIG, work, paths, "plain", nj=nj) for nj in (1, 2))
    assert [(path, str(answer)) for path, answer in one] == [(path, str(answer)) for path, answer in two]
    assert [path for path, _ in one] == paths and one[0][1] == one[3][1]


def test_recordings_of_a_speaker_are_normalised_together(work, recordings, tmp_path):
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    recogniser = recogniser_files(CONFIG, work, "plain").load()
    expected = recogniser.transcribe_group([recogniser.read(path) for path in recordings])
    paths = [recordings[0], tmp_path / "gone.wav", recordings[1]]
    answers = [answer for _, answer in words(CONFIG, work, paths, "plain", speakers=("a", "a", "a"))]
    assert [answers[0], answers[2]] == expected and isinstance(answers[1], BadAudio)
    utt2spk = tmp_path / "utt2spk"
    utt2spk.write_text(f"one ann\ntwo.wav bob\n{paths[1]} ann\n")
    assert speakers_of(paths, utt2spk) == ("ann", "ann", "bob")
    assert Recordings(tuple(paths), ("ann", "ann", "bob")).groups == [[0, 1], [2]]
    utt2spk.write_text("one ann\n")
    with pytest.raises(UserError, match=r"utt2spk has no speaker of .*gone.wav, .*two.wav; add a line NAME SPEAKER"):
        speakers_of(paths, utt2spk)
    utt2spk.write_text("one ann bob\n")
    with pytest.raises(UserError, match="utt2spk:1: expected NAME SPEAKER"):
        speakers_of(paths, utt2spk)


def test_the_distilled_system_of_the_first_comparison_answers(work, recordings):
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    with pytest.raises(UserError, match=r"toy\.yaml compares no systems; name one with --system"):
        words(CONFIG, work, recordings)
    compared = dataclasses.replace(CONFIG, compare=(Comparison("plain", "small", "plain"),))
    assert words(compared, work, recordings) == words(CONFIG, work, recordings, "small")


@contextlib.contextmanager
def standard_input(content: bytes) -> Iterator[None]:
    """A pipe, as `cat a.wav | asr-kd transcribe -` has it."""
    before, (reader, writer) = os.dup(0), os.pipe()
    os.dup2(reader, 0)
    thread = threading.Thread(target=lambda: (os.write(writer, content), os.close(writer)))
    thread.start()
    yield
    thread.join()
    os.dup2(before, 0)
    for descriptor in (before, reader):
        os.close(descriptor)


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_and_any_format_are_transcribed(work, recordings, tmp_path, name, caplog):
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    ((_, expected),) = texts(CONFIG, work, recordings[:1], "plain")
    with standard_input(recordings[0].read_bytes()):
        assert texts(CONFIG, work, [Path(name)], "plain") == [(Path(name), expected)]
    samples = soundfile.read(recordings[0], dtype="int16")[0]
    wide = tmp_path / "wide.flac"
    soundfile.write(wide, np.stack([samples[::-1], samples], 1), 8000)
    assert texts(CONFIG, work, [wide], "plain", channel=1) == [(wide, expected)]
    soundfile.write(tmp_path / "fast.ogg", np.repeat(samples, 2), 16000)
    stereo = dataclasses.replace(CONFIG, corpus=PromptsConfig(channel=1))
    assert texts(stereo, work, [wide], "plain") == [(wide, expected)]
    ((_, answer),) = words(CONFIG, work, [tmp_path / "fast.ogg"], "plain")
    assert isinstance(answer, Transcript) and "fast.ogg has 16000 Hz and is resampled to 8000" in caplog.text


def test_what_cannot_be_transcribed_is_named(work, recordings, tmp_path):
    with pytest.raises(UserError, match="exp/graph is not there yet; make it first: asr-kd decode"):
        words(CONFIG, work, recordings, "plain")
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    stereo, gone, short = tmp_path / "stereo.wav", tmp_path / "gone.wav", tmp_path / "short.wav"
    soundfile.write(stereo, np.random.default_rng(0).normal(size=(9000, 2)), 8000)
    soundfile.write(short, np.random.default_rng(0).normal(size=90), 8000)
    expected = words(CONFIG, work, recordings, "plain")
    answer = words(CONFIG, work, [stereo, recordings[0], gone, recordings[1], short], "plain")
    assert [answer[1], answer[3]] == expected
    assert "stereo.wav has 2 channels; choose one by --channel" in str(answer[0][1])
    assert "gone.wav is missing" in str(answer[2][1]) and "short.wav lasts less than 25 ms" in str(answer[4][1])


def test_files_for_each_recording(work, recordings, tmp_path, caplog):
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    files, printed = recogniser_files(CONFIG, work, "plain"), []

    def echo(text: str, **_: object) -> None:
        printed.append(text)

    gone = tmp_path / "gone.wav"
    bad = transcribe_to(files, Recordings((*recordings, gone)), "json", tmp_path / "out", echo=echo)
    assert bad == [gone] and not printed and "gone.wav is missing" in caplog.text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.json", "two.json"]
    assert transcribe_to(files, Recordings(tuple(recordings)), "json", None, echo=echo) == []
    assert printed == [(tmp_path / "out" / f"{path.stem}.json").read_text() for path in recordings]
    with pytest.raises(UserError, match="name a folder with --output"):
        transcribe_to(files, Recordings(tuple(recordings)), "srt", None, echo=echo)
    twice = Recordings((recordings[0], tmp_path / "other" / "one.flac"))
    for form, output in (("srt", tmp_path / "out"), ("ctm", None)):
        with pytest.raises(UserError, match=rf"several recordings would be .*one\.{form}"):
            transcribe_to(files, twice, form, output, echo=echo)
    spaced = Recordings((tmp_path / "a b.wav", tmp_path / "other" / "a_b.wav"))  # columns of CTM have no spaces
    with pytest.raises(UserError, match=r"several recordings would be a_b\.ctm"):
        transcribe_to(files, spaced, "ctm", None, echo=echo)
    by_hand = recordings[0].with_suffix(".txt")
    by_hand.write_text("my transcript")
    with pytest.raises(UserError, match=r"one\.txt is beside its recording, and may be a transcript by hand"):
        transcribe_to(files, Recordings(tuple(recordings)), "text", recordings[0].parent, echo=echo)
    assert by_hand.read_text() == "my transcript"
    with pytest.raises(UserError, match="no recording given"):
        transcribe_to(files, Recordings(()), "text", None, echo=echo)
    with pytest.raises(UserError, match=r"cannot be made .*; name another folder with --output"):
        transcribe_to(files, Recordings(tuple(recordings)), "text", recordings[0] / "out", echo=echo)


def test_files_that_are_there_are_skipped(work, recordings, tmp_path):
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    files, both = recogniser_files(CONFIG, work, "plain"), Recordings(tuple(recordings), ("a", "b"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "one.txt").write_text("as it was")
    assert transcribe_to(files, both, "text", tmp_path / "out", skip_existing=True, echo=print) == []
    assert (tmp_path / "out" / "one.txt").read_text() == "as it was"
    assert (tmp_path / "out" / "two.txt").read_text().startswith(str(recordings[1]))
    assert both.without({recordings[0]}) == Recordings((recordings[1],), ("b",))
    assert transcribe_to(files, both, "text", tmp_path / "out", echo=print) == []
    assert (tmp_path / "out" / "one.txt").read_text().startswith(str(recordings[0]))


def test_frames_of_training_count_only_where_a_model_expects_the_mean_of_a_speaker(work, recordings, monkeypatch):
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    assert recogniser_files(CONFIG, work, "plain").normalisation.prior_frames == 0
    dev = FrameStore.open(work.frames("dev"))
    dev.attach("senones", [np.zeros(dev.num_frames)], np.int32, Stamp("labels", {}, {}))
    monkeypatch.setattr(new_speech, "chosen_prior", lambda model, normalisation, store, labels: 70)
    config = dataclasses.replace(CONFIG, features=FeaturesConfig(num_mel_bins=BINS))
    recogniser = recogniser_files(config, work, "plain").load()
    assert recogniser.parts.normalisation.prior_frames == 70
    short, *_ = (recogniser.read(path) for path in recordings)
    exact = dataclasses.replace(recogniser.parts.normalisation, prior_frames=0)
    parts = dataclasses.replace(recogniser.parts, normalisation=exact)
    assert recogniser.transcribe(short) != Recogniser(parts).transcribe(short)


def test_an_exported_recogniser_needs_no_work_folder(work, recordings, tmp_path):
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    expected = words(CONFIG, work, recordings, "plain")
    result = export_recogniser(CONFIG, work, "plain", tmp_path / "out")
    assert result.ran and f"try it: asr-kd transcribe --model {tmp_path / 'out'}" in str(result)
    assert not export_recogniser(CONFIG, work, "plain", tmp_path / "out").ran
    (tmp_path / "out" / "mine.txt").write_text("")
    with pytest.raises(UserError, match=r"holds other files .*mine.txt"):
        export_recogniser(CONFIG, work, "plain", tmp_path / "out")
    shutil.rmtree(work.root)
    command = ["transcribe", "--nj", "1", "--model", str(tmp_path / "out"), *map(str, recordings)]
    answer = CliRunner().invoke(main, command)
    assert answer.exit_code == 0
    lines = [line for line in answer.output.splitlines() if "\t" in line]
    assert lines == [f"{path}\t{transcript.text}" for path, transcript in expected]
    recogniser = asr_kd.load(tmp_path / "out")
    assert [recogniser.transcribe(path) for path in recordings] == [transcript for _, transcript in expected]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name either an exported recogniser with --model, or a recipe with --config"),
        (["--model", "a", "--config", "b"], "name either"),
        (["--model", "a", "--system", "b"], "--work-dir and --system are for --config"),
        (["--model", "a"], "a does not exist; make a recogniser: asr-kd export SYSTEM a --format recogniser --config"),
        (["--model", "a", "--config", "b", "--mic"], "name either"),
        (["--config", "gone.yaml"], "gone.yaml"),
    ],
)
def test_what_recognises_must_be_named(options, message):
    result = CliRunner().invoke(main, ["transcribe", "x.wav", *options])
    assert result.exit_code == 2 and message in result.output


def test_a_stale_graph_is_named_and_stays(work, recordings):
    """Another command may be writing in the work folder: transcribe compiles nothing."""
    decode(CONFIG, work, sets=["dev"], backend="kaldi")
    before = {path: path.read_bytes() for path in work.graph("tied").iterdir()}
    write_arpa(work.lm / "G.arpa", estimate_ngrams([["AB"], ["C", "AB"]], 2))
    with pytest.raises(UserError, match=r"this graph was made from lm \S+, but lm is .*; make it again: asr-kd decode"):
        words(CONFIG, work, recordings, "plain")
    assert {path: path.read_bytes() for path in work.graph("tied").iterdir()} == before
    shutil.rmtree(work.graph("tied"))
    with pytest.raises(UserError, match=r"exp/graph is not there yet; make it first: asr-kd decode"):
        words(CONFIG, work, recordings, "plain")
    with pytest.raises(UserError, match="nobody"):
        words(CONFIG, work, recordings, "nobody")
