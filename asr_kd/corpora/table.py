"""Your own recordings in tables, a row for each, such as Common Voice's train.tsv; a set's parts are tables.

The first row names the columns; `corpus.audio`, `corpus.text` and `corpus.speaker` say which of them count. In tables
with commas a cell may stand in double quotes, as RFC 4180 has it, and may then hold commas and line ends. In tables
with tabs a quote is a character like any other, as it is in Common Voice's. The tables of sets without transcripts need
no column of them.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from asr_kd.corpora.audio import Audio
from asr_kd.corpora.held_out import draw, drawn_sets, parts_to_read
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance, utterance_id
from asr_kd.corpora.settings import TableConfig
from asr_kd.errors import UserError, some_of
from asr_kd.io.files import open_text

Row = dict[str, str]  # "audio", "text" and, where the config names such columns, "speaker" and "id" -> the cell


def read(request: ReadRequest[TableConfig]) -> CorpusManifest:
    """Lists the utterances of all tables in the order of their rows, then draws sets from training.

    Raises:
      UserError: a table or the folder of recordings is missing, a table lacks a column, or its quotes are not closed.
    """
    settings, drawn = request.settings, drawn_sets(request)
    clips = request.root / settings.clips
    if not clips.is_dir():
        raise UserError(f"{clips}: there is no such folder; name the folder of the recordings with corpus.clips.")
    named = {key: getattr(settings, key) for key in ("audio", "text", "speaker", "id")}
    columns = {key: column for key, column in named.items() if column}
    listing = CorpusManifest([], [])
    places: dict[str, str] = {}  # utterance -> its table and line
    for name, part in parts_to_read(request, drawn):
        table = request.root / part
        listing.transcripts.append(table)
        needed = {key: columns[key] for key in columns if key != "text" or name not in request.untranscribed}
        for line, row in read_rows(table, needed, settings.delimiter):
            where = f"{table}:{line}"
            utterance = row.get("id") or utterance_id(Path(row.get("audio", "")))
            if reason := _problem(utterance, row, needed, places):
                listing.refuse(where, name, f"{reason}; correct the row, or delete it")
                continue
            places[utterance] = where
            speaker = row.get("speaker", utterance)
            audio = Audio(_recording(clips, row["audio"]))
            listing.utterances.append(Utterance(utterance, audio, row.get("text", ""), speaker, name))
    return draw(listing, drawn, request.seed, request.root)


def read_rows(path: Path, columns: Mapping[str, str], delimiter: str = "") -> Iterator[tuple[int, Row]]:
    """Each row but the first, and blank ones, with the line on which it begins; {} where its cells are too few or many.

    Args:
      columns: key of the row that is yielded -> name of the column that holds it.
      delimiter: between cells; "": a comma where the file's name says .csv, else a tab.

    Raises:
      UserError: the file cannot be read, a column is missing or there twice, or a quote is not closed.
    """
    delimiter = delimiter or ("," if ".csv" in path.suffixes else "\t")
    with open_text(path, "the table", "name UTF-8 tables under sets:") as file:
        quotes_count = delimiter != "\t"
        rows = csv.reader(
            file,
            delimiter=delimiter,
            quoting=csv.QUOTE_MINIMAL if quotes_count else csv.QUOTE_NONE,
            strict=True,
        )
        line = 1
        try:
            header = [cell.strip() for cell in next(rows, [])]
            _check_header(path, header, columns)
            line = rows.line_num + 1
            for cells in rows:
                if any("\0" in cell for cell in cells):
                    raise csv.Error("line contains NUL")  # as Python before 3.11 does
                values = dict(zip(header, (cell.strip() for cell in cells)))
                if any(values.values()):
                    fits = len(cells) == len(header)
                    yield line, {key: values[column] for key, column in columns.items()} if fits else {}
                line = rows.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{path}:{line}: the row that begins here cannot be read ({error}); close its quotes, and double those "
                "inside a cell."
            ) from None


def _check_header(path: Path, header: list[str], columns: Mapping[str, str]) -> None:
    for key, column in columns.items():
        if column not in header:
            optional = " ('' where there is none)" if key == "speaker" else ""
            raise UserError(
                f"{path}:1: there is no column {column!r}, only {some_of(header, 12) or 'nothing'}; name yours with "
                f"corpus.{key}{optional}, and what stands between cells with corpus.delimiter."
            )
        if header.count(column) > 1:
            raise UserError(f"{path}:1: there are two columns {column!r}; rename one of them.")


def _problem(utterance: str, row: Row, columns: Mapping[str, str], places: Mapping[str, str]) -> str:
    """Why a row cannot be used; "": it can."""
    if not row:
        return "it has not as many cells as the first row"
    if empty := [columns[key] for key, cell in row.items() if not cell]:
        return f"the cell {empty[0]!r} is empty"
    if not utterance or len(utterance.split()) > 1 or "/" in utterance:
        return f"{utterance!r} cannot be an utterance's id: it is empty, or has white space or a slash"
    if utterance in places:
        return f"utterance {utterance} is in {places[utterance]} too"
    return ""


def _recording(clips: Path, name: str) -> Path:
    """The file of that name, in whichever form of Unicode a file system gave it."""
    forms = [clips / name, *(clips / unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
    return next((path for path in forms if path.exists()), forms[0])
