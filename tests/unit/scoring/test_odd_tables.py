"""Tables as other tools write them: types that Python or Arrow cannot handle, and leftovers of spreadsheets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.scoring import score_file
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.unit.scoring.conftest import read_table


def write_parquet(path: Path, **columns: Any) -> Path:
    """Write columns of arrays."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
    parquet.write_table(pyarrow.table(columns), path)
    return path


def not_utf8() -> Any:
    """Three texts, the second of which is not UTF-8."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    return pyarrow.array([b"house", b"caf\xe9", b"barn"], pyarrow.binary()).view(pyarrow.string())


def test_columns_that_are_not_needed_may_hold_anything(tmp_path: Path) -> None:
    """A date past the year 9999 and text that is not UTF-8 are copied, and do not hinder scoring."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    until = pyarrow.array([2**62, 1, 2], pyarrow.timestamp("us"))
    passages = ["a", "b", "c"]
    source = write_parquet(tmp_path / "in.parquet", query=["q"] * 3, passage=passages, until=until, note=not_utf8())
    result = score_file(source, tmp_path / "out.parquet", model=FakeCrossEncoder())
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
    written = parquet.read_table(result.output)
    assert written.column_names == ["query", "passage", "until", "note", "score"]
    assert written["until"].cast("int64").to_pylist() == [2**62, 1, 2]


def test_a_value_that_cannot_be_read_costs_one_row(tmp_path: Path) -> None:
    """It is named like every other row that cannot be scored."""
    source = write_parquet(tmp_path / "in.parquet", query=["q"] * 3, passage=not_utf8())
    with pytest.raises(InvalidInputError, match=r"in\.parquet, row 2: a value cannot be read .*can't decode byte 0xe9"):
        score_file(source, tmp_path / "out.parquet", model=FakeCrossEncoder())
    result = score_file(source, tmp_path / "out.parquet", model=FakeCrossEncoder(), on_error="skip")
    assert [row["passage"] for row in read_table(result.output)] == ["house", "barn"]
    assert result.errors is not None
    assert json.loads(result.errors.read_text())["where"] == f"{source}, row 2"


@pytest.mark.parametrize("queries", [["q", "q", "q"], ["q", None, "q"]])
def test_views_of_strings_are_kept(queries: list[Any], tmp_path: Path) -> None:
    """Also where rows are left out, although Arrow cannot pick rows of that type."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    view = pyarrow.array(["a", "b", "c"], pyarrow.string_view())
    source = write_parquet(tmp_path / "in.parquet", query=queries, passage=view)
    result = score_file(source, tmp_path / "out.parquet", model=FakeCrossEncoder(), on_error="skip")
    expected = [text for text, query in zip("abc", queries, strict=True) if query]
    assert [row["passage"] for row in read_table(result.output)] == expected


def test_a_column_is_not_mistaken_for_a_field_of_another(tmp_path: Path) -> None:
    """A name with a dot is also how Parquet names a field inside a column."""
    source = write_parquet(
        tmp_path / "in.parquet", **{"query": ["q"], "a.b": ["passage"], "a": [{"b": "field", "passage": "x"}]}
    )
    result = score_file(source, tmp_path / "out.parquet", model=FakeCrossEncoder(), passage_column="a.b")
    assert result.pairs == 1


def test_trailing_empty_columns_of_a_spreadsheet_are_left_out(tmp_path: Path) -> None:
    """An unnamed first column, as of an index, is kept; data in a column without a name is an error."""
    source = tmp_path / "in.csv"
    source.write_text(",query,passage,,\n0,q,a,,\n1,q,b, ,\n")
    result = score_file(source, tmp_path / "out.csv", model=FakeCrossEncoder())
    rows = [line.split(",")[:3] for line in result.output.read_text().splitlines()]
    assert rows == [["", "query", "passage"], ["0", "q", "a"], ["1", "q", "b"]]
    source.write_text("query,passage,,\nq,a,,note\n")
    with pytest.raises(InvalidInputError, match="the row has 4 cells, but the header has 2"):
        score_file(source, tmp_path / "other.csv", model=FakeCrossEncoder())


@pytest.mark.parametrize("name", ["[id]", "{id}"])
def test_a_csv_header_may_begin_like_json(name: str, tmp_path: Path) -> None:
    """The suffix says what the file is."""
    source = tmp_path / "in.csv"
    source.write_text(f"{name},query,passage\n1,q,a\n")
    result = score_file(source, tmp_path / "out.csv", model=FakeCrossEncoder())
    assert read_table(result.output)[0][name] == "1"
