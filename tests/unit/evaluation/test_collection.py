"""Collections read from BEIR folders: layouts, keys, what is counted and what is refused."""

from __future__ import annotations

import gzip

import pytest
from langchain_core.documents import Document

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation import Collection, load_beir, load_corpus, load_queries
from tests.unit.evaluation.conftest import CORPUS, QRELS, QUERIES, Write, WriteBeir, json_lines


def test_a_good_folder_is_read_whole(write_beir: WriteBeir) -> None:
    """Documents keep ids, order and metadata, titles precede texts, and queries without grades are left out."""
    collection = load_beir(write_beir())
    assert collection.documents == [
        Document("LoRA\nLow-rank adaptation.", id="d1", metadata={"page": 3}),
        Document("A ferry leaves at nine.", id="d2"),
        Document("Straße, 東京, 🙂", id="d3"),
        Document("Only a title", id="d4"),
    ]
    assert collection.queries == {"q1": "What is LoRA?", "q2": "When does the ferry leave?"}
    assert collection.qrels == {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1}}


def test_the_folder_may_be_a_string_and_the_judgements_another_file(write_beir: WriteBeir) -> None:
    """`qrels` names the file of judgements inside the folder, for example `qrels/test.tsv`."""
    tmp_path = write_beir(qrels=None)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(QRELS)
    assert load_beir(str(tmp_path), qrels="qrels/test.tsv").qrels == {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1}}


def test_line_ends_blank_lines_and_numeric_ids_do_not_matter(write_beir: WriteBeir) -> None:
    """Windows line ends and blank lines are read over, and ids written as numbers are the same ids."""
    folder = write_beir(
        corpus='{"_id": 1, "text": "one"}\r\n\r\n{"_id": "2", "text": "two"}',
        queries='\n{"_id": 7, "text": "which?"}\r\n',
        qrels="query-id\tcorpus-id\tscore\r\n7\t1\t1\r\n\r\n7\t2\t0\r\n",
    )
    collection = load_beir(folder)
    assert [document.id for document in collection.documents] == ["1", "2"]
    assert (collection.queries, collection.qrels) == ({"7": "which?"}, {"7": {"1": 1, "2": 0}})


@pytest.mark.parametrize("name", ["corpus", "queries", "qrels"])
def test_a_missing_file_is_named(write_beir: WriteBeir, name: str) -> None:
    """The error says which file is not there and what a BEIR folder holds."""
    folder = write_beir(**{name: None})
    with pytest.raises(InvalidInputError, match=rf"there is no file .*{name}\.(jsonl|tsv).*a BEIR folder has"):
        load_beir(folder)


@pytest.mark.parametrize("name", ["corpus", "queries"])
@pytest.mark.parametrize(
    ("second_line", "complaint"),
    [
        ('{"_id": "x", "text": ', "is not JSON"),
        ("plain text", "is not JSON"),
        ('["_id", "x"]', "is not an object with an _id"),
        ("3", "is not an object with an _id"),
        ('{"name": "x", "text": "no id"}', "is not an object with an _id"),
    ],
)
def test_a_malformed_line_is_named(write_beir: WriteBeir, name: str, second_line: str, complaint: str) -> None:
    """The error names the file, the line's number and the line."""
    folder = write_beir(**{name: f'{{"_id": "a", "text": "good"}}\n{second_line}\n'})
    with pytest.raises(InvalidInputError) as caught:
        load_beir(folder)
    assert f"{folder / name}.jsonl, line 2: {second_line!r} {complaint}" in str(caught.value)


@pytest.mark.parametrize("name", ["corpus", "queries"])
@pytest.mark.parametrize(
    "row",
    ['{"_id": "x", "text": 5}', '{"_id": "x", "text": ["a"]}', '{"_id": null, "text": "a"}'],
    ids=["number", "list", "no id"],
)
def test_a_field_of_another_type_is_named_with_its_line(write_beir: WriteBeir, name: str, row: str) -> None:
    """A text that is not a string and an id that is null are refused with file and line."""
    folder = write_beir(**{name: f'{{"_id": "a", "text": "good"}}\n{row}\n'})
    with pytest.raises(InvalidInputError, match=rf"{name}\.jsonl, line 2: "):
        load_beir(folder)


