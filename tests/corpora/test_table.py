"""Tables of recordings: Common Voice as it ships, columns of other names, quotes, and rows that cannot be used."""

import csv
import gzip
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.corpora import table
from asr_kd.corpora.listing import CorpusManifest, ReadRequest
from asr_kd.corpora.settings import TableConfig
from asr_kd.errors import UserError

COMMON_VOICE = (
    "client_id\tpath\tsentence\tup_votes\n"
    "f0a1\tcommon_voice_uk_1.mp3\tДобрий \"день\", світе!\t2\n"
    "f0a1\tcommon_voice_uk_2.mp3\t\"Так.\t2\n"
    "\n"
    "93bc\tcommon_voice_uk_3.mp3\tНі.\t2\n"
)  # fmt: skip
OWN = TableConfig(audio="file", text="words", speaker="", clips="")


def corpus(root: Path, name: str, text: str, clips: str = "clips") -> Path:
    (root / clips).mkdir(exist_ok=True)
    (root / name).write_text(text, encoding="utf-8", newline="")
    return root


def read(root: Path, *tables: str, settings: TableConfig | None = None) -> CorpusManifest:
    settings = settings or TableConfig()
    return table.read(ReadRequest(root, root, settings, {"train": tables or ("train.tsv",)}))


def test_common_voice_is_read_as_it_ships(tmp_path: Path) -> None:
    listing = read(corpus(tmp_path, "train.tsv", COMMON_VOICE))
    assert not listing.problems
    assert [(u.id, u.speaker, u.text) for u in listing.utterances] == [
        ("common_voice_uk_1", "f0a1", 'Добрий "день", світе!'),
        ("common_voice_uk_2", "f0a1", '"Так.'),  # tables with tabs have no quotes
        ("common_voice_uk_3", "93bc", "Ні."),
    ]
    assert listing.utterances[0].audio.source == tmp_path / "clips" / "common_voice_uk_1.mp3"
    assert listing.transcripts == [tmp_path / "train.tsv"]


def test_columns_delimiter_and_folder_may_be_others(tmp_path: Path) -> None:
    settings = TableConfig(
        audio="Datei", text="Text", speaker="", id="Nr", clips="", delimiter=";"
    )  # as a German spreadsheet saves it
    text = '\ufeffNr;Text;Datei\r\n7;Ja, gut.;wav/eins.flac\r\n;;\r\n8;"Er sagte: ""Nein; nie""";wav/zwei.flac\r\n'
    listing = read(corpus(tmp_path, "train.csv", text, ""), "train.csv", settings=settings)
    assert not listing.problems
    assert [(u.id, u.speaker, u.text, u.audio.source.name) for u in listing.utterances] == [
        ("7", "7", "Ja, gut.", "eins.flac"),
        ("8", "8", 'Er sagte: "Nein; nie"', "zwei.flac"),
    ]


cells = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('",;\n'), min_size=1).filter(
    lambda cell: cell.strip() == cell
)


@settings(max_examples=25)
@given(rows=st.lists(cells, min_size=1))
def test_whatever_csv_writes_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[str]) -> None:
    path = tmp_path_factory.mktemp("csv") / "train.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "words"])
        writer.writerows([f"{k}.wav", cell] for k, cell in enumerate(rows))
    listing = read(path.parent, path.name, settings=OWN)
    assert [u.text for u in listing.utterances] == rows and not listing.problems


def test_ids_of_recordings_in_folders_have_no_slash_and_no_white_space(tmp_path: Path) -> None:
    listing = read(corpus(tmp_path, "train.csv", "file,words\nanna/take 1.wav,yes\n"), "train.csv", settings=OWN)
    assert [u.id for u in listing.utterances] == ["anna-take_1"]


