"""Files are scored row by row, in order, with all else unchanged; what cannot be scored is named."""

from __future__ import annotations

import gzip
import json
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.errors import InvalidInputError, RemoteError, ScoringError
from langchain_crossrerank.scoring import ScoringProgress, score_file
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.unit.scoring.conftest import Rows, WriteTable, read_table

FORMATS = ["jsonl", "csv", "parquet"]


class RefusingCrossEncoder(FakeCrossEncoder):
    """A fake that raises for batches with a passage that contains a word."""

    def __init__(self, word: str, error: Exception) -> None:
        super().__init__()
        self.word, self.error = word, error

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        if any(self.word in item.text_pair[1] for item in batch):
            raise self.error
        return super()._score_batch(batch)


def expected(rows: Rows) -> list[float]:
    """Return the scores of pairs by the model itself."""
    return FakeCrossEncoder().score([(row["query"], row["passage"]) for row in rows])


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("chunk_pairs", [1, 7, 1000])
def test_each_row_gets_the_score_of_its_pair(
    write_table: WriteTable, pairs: Rows, suffix: str, chunk_pairs: int
) -> None:
    """The output has the input's rows and columns in order, and the score that the model returns for each pair."""
    source = write_table(f"in.{suffix}", pairs)
    output = source.with_name(f"out.{suffix}")
    result = score_file(source, output, model=FakeCrossEncoder(), chunk_pairs=chunk_pairs)
    rows = read_table(output)
    assert [float(row.pop("score")) for row in rows] == expected(pairs)
    assert [{**row, "id": int(row["id"])} for row in rows] == pairs
    assert (result.rows, result.pairs, result.skipped, result.errors) == (40, 40, 0, None)
    assert sorted(path.name for path in source.parent.iterdir()) == [
        f"in.{suffix}",
        f"out.{suffix}",
        f"out.{suffix}.log.jsonl",
    ]


@pytest.mark.parametrize("suffix", FORMATS)
def test_candidates_get_a_list_of_scores(write_table: WriteTable, pairs: Rows, suffix: str) -> None:
    """A row with a list of candidates gets their scores in the same order, and an empty list none."""
    lists = [[row["passage"] for row in pairs[start : start + 3]] for start in range(0, 12, 3)]
    lists.insert(2, [])
    rows = [{"query": "the cat and the dog", "candidates": passages} for passages in lists]
    cells = [{**row, "candidates": json.dumps(row["candidates"])} for row in rows] if suffix == "csv" else rows
    source = write_table(f"in.{suffix}", cells)
    output = source.with_name(f"out.{suffix}")
    assert score_file(source, output, model=FakeCrossEncoder(), chunk_pairs=4).pairs == 12
    found = [row["scores"] for row in read_table(output)]
    assert [json.loads(scores) if suffix == "csv" else scores for scores in found] == [
        FakeCrossEncoder().score([("the cat and the dog", passage) for passage in passages]) for passages in lists
    ]


def test_lines_of_json_are_left_as_they_were_written(tmp_path: Path) -> None:
    """Spelling of numbers, escapes, order of keys and repeated keys survive; only a key is added."""
    line = '{"n": 1.50e+3, "query": "caf\\u00e9 \\ud83d", "n": 12345678901234567890, "text":"Stra\u00dfe" }  '
    source = tmp_path / "in.jsonl"
    source.write_text(f"\ufeff{line}\r\n\n{line}", encoding="utf-8")
    score_file(source, tmp_path / "out.jsonl", model=FakeCrossEncoder())
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [found.startswith(line.rstrip()[:-2] + ', "score": 0.') for found in lines] == [True, True]


def test_gzipped_input_is_unpacked(tmp_path: Path, pairs: Rows) -> None:
    """A gzipped input gives the same output as its content."""
    content = "".join(json.dumps(row) + "\n" for row in pairs).encode()
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(content))
    (tmp_path / "in.jsonl").write_bytes(content)
    for name in ("in.jsonl", "in.jsonl.gz"):
        score_file(
            tmp_path / name, tmp_path / f"out-{name.removesuffix('.gz')}", model=FakeCrossEncoder(), overwrite=True
        )
        assert [row["score"] for row in read_table(tmp_path / "out-in.jsonl")] == expected(pairs)


