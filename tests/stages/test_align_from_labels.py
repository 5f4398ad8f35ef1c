"""`alignment: {labels: from}`: the stage begins with another aligner's labels, which count by their content."""

from __future__ import annotations

from pathlib import Path

import kaldi_native_io
import numpy as np
import pytest

from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import from_mapping
from asr_kd.workspace.work import Workspace

from .test_align import PHONES, Gaussians, Never, align, changed, make_work

POSITIONS = "BIES"


def from_labels(directory: str = "labels") -> Config:
    return changed(labels="from", dir=directory, rounds=1)


def write_phones(work: Workspace, truth: np.ndarray, subsampling: int = 1) -> list[str]:
    """The true phones as Kaldi has them: with positions in the word, fewer frames, and none of two utterances."""
    folder = work.root / "labels"
    folder.mkdir(exist_ok=True)
    names = ["<eps>", *(f"{phone}_{position}" for phone in PHONES for position in POSITIONS)]
    (folder / "phones.txt").write_text("".join(f"{name} {number}\n" for number, name in enumerate(names)))
    store = FrameStore.open(work.frames("train"))
    with kaldi_native_io.Int32VectorWriter(f"ark:{folder}/phones.ark") as writer:
        for utterance, name in enumerate(store.ids[2:], 2):
            phones = truth[store.span(utterance)] // 3
            phones = phones[1:-1] if subsampling == 1 else phones[::subsampling]
            writer.write(name, (1 + len(POSITIONS) * phones + utterance % len(POSITIONS)).tolist())
    return store.ids[:2]


class Recording(Gaussians):
    """Keeps what the first round is trained on."""

    first: tuple[np.ndarray, np.ndarray]

    def fit(self, frames: np.ndarray, states: np.ndarray) -> None:
        type(self).first = (frames, states)
        super().fit(frames, states)


def first_agreement(truth: np.ndarray) -> float:
    """Share of the frames that the first round was trained on with their true phone."""
    frames, states = Recording.first
    return float((states // 3 == truth[frames] // 3).mean())


@pytest.mark.parametrize("subsampling", [1, 3])
def test_the_first_round_is_trained_on_the_labels(tmp_path: Path, subsampling: int) -> None:
    work, truth = make_work(tmp_path)
    without = write_phones(work, truth["train"], subsampling)
    align(changed(rounds=1), work, Recording)
    equal = first_agreement(truth["train"])
    result = align(from_labels(), work, Recording)
    assert equal < 0.87 < 0.93 < first_agreement(truth["train"])
    assert result.notes[0] == f"{tmp_path}/labels: labels of 38 of 40 utterances are where the flat start began"
    assert result.notes[1] == f"began with an equal alignment: 2 utterances without labels: {', '.join(without)}"
    assert result.notes[1] in str(result)
    again = align(from_labels(), work, Never)
    assert not again.ran and again.notes == result.notes


def test_labels_count_by_their_content_not_by_their_place(tmp_path: Path) -> None:
    work, truth = make_work(tmp_path)
    write_phones(work, truth["train"])
    align(from_labels(), work)
    (tmp_path / "labels").rename(tmp_path / "elsewhere")
    assert not align(from_labels("elsewhere"), work, Never).ran
    with (tmp_path / "elsewhere" / "phones.txt").open("a") as file:
        file.write("#0 99\n")
    assert align(from_labels("elsewhere"), work).ran
    with pytest.raises(UserError, match="labels: there is no such folder; name the one that holds the labels"):
        align(from_labels(), work)


@pytest.mark.parametrize("alignment", [{"labels": "from"}, {"dir": "labels"}, {"labels": "words", "dir": "labels"}])
def test_the_folder_and_labels_from_need_each_other(alignment: dict[str, str]) -> None:
    with pytest.raises(
        UserError, match=r"my.yaml: .*labels: from and dir, the folder of these labels, need each other"
    ):
        from_mapping(Config, {"alignment": alignment}, "my.yaml")
