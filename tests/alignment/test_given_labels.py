"""Labels from elsewhere: they are read from every kind of file, fitted to the frames, and give the first paths."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path

import kaldi_native_io
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.alignment.given_labels import SPAN, GivenLabels, label_files, read_labels
from asr_kd.alignment.label_paths import LabelledStart, frame_symbols, label_paths, match_phone
from asr_kd.alignment.times import Interval, Times, write_textgrid
from asr_kd.alignment.topology import equal_alignment
from asr_kd.alignment.transcripts import TranscribedFrames
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_SHIFT, frame_seconds
from asr_kd.frames.features import num_frames as frames_of_samples
from asr_kd.frames.source import ArrayFrames
from asr_kd.lang.lexicon import Lang

LANG = Lang(("SIL", "AA", "B", "K"), ("AB", "BK"), {"AB": ((1, 2),), "BK": ((2, 3), (2, 1, 3))})
PHONES = [("SIL", 0, 12), ("AA1_B", 12, 20), ("B_E", 20, 31), ("B_B", 31, 40), ("K_E", 40, 52), ("SIL", 52, 60)]
KALDI_NAMES = ["<eps>", "SIL", "AA1_B", "B_E", "B_B", "K_E", "#0"]


def write_kaldi(folder: Path, name: str = "u", numbers: list[int] | None = None, form: str = "ark") -> None:
    if numbers is None:
        numbers = [KALDI_NAMES.index(phone) for phone, start, end in PHONES for _ in range(start, end)]
    with kaldi_native_io.Int32VectorWriter(f"{form}:{folder}/phones.ark") as writer:
        writer.write("other", [1, 2])
        writer.write(name, numbers)
    (folder / "phones.txt").write_text("".join(f"{phone} {n}\n" for n, phone in enumerate(KALDI_NAMES)))


def write_grid(folder: Path) -> None:
    (folder / "speaker").mkdir()
    phones = [Interval(a / 100, b / 100, "" if name == "SIL" else name) for name, a, b in PHONES]
    write_textgrid(Times("u", 0.6, [], phones), folder / "speaker" / "u.TextGrid")


def write_ctm(folder: Path) -> None:
    lines = [f"u 1 {a / 100:.2f} {(b - a) / 100:.2f} {name}\n" for name, a, b in PHONES]
    (folder / "phones.ctm").write_text("".join(lines))
    (folder / "words.ctm").write_text("u 1 0.12 0.19 AB\n")


def write_numbered_ctm(folder: Path) -> None:
    """As ali-to-phones writes it without int2sym.pl; lines in any order."""
    lines = [f"u 1 {a / 100:.2f} {(b - a) / 100:.2f} {KALDI_NAMES.index(name)}\n" for name, a, b in PHONES]
    (folder / "ali.ctm.gz").write_bytes(gzip.compress("".join(lines[::-1]).encode()))
    (folder / "phones.txt").write_text("".join(f"{phone} {n}\n" for n, phone in enumerate(KALDI_NAMES)))


@pytest.mark.parametrize("write", [write_kaldi, write_grid, write_ctm, write_numbered_ctm])
def test_every_kind_of_file_gives_the_same_frames(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    labels = read_labels(tmp_path, {"u", "v"}, FRAME_SHIFT)
    assert labels.names[0] == "" and labels.spans.keys() == {"u"}
    spans = labels.spans["u"]
    assert [(labels.names[s["label"]] or "SIL", round(s["start"]), round(s["end"])) for s in spans] == PHONES
    assert len(label_files(tmp_path)) == len([path for path in tmp_path.rglob("*.*") if path.name != "words.ctm"])


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100])
@pytest.mark.parametrize("form", ["TextGrid", "ctm"])
def test_times_begin_in_the_frame_that_is_then_at_any_sampling_rate(tmp_path: Path, rate: int, form: str) -> None:
    """At 22,050 and 11,025 Hz frames are not 10 ms apart, and 30 s are seven frames more than 3,000."""
    phones = [Interval(0.0, 25.0, "B"), Interval(25.0, 25.1, "AA"), Interval(25.1, 30.0, "B")]
    if form == "ctm":
        (tmp_path / "phones.ctm").write_text(
            "".join(f"u 1 {i.start} {i.end - i.start:.4f} {i.label}\n" for i in phones)
        )
    else:
        write_textgrid(Times("u", 30.0, [], phones), tmp_path / "u.TextGrid")
    labels = read_labels(tmp_path, {"u"}, frame_seconds(rate))
    symbols = frame_symbols(labels.spans["u"], frames_of_samples(30 * rate, rate))
    assert symbols is not None, "labels of the whole recording have its length"
    inside = np.flatnonzero(symbols // 3 == labels.names.index("AA"))
    assert inside[0] == round(25.0 * rate / round(rate / 100))
    assert inside[-1] + 1 == round(25.1 * rate / round(rate / 100))


def test_kaldis_own_alignments_are_of_transitions_whatever_lies_beside_them(tmp_path: Path) -> None:
    write_kaldi(tmp_path, "u", [7, 7, 812])
    (tmp_path / "ali.1.gz").write_bytes(gzip.compress((tmp_path / "phones.ark").read_bytes()))
    (tmp_path / "phones.ark").unlink()
    labels = read_labels(tmp_path, {"u"}, FRAME_SHIFT)
    assert labels.names == ["", "7", "812"] and labels.spans["u"].tolist() == [(1, 0, 2), (2, 2, 3)]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "holds no TextGrid, .ctm, .ark or .scp file"),
        (lambda folder: (write_grid(folder), write_ctm(folder)), "holds TextGrids and CTM files; keep one kind"),
        (
            lambda folder: write_kaldi(folder, "w"),
            "labels of none of the training utterances .other and so on, but the",
        ),
        (lambda folder: write_kaldi(folder, "u", [1, 2, 9]), "u has the label 9, which .*phones.txt lacks; put the"),
        (
            lambda folder: (folder / "a.scp").write_text("u gone.ark:7\n"),
            "gone.ark is missing, but an .scp in .* names",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, prepare: Callable[[Path], object], message: str
) -> None:
    prepare(tmp_path)
    with pytest.raises(UserError, match=message):
        label_files(tmp_path)
        read_labels(tmp_path, {"u"}, FRAME_SHIFT)


def test_a_wrong_phones_txt_is_named(tmp_path: Path) -> None:
    write_kaldi(tmp_path)
    (tmp_path / "phones.txt").write_text("<eps> 0\nSIL\n")
    with pytest.raises(UserError, match=r"phones\.txt:2: expected PHONE NUMBER, found 'SIL'; correct the line"):
        read_labels(tmp_path, {"u"}, FRAME_SHIFT)
    with pytest.raises(UserError, match="gone: there is no such folder; name the one that holds the labels"):
        label_files(tmp_path / "gone")


def test_position_stress_and_case_do_not_count_where_the_phones_have_none() -> None:
    plain = {"SIL": 0, "AA": 1, "B": 2}
    assert [match_phone(label, plain) for label in ("AA", "AA1", "AA_B", "aa0_E", "B_S", "b")] == [1, 1, 1, 1, 2, 2]
    assert [match_phone(label, plain) for label in ("", "SIL_S", "sp", "<eps>", "h#", "pau")] == [0] * 6
    assert [match_phone(label, plain) for label in ("spn", "NSN", "ZH", "AA_X", "12")] == [-1] * 5
    full = {"SIL": 0, "AA0": 1, "AA1": 2, "AA1_B": 3, "a": 4, "A": 5}
    assert [match_phone(label, full) for label in ("AA0", "AA1_E", "AA1_B", "a", "A")] == [1, 2, 3, 4, 5]


def spans_of(*rows: tuple[int, float, float]) -> np.ndarray:
    return np.array(list(rows), SPAN)


@given(st.lists(st.integers(1, 9), min_size=3, max_size=9), st.sampled_from([1, 3]), st.data())
def test_frames_get_their_labels_at_10_ms_and_at_30_ms(lengths: list[int], factor: int, data: st.DataObject) -> None:
    """Lengths may differ by a little at the edges, as other toolkits count frames."""
    bounds = np.cumsum([0, *lengths])
    spans = spans_of(*((k + 1, a, b) for k, (a, b) in enumerate(itertools.pairwise(bounds))))
    missing = data.draw(st.sampled_from(range(-1, 4) if factor == 1 else range(-2, 4)))
    num_frames = int(factor * bounds[-1] + missing)
    if factor == 3 and abs(num_frames - bounds[-1]) <= 3:
        return  # so short that both would fit
    symbols = frame_symbols(spans, num_frames)
    assert symbols is not None and len(symbols) == num_frames
    labels, thirds = symbols // 3, symbols % 3
    assert (np.diff(labels) >= 0).all() and set(labels) <= set(range(1, len(lengths) + 1))
    assert (np.diff(symbols) >= 0).all()  # the thirds of a label are in order too
    for label, length in enumerate(lengths, 1):
        inside = (labels == label).sum()
        assert abs(inside - factor * length) <= 3, "only the edges give or take"
        if inside >= 3:
            assert set(thirds[labels == label]) == {0, 1, 2}


def test_labels_of_another_length_are_no_labels() -> None:
    whole = spans_of((1, 0, 40), (2, 40, 50))
    for num_frames, fits in ((46, False), (47, True), (50, True), (53, True), (54, False), (100, False), (150, True)):
        assert (frame_symbols(whole, num_frames) is not None) == fits, num_frames
    with_gaps = spans_of((1, 10, 20), (2, 30, 50))  # silence is left out, so only the end is known
    assert frame_symbols(with_gaps, 46) is None and frame_symbols(spans_of(), 20) is None
    symbols = frame_symbols(with_gaps, 90)
    assert symbols is not None
    assert (symbols // 3).tolist() == [0] * 10 + [1] * 10 + [0] * 10 + [2] * 20 + [0] * 40


def test_frames_within_the_recording_lie_one_frame_later() -> None:
    """Kaldi's (snip_edges) are two fewer than ours, which begin before and end after the recording."""
    symbols = frame_symbols(spans_of((1, 0, 10), (2, 10, 28)), 30)
    assert symbols is not None and (symbols // 3).tolist() == [1] * 11 + [2] * 19


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [(18, [1] * 9 + [2] * 9), (20, [1] * 9 + [2] * 11), (17, [1] * 8 + [2] * 9), (16, [1] * 8 + [2] * 8)],
)
def test_labels_of_chain_models_lie_around_the_frame_that_they_label(num_frames: int, expected: list[int]) -> None:
    """The first of three; where frames lie within the recording (20 are 18 of Kaldi's), that is our second."""
    symbols = frame_symbols(spans_of((1, 0, 3), (2, 3, 6)), num_frames)
    assert symbols is not None and (symbols // 3).tolist() == expected


WORDS = ["AB BK", "BK AB AB", "AB", "BK BK AB"]


class Speech:
    """Frames of random states; the words' first pronunciations, with silence around some of them."""

    def __init__(self, count: int = 60) -> None:
        rng = np.random.default_rng(5)
        self.states: list[np.ndarray] = []
        texts = []
        for number in range(count):
            text = WORDS[number % len(WORDS)]
            phones = [0]
            for word in text.split():
                phones += [*LANG.pronunciations[word][rng.integers(0, len(LANG.pronunciations[word]))]]
                phones += [0] * int(rng.integers(0, 2))
            states = [3 * phone + k for phone in phones for k in range(3)]
            self.states.append(np.repeat(states, rng.integers(1, 12, len(states))))
            texts.append(text)
        frames = ArrayFrames([rng.normal(size=(len(states), 2)) for states in self.states])
        self.data = TranscribedFrames(frames, texts, np.ones(count, bool), np.ones(count), LANG)
        self.graphs, _ = self.data.graphs(range(count))

    def labels(self, names: list[str], of_state: Callable[[int], int]) -> GivenLabels:
        """One label a run of states with the same label."""
        spans = {}
        for number, states in enumerate(self.states):
            labels = np.array([of_state(state) for state in states])
            starts = np.flatnonzero(np.diff(labels, prepend=-1))
            rows = zip(labels[starts], starts, [*starts[1:], len(labels)], strict=True)
            spans[str(number)] = spans_of(*rows)
        return GivenLabels(Path("labels"), names, spans)

    def agreement(self, paths: dict[int, np.ndarray]) -> float:
        """Share of the frames with their true phone."""
        pairs = [(self.graphs[u].phone[path // 3], self.states[u] // 3) for u, path in paths.items()]
        return float(np.mean(np.concatenate([ours == true for ours, true in pairs])))


def start(speech: Speech, labels: GivenLabels) -> LabelledStart:
    return label_paths(labels, speech.data, speech.graphs)


@pytest.fixture(scope="module")
def speech() -> Speech:
    return Speech()


def test_paths_follow_the_named_labels_with_their_silences_and_pronunciations(speech: Speech) -> None:
    actual = start(speech, speech.labels(["", "aa1", "B", "K_E"], lambda state: state // 3))
    assert len(actual.paths) == 60 and speech.agreement(actual.paths) > 0.97
    assert actual.notes == ["labels: labels of 60 of 60 utterances are where the flat start began"]


def test_pdfs_serve_without_a_model_as_their_states_are_learnt(speech: Speech) -> None:
    """Two pdfs for each of our states, in a random order, and nothing that says which is which."""
    number = np.random.default_rng(0).permutation(2 * 12)
    labels = speech.labels(["", *map(str, range(24))], lambda state: 1 + int(number[2 * state + 1]))
    actual = start(speech, labels)
    equal = {u: equal_alignment(graph, len(speech.states[u])) for u, graph in speech.graphs.items()}
    assert speech.agreement(equal) < 0.75 < 0.95 < speech.agreement(actual.paths)
    assert "what each label stands for was learnt from the transcripts" in actual.notes[2]


def test_what_cannot_be_used_is_counted_and_named(speech: Speech) -> None:
    labels = speech.labels(["", "AA", "ZH", "K"], lambda state: state // 3)
    spans = dict(labels.spans)
    del spans["7"], spans["8"]
    spans["3"] = spans["3"][:4]
    spans["2"] = spans_of((3, 0, len(speech.states[2])))  # its word has no K
    actual = start(speech, GivenLabels(labels.folder, labels.names, spans))
    assert actual.paths.keys() == set(range(60)) - {2, 3, 7, 8}
    assert actual.notes[0].startswith("labels: labels of 56 of 60 utterances")
    frames = sum((states // 3 == 2).sum() for u, states in enumerate(speech.states) if u not in (2, 3, 7, 8))
    assert actual.notes[1] == f"labels that are no phones here, with their frames: ZH ({frames})"
    last = " ".join(actual.notes[2:])
    for reason in ("2 utterances without labels: 7, 8", "1 utterances with labels of another length: 3 (", "words: 2"):
        assert reason in last
    with pytest.raises(UserError, match=r"none of its labels can be used \(60 utterances without labels: 0, 1"):
        start(speech, GivenLabels(labels.folder, labels.names, {}))