HOSTILE_CELLS = [
    '=HYPERLINK("http://evil","x")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\tcmd",
    "a,b;c|d\te",
    'say "hi"',
    "two\nlines",
    "",
    "NULL",
    "-1.5",
    "\u202eevil",
    "x" * 200_000,
]


def test_hostile_csv_cells_survive_and_do_not_become_formulas(write_table: WriteTable) -> None:
    """Separators, quotes, line ends and huge cells come back; only formulas get an apostrophe."""
    rows = [{"query": "what?", "passage": "p", "note": cell} for cell in HOSTILE_CELLS]
    rows += [{"query": "what?", "passage": cell, "note": "n"} for cell in HOSTILE_CELLS]
    source = write_table("in.csv", rows)
    output = source.with_name("out.csv")
    score_file(source, output, model=FakeCrossEncoder())
    found = read_table(output)
    assert [float(row["score"]) for row in found] == expected(rows)
    cells = [row["note"] for row in found[: len(HOSTILE_CELLS)]]
    assert cells == [f"'{cell}" if number < 5 else cell for number, cell in enumerate(HOSTILE_CELLS)]
    assert [row["passage"] for row in found[len(HOSTILE_CELLS) :]] == cells


@pytest.mark.parametrize(
    ("content", "output"),
    [("", ""), ("query,passage,n\n", "query,passage,n,score\n"), ("\n\n", "")],
    ids=["nothing", "header", "blank lines"],
)
def test_a_csv_file_without_rows_gives_one(tmp_path: Path, content: str, output: str) -> None:
    """An empty part of a larger table is not an error, and keeps its header."""
    (tmp_path / "in.csv").write_text(content)
    assert score_file(tmp_path / "in.csv", tmp_path / "out.csv", model=FakeCrossEncoder()).rows == 0
    assert (tmp_path / "out.csv").read_text() == output


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_file_without_rows_gives_one(tmp_path: Path, suffix: str) -> None:
    """An empty file keeps its format."""
    source = tmp_path / f"in.{suffix}"
    if suffix == "parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
        parquet = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
        text = pyarrow.string()
        parquet.write_table(pyarrow.table({"query": pyarrow.array([], text), "text": pyarrow.array([], text)}), source)
    else:
        source.write_text("")
    output = tmp_path / f"out.{suffix}"
    assert score_file(source, output, model=FakeCrossEncoder()).rows == 0
    assert read_table(output) == []


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("in.jsonl", '{"query": "q", "text": "t"}\n{broken\n', r"in\.jsonl, line 2: .*is not JSON"),
        ("in.jsonl", '{"query": "q", "text": "t"}\n\n{"query": "q"}\n', r"in\.jsonl, line 3: there is no 'text'"),
        ("in.jsonl", '{"query": "q", "text": "t"}\n{"query": "", "text": "t"}', r"in\.jsonl, line 2: query is ''"),
        (
            "in.jsonl",
            '{"query": "q", "text": "t"}\n{"query": "q", "text": "t", "score": 1}',
            "line 2: .*already a 'score'",
        ),
        ("in.csv", "query,text\nq,t\nq,t,u\n", r"in\.csv, line 3: the row has 3 cells, but the header has 2"),
        ("in.csv", 'query,text\nq,"t\n', r"in\.csv, line 2: not CSV"),
        ("in.csv", "frage,text\nq,t\n", r"in\.csv: there is no column 'query'"),
        ("in.tsv", "query\ttext\n", r"in\.tsv' must end in \.jsonl"),
        ("in", "", r"in' must end in \.jsonl"),
    ],
)
def test_what_cannot_be_scored_is_named_before_anything_is_scored(
    tmp_path: Path, name: str, content: str, complaint: str
) -> None:
    """The error has file and line, and neither a score is computed nor a file written."""
    (tmp_path / name).write_text(content)
    model = FakeCrossEncoder()
    with pytest.raises(InvalidInputError, match=complaint):
        score_file(tmp_path / name, tmp_path / f"out{Path(name).suffix}", model=model, chunk_pairs=1)
    assert model.batches == []
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    """A file that is not there is an input error."""
    with pytest.raises(InvalidInputError, match=r"there is no file .*in\.csv"):
        score_file(tmp_path / "in.csv", tmp_path / "out.csv", model=FakeCrossEncoder())


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("in.jsonl", "same file"),
        ("link.jsonl", "same file"),
        ("out.csv", "must have the format of the input, jsonl"),
        ("out.jsonl.gz", "not be gzipped"),
        ("out", "must end in"),
        ("no/out.jsonl", "there is no folder"),
        ("folder.jsonl", "is not a file"),
        ("there.jsonl", "exists; name another output, or pass overwrite"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path, output: str, complaint: str) -> None:
    """Nothing is scored for an output that cannot be written, and what is there stays."""
    source = tmp_path / "in.jsonl"
    source.write_text('{"query": "q", "text": "t"}\n')
    (tmp_path / "link.jsonl").symlink_to(source)
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "there.jsonl").write_text("mine")
    model = FakeCrossEncoder()
    with pytest.raises(InvalidInputError, match=complaint):
        score_file(source, tmp_path / output, model=model)
    assert model.batches == []
    assert (tmp_path / "there.jsonl").read_text() == "mine"


