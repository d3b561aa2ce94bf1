"""Files of records: formats, encodings, and messages that name the place."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation import load_beir, load_collection, load_corpus, load_qrels, load_queries, load_run
from langchain_crossrerank.evaluation.records import read_header, read_records
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


def damaged_gzip() -> bytes:
    """A gzip file whose compressed data is wrong: its first block has a type that does not exist."""
    packed = bytearray(gzip.compress(b'{"_id": "a", "text": "b"}\n'))
    packed[10] |= 0b110
    return bytes(packed)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    """Wrong compressed data is an input error, whichever function reads the file."""
    with pytest.raises(zlib.error):
        gzip.decompress(damaged_gzip())
    for name, read in (("x.jsonl.gz", load_corpus), ("x.json.gz", load_collection)):
        (tmp_path / name).write_bytes(damaged_gzip())
        with pytest.raises(InvalidInputError, match=rf"{name} is not a whole gzip file .*copy it again"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["corpus.json", "corpus.jsonl"])
@pytest.mark.parametrize("character", ["\u2028", "\u0085"])
def test_only_a_line_feed_ends_a_line_of_json(write: Write, name: str, character: str) -> None:
    """Separators of lines and paragraphs may be in a text, also where JSON Lines are named `.json`."""
    rows = [{"_id": key, "text": f"one{character}two"} for key in "ab"]
    file = write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), name)
    assert [document.page_content for document in load_corpus(file)] == [f"one{character}two"] * 2


def test_one_line_of_json_is_one_record(write: Write) -> None:
    """JSON Lines named `.json` with a single line are not read as documents `_id`, `title` and `text`."""
    file = write({"_id": "d1", "title": "Ferries", "text": "One leaves at nine."}, "corpus.json")
    assert [(document.id, document.page_content) for document in load_corpus(file)] == [
        ("d1", "Ferries\nOne leaves at nine.")
    ]
    assert load_qrels(write({"query-id": "q1", "corpus-id": "d1", "score": 1}, "qrels.json")) == {"q1": {"d1": 1}}
    assert load_queries(write({"1": "When?", "2": "Why?"}, "queries.json")) == {"1": "When?", "2": "Why?"}


def test_a_bad_entry_of_a_list_is_named(write: Write) -> None:
    """The error says which entry of the list it is, and not line 1."""
    with pytest.raises(InvalidInputError, match=r"corpus\.json, entry 2: .*is not an object with an _id"):
        load_corpus(write([{"_id": "d1", "text": "a"}, "text"], "corpus.json"))


def test_a_byte_order_mark_between_joined_files_is_no_part_of_an_id(write: Write) -> None:
    """Windows files that were joined have a mark in the middle."""
    assert load_qrels(write("\ufeffq1\td1\t1\n\ufeffq1\td2\t1\n")) == {"q1": {"d1": 1, "d2": 1}}


@pytest.mark.parametrize(
    ("cell", "metadata"),
    [("", {}), ("{}", {}), ('{"page": 3}', {"page": 3}), ("{'page': 3}", {"page": 3})],
    ids=["empty", "no keys", "JSON", "Python"],
)
def test_metadata_in_a_table_is_read(write: Write, cell: str, metadata: dict[str, int]) -> None:
    """A table with BEIR's columns has its metadata as text."""
    (document,) = load_corpus(write(f"_id\ttitle\ttext\tmetadata\nd1\tT\tone\t{cell}\n", "corpus.tsv"))
    assert document.metadata == metadata


@pytest.mark.parametrize("grade", [10**400, float("inf")])
def test_a_grade_that_no_float_holds_is_refused(write: Write, grade: float) -> None:
    """A grade of 400 digits is an input error that names its place."""
    with pytest.raises(InvalidInputError, match=r"qrels\.json, key 'q': .*is not a whole number"):
        load_qrels(write({"q": {"d": grade}}, "qrels.json"))


@pytest.mark.parametrize("name", ["rows.tsv", "rows.csv"])
def test_a_header_may_begin_with_any_column(write: Write, name: str) -> None:
    """Ids may be the last column, and an exported table begins with its index."""

    def table(*rows: str) -> Path:
        return write("".join(f"{row}\n".replace("|", "," if name.endswith("csv") else "\t") for row in rows), name)

    for rows in (("text|docid", "One|d1"), ("|text|id", "0|One|d1"), ("url|title|contents|pid", "x||One|d1")):
        assert [(document.id, document.page_content) for document in load_corpus(table(*rows))] == [("d1", "One")]
    assert load_queries(table("question|qid", "When?|q1")) == {"q1": "When?"}