def test_metadata_that_is_no_object_is_named_with_its_line(write_beir: WriteBeir) -> None:
    """Metadata of another type is refused with file and line."""
    folder = write_beir(corpus='{"_id": "d1", "text": "a", "metadata": "notes.txt"}\n')
    with pytest.raises(InvalidInputError, match=r"corpus\.jsonl, line 1: "):
        load_beir(folder)


@pytest.mark.parametrize("name", ["corpus", "queries", "qrels"])
def test_a_file_in_another_encoding_is_named(write_beir: WriteBeir, name: str) -> None:
    """Bytes that are not UTF-8 raise an error that names the file and the encoding."""
    good = QRELS if name == "qrels" else '{"_id": "a", "text": "good"}\n'
    folder = write_beir(**{name: good.encode() + '{"_id": "b", "text": "café"}\n'.encode("latin-1")})
    with pytest.raises(InvalidInputError, match=rf"{name}\.(jsonl|tsv).*UTF-8"):
        load_beir(folder)


@pytest.mark.parametrize("name", ["corpus", "queries"])
def test_ids_must_be_unique(write_beir: WriteBeir, name: str) -> None:
    """An id that comes twice is named with its second line, also where one of the two is written as a number."""
    folder = write_beir(**{name: json_lines([{"_id": "5", "text": "a"}, {"_id": 5, "text": "b"}])})
    with pytest.raises(InvalidInputError, match=rf"{name}\.jsonl, line 2: the id '5' comes twice"):
        load_beir(folder)


@pytest.mark.parametrize(
    ("qrels", "complaint"),
    [
        ("q9\td1\t1\n", r"qrels\.tsv judges only queries that are not in the collection, for example \['q9'\]"),
        ("q1\td9\t1\nq2\td8\t0\n", r"judges only documents that the corpus lacks, for example \['d8', 'd9'\]"),
        ("query-id\tcorpus-id\tscore\n", r"qrels\.tsv holds no judgements"),
        ("", r"qrels\.tsv holds no judgements"),
    ],
    ids=["unknown query", "unknown documents", "header alone", "empty"],
)
def test_judgements_must_fit_the_collection(write_beir: WriteBeir, qrels: str, complaint: str) -> None:
    """Where every judgement is of unknown queries or of unknown documents, or there is none, the ids are named."""
    folder = write_beir(qrels=qrels)
    with pytest.raises(InvalidInputError, match=complaint):
        load_beir(folder)