def test_a_model_is_loaded_from_a_path(write_table: WriteTable, pairs: Rows) -> None:
    """A folder may be a `Path`, here as in `load_cross_encoder`."""
    source = write_table("in.jsonl", pairs)
    outputs = [source.with_name(f"out{number}.jsonl") for number in range(2)]
    for output, model in zip(outputs, (BUNDLED_FOLDER, load_cross_encoder(BUNDLED_FOLDER)), strict=True):
        score_file(source, output, model=model)
    assert outputs[0].read_text("utf-8") == outputs[1].read_text("utf-8")


def test_an_output_is_replaced_when_asked(write_table: WriteTable, pairs: Rows) -> None:
    """With `overwrite` an existing output is replaced, and so are the errors of an earlier run."""
    source = write_table("in.jsonl", pairs)
    output, errors = source.with_name("out.jsonl"), source.with_name("out.jsonl.errors.jsonl")
    output.write_text("old")
    errors.write_text("old")
    score_file(source, output, model=FakeCrossEncoder(), overwrite=True)
    assert len(read_table(output)) == 40
    assert not errors.exists()


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_that_cannot_be_scored_are_left_out_and_named(write_table: WriteTable, pairs: Rows, suffix: str) -> None:
    """With `on_error="skip"` the output has the good rows, and the error file names the others and shows them."""
    bad = {3: {**pairs[3], "query": " "}, 17: {**pairs[17], "query": ""}}
    source = write_table(f"in.{suffix}", [bad.get(number, row) for number, row in enumerate(pairs)])
    output = source.with_name(f"out.{suffix}")
    result = score_file(source, output, model=FakeCrossEncoder(), on_error="skip", chunk_pairs=5)
    good = [row for number, row in enumerate(pairs) if number not in bad]
    assert [float(row["score"]) for row in read_table(output)] == expected(good)
    assert (result.rows, result.skipped) == (38, 2)
    assert result.errors is not None
    first = {"jsonl": 1, "csv": 2, "parquet": 1}[suffix]
    errors = read_table(result.errors)
    assert [row["where"].partition(", ")[2].split()[1] for row in errors] == [str(first + 3), str(first + 17)]
    assert all("query is" in row["error"] and "lives in a house" in row["line"] for row in errors)


def test_malformed_lines_are_left_out_and_named(tmp_path: Path) -> None:
    """Lines that are not JSON, not UTF-8 or not objects do not stop a run that skips errors."""
    good = b'{"query": "q", "text": "t"}\n'
    (tmp_path / "in.jsonl").write_bytes(b"{broken\n" + good + b"[1]\n" + b'{"query": "\xff", "text": "t"}\n' + good)
    result = score_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", model=FakeCrossEncoder(), on_error="skip")
    assert (result.rows, result.skipped) == (2, 3)
    assert result.errors is not None
    assert [row["where"][-1] for row in read_table(result.errors)] == ["1", "3", "4"]


@pytest.mark.parametrize(
    "error", [ValueError("no"), InvalidInputError("too long"), RemoteError("big", status_code=413)]
)
def test_a_row_that_the_model_refuses_is_left_out_alone(write_table: WriteTable, pairs: Rows, error: Exception) -> None:
    """If the model raises for one pair, the other rows of its batch are scored all the same."""
    rows = [*pairs[:9], {**pairs[9], "passage": "poison"}, *pairs[10:]]
    source = write_table("in.jsonl", rows)
    model = RefusingCrossEncoder("poison", error)
    result = score_file(source, source.with_name("out.jsonl"), model=model, on_error="skip")
    assert [row["id"] for row in read_table(result.output)] == [number for number in range(40) if number != 9]
    assert result.errors is not None
    (line,) = read_table(result.errors)
    assert line["where"].endswith("in.jsonl, line 10")