@pytest.mark.parametrize("name", ["rows.tsv", "rows.csv"])
def test_a_first_row_with_one_known_word_is_no_header(write: Write, name: str) -> None:
    """A text or an id may be the name of a column."""
    mark = "," if name.endswith("csv") else "\t"
    assert load_queries(write(f"q1{mark}topic\nq2{mark}When?\n", name)) == {"q1": "topic", "q2": "When?"}
    assert len(load_corpus(write(f"d1{mark}Document\nd2{mark}Two\n", name))) == 2
    assert load_qrels(write(f"q1{mark}document{mark}1\n", name)) == {"q1": {"document": 1}}


def test_a_row_of_another_length_than_the_header_is_named(write: Write) -> None:
    """A line with a column too many or too few is not guessed at."""
    with pytest.raises(
        InvalidInputError, match=r"lines\.tsv, line 3: 'q1\\td2' is not .*: it has 2 columns, but the header has 3"
    ):
        load_qrels(write("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\n"))


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.csv", "corpus.tsv"])
def test_bytes_that_are_not_utf8_are_found_by_their_line(tmp_path: Path, name: str) -> None:
    """A file with one bad byte is refused with the number of its line, in every text format."""
    mark = {"corpus.csv": b",", "corpus.tsv": b"\t"}.get(name)
    rows = [b'{"_id": "%d", "text": "%s"}' if mark is None else b"%d" + mark + b"%s"] * 3
    lines = [
        row % (number, text) for number, (row, text) in enumerate(zip(rows, (b"a", b"caf\xe9", b"b"), strict=True))
    ]
    file = tmp_path / name
    file.write_bytes(b"\n".join([*([] if mark is None else [b"id" + mark + b"text"]), *lines]))
    with pytest.raises(InvalidInputError, match=rf"corpus\.\w+, line {2 + (mark is not None)}: byte 0xe9"):
        load_corpus(file)


def test_a_csv_row_over_several_lines_is_named_by_its_first(write: Write) -> None:
    """A row with line ends in a cell, and a quote that is never closed, are found where they begin."""
    rows = 'id,text\n1,"one\ntwo"\n2,b,c\n'
    with pytest.raises(InvalidInputError, match=r"lines\.csv, line 4: "):
        load_corpus(write(rows, "lines.csv"))
    with pytest.raises(InvalidInputError, match=r"open\.csv, line 2: not CSV"):
        load_corpus(write('id,text\n1,"one\ntwo\nthree\n', "open.csv"))


def test_a_tolerant_reader_goes_on_after_a_malformed_line(write: Write) -> None:
    """Malformed lines become records with a problem, in their place among the others."""
    lines = write('{"a": 1}\n{broken\n[1]\n{"a": 2}\n', "rows.jsonl")
    records = list(read_records(lines, header_keys=frozenset(), tolerant=True))
    assert [record.fields for record in records] == [{"a": 1}, {}, {}, {"a": 2}]
    assert [str(record.problem).partition(": ")[0] for record in records if record.problem] == [
        f"{lines}, line 2",
        f"{lines}, line 3",
    ]
    rows = write('a,b\n1,2\n"x"y,2\n3,4\n', "rows.csv")
    records = list(read_records(rows, header_keys=frozenset({"a"}), tolerant=True))
    assert [record.fields for record in records if record.problem is None] == [
        {"a": "1", "b": "2"},
        {"a": "3", "b": "4"},
    ]
    assert [str(record.problem).partition(": ")[0] for record in records if record.problem] == [f"{rows}, line 3"]


def test_a_tolerant_reader_does_not_skip_a_file_after_an_unclosed_quote(write: Write) -> None:
    """A malformed CSV record of several lines, which may be many rows, is an error that names its first line."""
    rows = write('a,b\n1,2\n3,"4\n5,6\n7,8\n', "rows.csv")
    with pytest.raises(InvalidInputError, match=r"rows\.csv, line 3: not CSV"):
        list(read_records(rows, header_keys=frozenset({"a"}), tolerant=True))


def test_the_header_of_a_csv_file_is_read_whole(write: Write) -> None:
    """Column names are returned in order, repeated ones as well; a file without rows has none."""
    assert read_header(write('\n"a",b,b,\n1,2,3,4\n', "rows.csv")) == ["a", "b", "b", ""]
    assert read_header(write("", "empty.csv")) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["a\0b, é", "東京\0上海", "plain"])
def test_a_stray_zero_byte_makes_no_other_encoding(encoding: str, text: str, tmp_path: Path) -> None:
    """UTF-16 without a mark is recognised, in any script, and UTF-8 with a zero byte is not taken for it."""
    file = tmp_path / "rows.tsv"
    file.write_bytes(f"id\ttext\n1\t{text}\n".encode(encoding))
    (record,) = read_records(file, header_keys=frozenset({"id"}))
    assert record.fields == {"id": "1", "text": text}