@pytest.mark.parametrize(
    ("split", "judged"), [(None, {"q2"}), ("test", {"q2"}), ("dev", {"q1"}), ("train", {"q1", "q2"})]
)
def test_the_split_chooses_the_judgements(write_beir: WriteBeir, split: str | None, judged: set[str]) -> None:
    """A published archive has `qrels/train.tsv`, `dev.tsv` and `test.tsv`; the test split is the default."""
    folder = write_beir(qrels=None)
    (folder / "qrels").mkdir()
    for name, lines in (("test", "q2\td2\t1\n"), ("dev", "q1\td1\t1\n"), ("train", "q1\td1\t1\nq2\td2\t1\n")):
        (folder / "qrels" / f"{name}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    assert load_beir(folder, split=split).qrels.keys() == judged


def test_a_split_that_is_not_there_is_named(write_beir: WriteBeir) -> None:
    """The error lists the splits that are there; a split and a file of judgements exclude each other."""
    folder = write_beir(qrels=None)
    (folder / "qrels").mkdir()
    (folder / "qrels" / "dev.tsv").write_text(QRELS)
    with pytest.raises(InvalidInputError, match=r"no judgements of the split 'test', only 'dev'; pass split="):
        load_beir(folder)
    (folder / "qrels" / "dev.tsv").unlink()
    with pytest.raises(InvalidInputError, match=r"split 'dev', and no others in qrels/; leave out split="):
        load_beir(folder, split="dev")
    with pytest.raises(InvalidInputError, match=r"both qrels='x.tsv' and split='dev'"):
        load_beir(folder, qrels="x.tsv", split="dev")


def test_a_split_in_two_formats_has_to_be_named(write_beir: WriteBeir) -> None:
    """Neither file wins in silence; another split's files do not matter."""
    folder = write_beir(qrels=None)
    (folder / "qrels").mkdir()
    for name, line in (("dev.tsv", "q1\td1\t1\n"), ("test.csv", "q1,d1,1\n"), ("test.tsv", "q2\td2\t1\n")):
        (folder / "qrels" / name).write_text(line)
    with pytest.raises(InvalidInputError, match=r"the split 'test' in 'test.csv' and 'test.tsv'; keep one of them, or"):
        load_beir(folder)
    assert load_beir(folder, qrels="qrels/test.tsv").qrels == {"q2": {"d2": 1}}
    assert load_beir(folder, split="dev").qrels == {"q1": {"d1": 1}}


@pytest.mark.parametrize(
    "name", ["test.tsv.bak", "test.tsv~", "test.tsv.orig", "test.old.tsv", "._test.tsv", ".test.tsv.swp"]
)
def test_a_backup_does_not_replace_the_judgements(write_beir: WriteBeir, name: str) -> None:
    """What editors and copying leave beside a split is not read."""
    folder = write_beir(qrels=None)
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("q2\td2\t1\n")
    (folder / "qrels" / name).write_text("q1\td1\t1\n")
    assert load_beir(folder).qrels == {"q2": {"d2": 1}}


@pytest.mark.parametrize("ending", ["tsv", "tsv.gz", "csv.gz", "json.gz", "txt"])
def test_every_file_of_a_folder_may_be_in_another_format(write_beir: WriteBeir, ending: str) -> None:
    """Formats that are read one by one are found in a folder, gzipped or not."""
    folder = write_beir(qrels=None)
    (folder / "qrels").mkdir()
    lines = {"csv.gz": "query-id,corpus-id,score\nq2,d2,1\n", "json.gz": '{"q2": {"d2": 1}}', "txt": "q2 0 d2 1\n"}
    judged = lines.get(ending, "q2\td2\t1\n").encode()
    (folder / "qrels" / f"test.{ending}").write_bytes(gzip.compress(judged) if ending.endswith("gz") else judged)
    if ending in ("csv.gz", "json.gz"):
        (folder / "queries.jsonl").unlink()
        asked = {"csv.gz": "id,text\nq2,When?\n", "json.gz": '{"q2": "When?"}'}[ending]
        (folder / f"queries.{ending}").write_bytes(gzip.compress(asked.encode()))
    assert load_beir(folder).qrels == {"q2": {"d2": 1}}


@pytest.mark.parametrize("id_key", ["_id", "id", "docid", "doc_id", "pid", "corpus-id"])
@pytest.mark.parametrize("text_key", ["text", "contents", "content", "page_content", "passage", "abstract"])
def test_documents_are_read_under_the_keys_people_use(write: Write, id_key: str, text_key: str) -> None:
    """Every usual name of an id and of a text is the same document."""
    file = write(json_lines([{id_key: "a", text_key: "one"}]), "corpus.jsonl")
    assert load_corpus(file) == [Document("one", id="a")]


@pytest.mark.parametrize("id_key", ["_id", "id", "qid", "query_id", "query-id"])
@pytest.mark.parametrize("text_key", ["text", "query", "question"])
def test_queries_are_read_under_the_keys_people_use(write: Write, id_key: str, text_key: str) -> None:
    """Every usual name of an id and of a text is the same query."""
    assert load_queries(write(json_lines([{id_key: 7, text_key: "which?"}]), "queries.jsonl")) == {"7": "which?"}


@pytest.mark.parametrize("read", [load_corpus, load_queries])
def test_a_text_under_an_unknown_key_is_refused(write: Write, read: object) -> None:
    """A file whose texts are not found is not measured as empty: file, line and keys are named."""
    file = write('{"_id": "a", "txt": "one"}\n', "corpus.jsonl")
    with pytest.raises(
        InvalidInputError, match=r"corpus\.jsonl, line 1: .*none of the keys 'text', .*\['_id', 'txt'\]"
    ):
        read(file)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("key", "value"), [("full_text", "The ferry leaves at nine."), ("paragraphs", ["The ferry leaves at nine."])]
)
def test_a_document_is_not_measured_by_its_title_alone(write: Write, key: str, value: object) -> None:
    """A title beside what may be the text under another name is refused, with the keys."""
    row = {"_id": "a", "title": "Ferries", "url": "https://example.com", key: value}
    with pytest.raises(InvalidInputError, match=rf"line 1: .*none of the keys 'text', .*{key!r}\]; rename one"):
        load_corpus(write(json_lines([row]), "corpus.jsonl"))
    del row[key]
    assert load_corpus(write(json_lines([row]), "corpus.jsonl")) == [Document("Ferries", id="a")]