def test_a_row_that_the_model_refuses_is_named(write_table: WriteTable, pairs: Rows) -> None:
    """With `on_error="stop"` the error says which row the model failed on."""
    source = write_table("in.jsonl", [*pairs[:9], {**pairs[9], "passage": "poison"}, *pairs[10:]])
    model = RefusingCrossEncoder("poison", ValueError("no"))
    with pytest.raises(ScoringError, match=r"in\.jsonl, line 10: 'fake' failed on 1 pairs"):
        score_file(source, source.with_name("out.jsonl"), model=model)


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_server_that_fails_stops_the_run(write_table: WriteTable, pairs: Rows, on_error: Any) -> None:
    """A server that cannot be reached is not the fault of the rows; what was scored before is kept."""
    source = write_table("in.jsonl", [*pairs[:30], {**pairs[30], "passage": "poison"}, *pairs[31:]])
    output = source.with_name("out.jsonl")
    model = RefusingCrossEncoder("poison", RemoteError("unreachable", status_code=503))
    with pytest.raises(RemoteError, match="unreachable"):
        score_file(source, output, model=model, on_error=on_error, chunk_pairs=10)
    assert not output.exists()
    model.word = "no such word"
    model.batches.clear()
    result = score_file(source, output, model=model, on_error=on_error, chunk_pairs=10)
    assert (result.resumed_rows, result.rows, sum(map(len, model.batches))) == (30, 40, 10)


@pytest.mark.parametrize("error", [ValueError("no"), RemoteError("unknown model", status_code=422)])
def test_a_model_that_fails_on_every_row_stops_the_run(write_table: WriteTable, pairs: Rows, error: Exception) -> None:
    """With `on_error="skip"`, too, nothing is written if all rows fail, and the run continues when the model works."""
    source = write_table("in.jsonl", [{**row, "passage": f"{row['passage']} poison"} for row in pairs])
    output = source.with_name("out.jsonl")
    model = RefusingCrossEncoder("poison", error)
    with pytest.raises(ScoringError, match=rf"failed on all 10 rows .*in\.jsonl, line 1: .*{error}"):
        score_file(source, output, model=model, on_error="skip", chunk_pairs=10)
    assert not output.exists()
    model.word = "no such word"
    assert score_file(source, output, model=model, on_error="skip", chunk_pairs=10).rows == 40


def test_many_bad_batches_are_not_too_many(write_table: WriteTable, pairs: Rows) -> None:
    """Hundreds of batches that fail, each for one of its rows, do not exhaust the stack."""
    source = write_table(
        "in.jsonl", [*({**pairs[0], "passage": f"poison {number}"} for number in range(600)), pairs[1]]
    )

    class Naming(RefusingCrossEncoder):
        """Names the first pair that it refuses."""

        def score_steps(self, text_pairs: Any) -> Any:
            given = list(text_pairs)
            first = next((place for place, pair in enumerate(given) if "poison" in pair[1]), None)
            if first is not None:
                raise ScoringError("no", positions=[first])
            return (yield from super().score_steps(given))

    result = score_file(
        source, source.with_name("out.jsonl"), model=Naming("-", ValueError()), on_error="skip", chunk_pairs=1000
    )
    assert (result.rows, result.skipped) == (1, 600)


def test_a_run_is_continued_with_the_same_on_error(write_table: WriteTable, pairs: Rows) -> None:
    """A run that left rows out is not finished by one that promises to stop at such rows."""
    source = write_table("in.jsonl", [*pairs[:30], {**pairs[30], "passage": "poison"}, *pairs[31:]])
    output = source.with_name("out.jsonl")
    model = RefusingCrossEncoder("poison", RemoteError("unreachable", status_code=503))
    with pytest.raises(RemoteError):
        score_file(source, output, model=model, on_error="skip", chunk_pairs=10)
    with pytest.raises(InvalidInputError, match="another on_error: 'skip', now 'stop'"):
        score_file(source, output, model=model, chunk_pairs=10)


