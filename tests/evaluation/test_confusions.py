"""Confusions add up to the phones of both sides, and are drawn with similar sounds side by side."""

from hypothesis import given
from hypothesis import strategies as st

from asr_kd.evaluation.wer import align_words, confusion_matrix, confusions, count_errors, most_confused, pooled
from asr_kd.report import plots

sequences = st.lists(st.sampled_from(["SIL", "IH", "IY", "B", "FOO"]), max_size=8)


@given(st.lists(st.tuples(sequences, sequences), min_size=1, max_size=5))
def test_rows_add_up_to_what_was_said_and_errors_to_those_counted(pairs: list[tuple[list[str], list[str]]]) -> None:
    alignments = [align_words(said, heard) for said, heard in pairs]
    phones, table = confusion_matrix(confusions([alignments[:2], alignments[2:]]))
    for k, phone in enumerate(phones):
        assert table[k].sum() == sum(said.count(phone) for said, _ in pairs)
        assert table[:, k].sum() == sum(heard.count(phone) for _, heard in pairs)
    counts = pooled(map(count_errors, alignments))
    assert table[-1].sum() == counts.insertions and table[:, -1].sum() == counts.deletions
    assert table.sum() - table.trace() == counts.errors


def test_like_sounds_are_neighbours_and_the_most_frequent_come_first() -> None:
    one = [("SIL", "SIL"), ("IH", "IY"), ("IH", "IY"), ("B", None), (None, "B"), ("ZZ", "IH"), ("IY", "IY")]
    counts = confusions([[one], [one[:2]]])
    assert confusion_matrix(counts)[0] == ["IY", "IH", "B", "SIL", "ZZ"]
    assert most_confused(counts, 5) == [("IH", "IY", 3), ("ZZ", "IH", 1)]


def test_the_figure_names_every_phone() -> None:
    counts = confusions([[[("IH", "IY"), ("B", "B"), (None, "IY"), ("B", None)]]])
    svg = plots.confusions(counts)
    for name in ("ih", "iy", "b", "deleted", "inserted"):
        assert f">{name}</text>" in svg
    assert plots.confusions(counts) == svg
