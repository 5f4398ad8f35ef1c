"""dev and test are drawn from training: whole speakers, by the seed, and never so many that none is left."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.corpora.audio import Audio
from asr_kd.corpora.held_out import draw, drawn_sets
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance
from asr_kd.corpora.settings import FolderConfig, HeldOut
from asr_kd.errors import UserError
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import from_mapping

ROOT = Path("speech")
TENTH = HeldOut(share=0.1)


def listing(*speakers: str, known: bool = True) -> CorpusManifest:
    """An utterance for each name; a speaker has as many as there are of the name."""
    ids = [f"u{k}" for k in range(len(speakers))]
    rows = zip(ids, speakers if known else ids)
    return CorpusManifest([Utterance(u, Audio(ROOT / u), "text", speaker, "train") for u, speaker in rows], [])


def sets(manifest: CorpusManifest) -> dict[str, set[str]]:
    return {name: {u.speaker for u in manifest.utterances if u.set == name} for name in ("train", "dev", "test")}


@settings(max_examples=50)
@given(
    speakers=st.lists(st.sampled_from("abcdefgh"), min_size=3).filter(lambda names: len(set(names)) > 2),
    share=st.floats(0.01, 0.4),
    seed=st.integers(0, 99),
)
def test_no_speaker_of_a_drawn_set_is_in_training_and_no_utterance_is_lost(speakers, share, seed) -> None:
    before = listing(*speakers)
    try:
        after = draw(before, {"test": HeldOut(share=share), "dev": HeldOut(speakers=1)}, seed, ROOT)
    except UserError as error:  # a share may take the last but one
        assert "leave none" in str(error)
        return
    of_set = sets(after)
    assert all(of_set.values())
    assert not of_set["train"] & of_set["dev"] and not (of_set["train"] | of_set["dev"]) & of_set["test"]
    assert [u.id for u in after.utterances] == [u.id for u in before.utterances]


def test_the_seed_draws() -> None:
    speech = listing(*"abcdefghij" * 3)
    drawn = [
        tuple(sorted(sets(draw(speech, {"dev": HeldOut(speakers=3)}, seed, ROOT))["dev"])) for seed in (1, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1
    assert all(len(speakers) == 3 for speakers in drawn)


def test_a_share_is_that_of_the_utterances_whatever_the_speakers_have() -> None:
    speech = listing(*(f"s{k}" for k in range(40) for _ in range(k + 1)))  # 820 utterances
    for seed in range(5):
        counts = Counter(u.set for u in draw(speech, {"test": TENTH, "dev": HeldOut(share=0.2)}, seed, ROOT).utterances)
        assert counts["test"] == pytest.approx(82, abs=20) and counts["dev"] == pytest.approx(164, abs=20)


def test_where_speakers_are_not_known_utterances_are_drawn() -> None:
    after = draw(listing(*"a" * 50, known=False), {"dev": TENTH}, 1, ROOT)
    assert Counter(u.set for u in after.utterances) == {"train": 45, "dev": 5}
    assert after.notes == ["dev: 5 of 50 utterances were drawn from training"]


def test_what_was_drawn_is_noted_with_its_speakers() -> None:
    after = draw(listing(*"aabbcc"), {"dev": HeldOut(speakers=1)}, 1, ROOT)
    (speaker,) = sets(after)["dev"]
    assert after.notes == [f"dev: 2 of 6 utterances were drawn from training, all those of 1 of 3 speakers ({speaker})"]


def test_few_speakers_give_more_than_is_asked_for_which_is_said() -> None:
    after = draw(listing(*(f"s{k}" for k in range(4) for _ in range(6))), {"dev": TENTH}, 1, ROOT)
    (speaker,) = sets(after)["dev"]
    assert after.notes == [
        f"dev: 6 of 24 utterances were drawn from training, all those of 1 of 4 speakers ({speaker}); they are 25%, "
        "where 10% is asked for: speakers stay whole"
    ]


def test_one_speaker_is_shared_by_the_sets_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    after = draw(listing(*"a" * 20), {"test": TENTH, "dev": TENTH}, 1, ROOT)
    assert Counter(u.set for u in after.utterances) == {"train": 16, "dev": 2, "test": 2}
    assert "too few speakers (1); utterances are drawn for test and dev" in caplog.text


@pytest.mark.parametrize(
    ("speakers", "known", "held_out", "says"),
    [
        ("ab", True, {"dev": HeldOut(speakers=2)}, "corpus.dev would leave none of 2 speakers to train on"),
        (
            "ab",
            True,
            {"test": HeldOut(speakers=1), "dev": HeldOut(speakers=1)},
            "corpus.test and corpus.dev would leave",
        ),
        ("ab", False, {"dev": HeldOut(speakers=1)}, r"corpus\.dev\.speakers: speakers are not known here"),
    ],
)
def test_what_cannot_be_drawn(speakers: str, known: bool, held_out: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        draw(listing(*speakers, known=known), held_out, 1, ROOT)


def test_where_nothing_can_be_used_the_listing_says_why() -> None:
    assert draw(listing(), {"dev": TENTH}, 1, ROOT) == listing()


def request(root: Path, parts: dict) -> ReadRequest:
    return ReadRequest(root, root, FolderConfig(dev=TENTH), parts)


def test_a_set_that_is_drawn_has_no_parts(tmp_path: Path) -> None:
    default = {"train": ("train",), "dev": ("dev",), "test": ("test",)}
    assert drawn_sets(request(tmp_path, default)) == {"dev": TENTH}  # the config's default; the folder is not there
    (tmp_path / "dev").mkdir()
    with pytest.raises(UserError, match=r"sets\.dev names dev in .*; write sets\.dev: \[\], or leave out corpus\.dev"):
        drawn_sets(request(tmp_path, default))
    assert drawn_sets(request(tmp_path, default | {"dev": ()})) == {"dev": TENTH}
    with pytest.raises(UserError, match=r"sets\.dev names other"):
        drawn_sets(request(tmp_path, default | {"dev": ("other",)}))
    with pytest.raises(UserError, match=r"there is none under sets:; add dev: \[\]"):
        drawn_sets(request(tmp_path, {"train": ("train",)}))
    assert drawn_sets(request(tmp_path, {"new": ("dev",)})) == {}  # asr-kd prepare --add-set


@pytest.mark.parametrize("held_out", [{}, {"speakers": 2, "share": 0.1}, {"speakers": 0}])
def test_a_set_takes_speakers_or_a_share(held_out: dict) -> None:
    with pytest.raises(UserError, match=r"corpus\.dev: give speakers or share, one of the two"):
        from_mapping(Config, {"corpus": {"name": "folder", "dev": held_out}}, "c.yaml")