def test_scores_that_are_not_finite_are_named(write_table: WriteTable, pairs: Rows) -> None:
    """A model that returns NaN for a row is caught at that row, and nothing but numbers is written."""

    class NanCrossEncoder(FakeCrossEncoder):
        def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
            return [math.nan if item.text_pair[1].startswith("7:") else 0.5 for item in batch]

    source = write_table("in.csv", pairs)
    result = score_file(source, source.with_name("out.csv"), model=NanCrossEncoder(), on_error="skip")
    assert result.skipped == 1
    assert {row["score"] for row in read_table(result.output)} == {"0.5"}


def test_progress_tells_how_much_is_left(write_table: WriteTable, pairs: Rows) -> None:
    """Progress counts up to the size that is known from the start."""
    seen: list[ScoringProgress] = []
    source = write_table("in.jsonl", pairs)
    score_file(source, source.with_name("out.jsonl"), model=FakeCrossEncoder(), chunk_pairs=10, progress=seen.append)
    assert [(progress.rows, progress.pairs, progress.size.pairs) for progress in seen] == [
        (done, done, 40) for done in (10, 20, 30, 40)
    ]
    assert all(progress.pairs_per_second > 0 for progress in seen)
    assert seen[-1].seconds_left == 0


def test_the_log_names_input_model_and_progress(write_table: WriteTable, pairs: Rows) -> None:
    """The run log has a line for the start, for each chunk and for the end."""
    source = write_table("in.jsonl", pairs)
    result = score_file(source, source.with_name("out.jsonl"), model=FakeCrossEncoder(), chunk_pairs=20)
    log = read_table(result.log)
    assert [row["event"] for row in log] == ["start", "progress", "progress", "finish"]
    assert log[0]["rows"] == 40
    assert "FakeCrossEncoder" in log[0]["model"]
    assert all("T" in row["time"] for row in log)


def test_two_runs_do_not_write_the_same_output(write_table: WriteTable, pairs: Rows) -> None:
    """While one run writes an output, another one is refused, and the first is not disturbed."""
    source = write_table("in.jsonl", pairs)
    output = source.with_name("out.jsonl")
    entered, go_on = threading.Event(), threading.Event()

    def wait(_: ScoringProgress) -> None:
        entered.set()
        go_on.wait(60)

    first = threading.Thread(
        target=score_file, args=(source, output), kwargs={"model": FakeCrossEncoder(), "progress": wait}
    )
    first.start()
    assert entered.wait(60)
    with pytest.raises(InvalidInputError, match="another process is writing"):
        score_file(source, output, model=FakeCrossEncoder())
    go_on.set()
    first.join()
    assert len(read_table(output)) == 40


@pytest.mark.parametrize(("name", "value"), [("on_error", "ignore"), ("chunk_pairs", 0), ("chunk_pairs", True)])
def test_settings_are_checked(tmp_path: Path, name: str, value: Any) -> None:
    """A setting that cannot be used is named before a file is read."""
    settings: dict[str, Any] = {name: value}
    with pytest.raises(InvalidInputError, match=name):
        score_file(tmp_path / "no.csv", tmp_path / "out.csv", model=FakeCrossEncoder(), **settings)


def test_the_log_follows_no_planted_link(write_table: WriteTable, pairs: Rows, tmp_path: Path) -> None:
    """A link in the log's place does not lead the writer to another file."""
    source = write_table("in.jsonl", pairs)
    target = tmp_path / "target"
    target.write_text("mine")
    (source.parent / "out.jsonl.log.jsonl").symlink_to(target)
    with pytest.raises(OSError, match=r"out\.jsonl\.log\.jsonl"):
        score_file(source, source.with_name("out.jsonl"), model=FakeCrossEncoder())
    assert target.read_text() == "mine"


def test_an_empty_result_replaces_a_link(write_table: WriteTable, tmp_path: Path) -> None:
    """The file that a link leads to is left as it is, also where there is nothing to write."""
    source = write_table("in.jsonl", [])
    target = tmp_path / "target"
    target.write_text("mine")
    output = source.with_name("out.jsonl")
    output.symlink_to(target)
    score_file(source, output, model=FakeCrossEncoder(), overwrite=True)
    assert target.read_text() == "mine"
    assert output.read_bytes() == b""