def test_a_recording_is_found_in_either_form_of_unicode(tmp_path: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD"))
    corpus(tmp_path, "train.csv", f"file,words\n{nfc},yes\n")
    (tmp_path / nfd).touch()
    (utterance,) = read(tmp_path, "train.csv", settings=OWN).utterances
    assert utterance.audio.source.exists() and utterance.id == unicodedata.normalize("NFC", "é")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a.wav", "it has not as many cells as the first row"),
        ("a.wav,yes,no", "it has not as many cells as the first row"),
        ("a.wav, ", "the cell 'words' is empty"),
        (",yes", "the cell 'file' is empty"),
        ("x.wav,yes", r"utterance x is in .*train\.csv:2 too"),
        ("/,yes", "'' cannot be an utterance's id: .* slash"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, row: str, says: str) -> None:
    text = f'file,words\nx.wav,"one\ntwo"\n{row}\nz.wav,last\n'
    listing = read(corpus(tmp_path, "train.csv", text), "train.csv", settings=OWN)
    assert [u.id for u in listing.utterances] == ["x", "z"]
    (problem,) = listing.problems
    assert problem.utterance == f"{tmp_path / 'train.csv'}:4" and problem.set == "train"
    assert re.match(rf"{says}; correct the row, or delete it$", problem.reason)


def test_an_id_of_its_own_column_must_be_one_word(tmp_path: Path) -> None:
    settings = TableConfig(audio="file", text="words", speaker="", id="id", clips="")
    corpus(tmp_path, "train.csv", "file,words,id\na.wav,yes,no good\nb.wav,yes,a/b\n")
    problems = [problem.reason for problem in read(tmp_path, "train.csv", settings=settings).problems]
    assert ["'no good' cannot be" in problems[0], "'a/b' cannot be" in problems[1]] == [True, True]


def test_a_recording_in_two_tables_is_in_the_first(tmp_path: Path) -> None:
    corpus(tmp_path, "train.tsv", COMMON_VOICE)
    corpus(tmp_path, "more.tsv", COMMON_VOICE)
    listing = read(tmp_path, "train.tsv", "more.tsv")
    assert len(listing.utterances) == 3 and len(listing.problems) == 3
    assert f"is in {tmp_path / 'train.tsv'}:2 too" in listing.problems[0].reason


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"train\.tsv:1: there is no column 'path', only nothing; name yours with corpus\.audio"),
        ("path;sentence\n", r"only path;sentence; .*corpus\.delimiter"),
        ("path\tsentence\n", r"no column 'client_id', .* with corpus\.speaker \('' where there is none\)"),
        ("path\tpath\tsentence\tclient_id\n", r"train\.tsv:1: there are two columns 'path'"),
        ("path\tsentence\tclient_id\na\x00\tb\tc\n", r"train\.tsv:2: the row that begins here cannot be read \(.*NUL"),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read(corpus(tmp_path, "train.tsv", text))


def test_a_quote_that_is_not_closed_is_named_by_its_row(tmp_path: Path) -> None:
    corpus(tmp_path, "train.csv", 'file,words\nx.wav,one\ny.wav,"two\nz.wav,three\n')
    with pytest.raises(UserError, match=r"train\.csv:3: the row that begins here cannot be read .*close its quotes"):
        read(tmp_path, "train.csv", settings=OWN)


def test_the_table_and_the_folder_of_recordings_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"clips: there is no such folder; .*corpus\.clips"):
        read(tmp_path)
    (tmp_path / "clips").mkdir()
    with pytest.raises(UserError, match=r"train\.tsv: the table cannot be read: No such file .*name UTF-8 tables"):
        read(tmp_path)
    (tmp_path / "train.tsv").write_bytes(COMMON_VOICE.encode("utf-16"))
    with pytest.raises(UserError, match=r"train\.tsv: the table cannot be read: it is not UTF-8 text"):
        read(tmp_path)


def test_the_table_of_a_set_without_transcripts_needs_no_column_of_them(tmp_path: Path) -> None:
    root = corpus(tmp_path, "more.tsv", "client_id\tpath\nf0a1\ta.mp3\n93bc\tb.mp3\n")
    request = ReadRequest(root, root, TableConfig(), {"more": ("more.tsv",)}, untranscribed=frozenset({"more"}))
    listing = table.read(request)
    assert not listing.problems
    assert [(u.id, u.text, u.speaker) for u in listing.utterances] == [("a", "", "f0a1"), ("b", "", "93bc")]