def test_an_abstract_is_a_text(write: Write) -> None:
    """A corpus of papers has titles and abstracts; a text goes before its abstract."""
    rows = "id,title,abstract\na,Ferries,One leaves at nine.\n"
    assert load_corpus(write(rows, "corpus.csv")) == [Document("Ferries\nOne leaves at nine.", id="a")]
    both = json_lines([{"_id": "a", "abstract": "Short.", "text": "Long."}])
    assert load_corpus(write(both, "corpus.jsonl")) == [Document("Long.", id="a")]


def test_tables_hold_collections_too(write: Write) -> None:
    """A corpus is read from TSV without a header, and from CSV with quoted line ends."""
    assert load_corpus(write('a\tsaid "one"\n', "corpus.tsv")) == [Document('said "one"', id="a")]
    quoted = 'title,id,text\r\nT,a,"one,\r\ntwo"\r\n'
    assert load_corpus(write(quoted, "corpus.csv")) == [Document("T\none,\ntwo", id="a")]
    assert load_queries(write("q1\twhich one?\nq2\twho?\n", "queries.tsv")) == {"q1": "which one?", "q2": "who?"}


def test_what_does_not_fit_is_counted(write_beir: WriteBeir) -> None:
    """Judgements of unknown queries are left out, those of unknown documents stay and lower recall; both are noted."""
    found = load_beir(write_beir(qrels=f"{QRELS}q9\td1\t1\nq1\tgone\t1\nq2\tlost\t0\n"))
    assert found.qrels == {"q1": {"d1": 2, "d3": 0, "gone": 1}, "q2": {"d2": 1, "lost": 0}}
    assert found.notes == (
        "1 judged queries are not in the collection and are left out, for example 'q9'.",
        "2 judged documents are not in the corpus and can never be found, for example 'gone'.",
    )
    assert load_beir(write_beir()).notes == ()


def test_missing_texts_are_counted_or_refused(write_beir: WriteBeir) -> None:
    """Blank documents and blank queries are noted; where all are blank there is nothing to measure."""
    some = [*CORPUS, {"_id": "d5", "text": " "}]
    asked = [*QUERIES, {"_id": "q4", "text": ""}]
    found = load_beir(write_beir(corpus=json_lines(some), queries=json_lines(asked), qrels=f"{QRELS}q4\td1\t1\n"))
    assert found.notes == ("1 of 5 documents have no text.", "1 judged queries have no text and are left out.")
    assert "q4" not in found.queries | found.qrels
    with pytest.raises(InvalidInputError, match="none of the 4 documents of the corpus has text"):
        load_beir(write_beir(corpus=json_lines([{**row, "text": "", "title": ""} for row in CORPUS])))


def test_a_sample_says_what_it_costs(collection: Collection) -> None:
    """A sample keeps all documents, is the same at every call, and notes how much wider its intervals are."""
    queries = {f"q{number}": f"query {number}" for number in range(100)}
    whole = Collection(collection.documents, queries, {key: {"d1": 1} for key in queries})
    sample = whole.sample(25)
    assert sample == whole.sample(25)
    assert sample.queries.keys() == sample.qrels.keys() < queries.keys()
    assert len(sample.queries) == 25
    assert sample.documents == whole.documents
    assert sample.notes == (
        "A random sample of 25 of 100 judged queries: intervals are about 2.0 times as wide as with all of them.",
    )
    assert sample.queries != whole.sample(25, seed=1).queries
    assert whole.sample(100) is whole
    with pytest.raises(InvalidInputError, match="a sample of 0 queries"):
        whole.sample(0)
