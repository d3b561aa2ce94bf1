"""Files of records: formats, encodings, and messages that name the place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation import load_beir, load_corpus, load_qrels, load_run
from tests.unit.evaluation.conftest import CORPUS, Write, WriteBeir


def test_line_numbers_count_blank_lines(write: Write, write_beir: WriteBeir) -> None:
    """The number in an error is the one that an editor shows, with blank lines counted."""
    with pytest.raises(InvalidInputError, match=r"corpus\.jsonl, line 4: "):
        load_beir(write_beir(corpus='{"_id": "d1", "text": "a"}\n\n \n{broken\n'))
    with pytest.raises(InvalidInputError, match=r"lines\.tsv, line 3: "):
        load_qrels(write("query-id\tcorpus-id\tscore\n\nq1 d1 1\n"))
    with pytest.raises(InvalidInputError, match=r"lines\.tsv, line 3: "):
        load_run(write("q1\td1\t1\n\nq1 d1 1\n"))


@pytest.mark.parametrize("read", [load_qrels, load_run])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, read: Any) -> None:
    """A missing file, and a folder in its place, are input errors."""
    for path in (tmp_path / "missing.tsv", tmp_path):
        with pytest.raises(InvalidInputError, match="there is no file"):
            read(path)


@pytest.mark.parametrize("name", ["corpus.json", "corpus.jsonl", "corpus.jsonl.gz", "corpus.parquet", "corpus.csv"])
def test_every_format_holds_the_same_documents(tmp_path: Path, name: str) -> None:
    """A list in one JSON file, lines of JSON, gzipped ones, Parquet and CSV are read alike."""
    rows = [{key: row.get(key, "") for key in ("_id", "title", "text")} for row in CORPUS]
    file = tmp_path / name
    if name.endswith(".parquet"):
        pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
        parquet = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    elif name.endswith(".csv"):
        cells = [",".join(f'"{value}"' for value in row.values()) for row in rows]
        file.write_text("\n".join(["_id,title,text", *cells]), encoding="utf-8")
    elif name == "corpus.json":
        file.write_text(json.dumps(rows, indent=1))
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    found = load_corpus(file)
    assert [(document.id, document.page_content) for document in found] == [
        ("d1", "LoRA\nLow-rank adaptation."),
        ("d2", "A ferry leaves at nine."),
        ("d3", "Straße, 東京, 🙂"),
        ("d4", "Only a title"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("x.parquet", b"not parquet", "is not a Parquet file"),
        ("x.jsonl.gz", b"not gzip", "is not a whole gzip file"),
        ("x.jsonl.gz", gzip.compress(b'{"_id": "a", "text": "b"}\n')[:-9], "is not a whole gzip file"),
        ("x.csv", b'id,text\n1,"open\n', "not CSV"),
        ("x.json", b'"text"', "is not a list of objects|is not an object"),
        ("x.jsonl", b"\xff\xfe\x00", "x.jsonl"),
    ],
    ids=["parquet", "gzip", "cut gzip", "open quote", "a string", "half a character"],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    """Whatever a file holds, the error is ours and names it."""
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="needs the parquet extra")
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InvalidInputError, match=complaint):
        load_corpus(file)


def test_a_row_of_another_length_than_the_header_is_named(write: Write) -> None:
    """A line with a column too many or too few is not guessed at."""
    with pytest.raises(
        InvalidInputError, match=r"lines\.tsv, line 3: 'q1\\td2' is not .*: it has 2 columns, but the header has 3"
    ):
        load_qrels(write("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\n"))
