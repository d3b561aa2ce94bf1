"""Test sets in one file: ragas, LangSmith, LlamaIndex and SQuAD."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation import load_collection
from tests.unit.evaluation.conftest import Write, WriteBeir, json_lines

FERRY, BREAD = "The ferry leaves at nine.", "Bread rises because of yeast."

RAGAS = [
    {"user_input": "When does it leave?", "reference_contexts": [FERRY], "reference": "At nine."},
    {"user_input": "Why does it rise?", "reference_contexts": [BREAD, FERRY], "reference": "Yeast."},
]
LANGSMITH = [
    {"id": "e1", "inputs": {"question": "When does it leave?"}, "outputs": {"contexts": [FERRY], "answer": "At nine."}},
    {"id": "e2", "inputs": {"question": "Why does it rise?"}, "outputs": {"documents": [{"page_content": BREAD}]}},
]
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Sea",
            "paragraphs": [
                {
                    "context": FERRY,
                    "qas": [
                        {"id": "s1", "question": "When does it leave?", "answers": [{"text": "nine"}]},
                        {"id": "s2", "question": "Who steers it?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}
LLAMA_INDEX = {
    "queries": {"q1": "When does it leave?"},
    "corpus": {"n1": FERRY, "n2": BREAD},
    "relevant_docs": {"q1": ["n1"]},
}
WHOLE = "The corpus is only the {} reference contexts of the test set: finding the answer among them is easier than in "


@pytest.mark.parametrize("lines", [True, False], ids=["JSON Lines", "JSON"])
def test_a_ragas_test_set_is_a_collection(write: Write, lines: bool) -> None:
    """Each reference context is a document, and relevant for its question; the small corpus is noted."""
    found = load_collection(write(json_lines(RAGAS) if lines else RAGAS, "set.jsonl" if lines else "set.json"))
    assert found.documents == [Document(FERRY, id="c0"), Document(BREAD, id="c1")]
    assert found.queries == {"q0": "When does it leave?", "q1": "Why does it rise?"}
    assert found.qrels == {"q0": {"c0": 1}, "q1": {"c1": 1, "c0": 1}}
    assert found.notes == (WHOLE.format(2) + "your whole index.",)


def test_a_ragas_csv_has_lists_in_its_cells(write: Write) -> None:
    """Lists that Python or JSON wrote into a cell are lists."""
    file = write(f'user_input,reference_contexts\nWhen?,"[\'{FERRY}\']"\nWhy?,"[""{BREAD}""]"\n', "set.csv")
    assert [document.page_content for document in load_collection(file).documents] == [FERRY, BREAD]


def cell_row(cell: str) -> str:
    """A CSV test set with one question and one cell of contexts."""
    quoted = cell.replace('"', '""')
    return f'user_input,reference_contexts\nWhen?,"{quoted}"\n'


@pytest.mark.parametrize("between", [" ", "\n ", ", "], ids=["numpy", "numpy on two lines", "Python"])
def test_a_list_of_strings_in_a_cell_keeps_its_length(write: Write, between: str) -> None:
    """Numpy, and so pandas from Parquet, puts no commas between strings; two contexts do not become one."""
    file = write(cell_row(f"['{FERRY}'{between}\"Yeast's work.\"]"), "set.csv")
    assert [document.page_content for document in load_collection(file).documents] == [FERRY, "Yeast's work."]


@pytest.mark.parametrize(
    "cell",
    [
        f"[Document(metadata={{}}, page_content='{FERRY}')]",
        f"['{FERRY}', 'Bread ris",
        f"[{FERRY}, {BREAD}]",
        f"[{{'text': '{FERRY}'}} {{'text': '{BREAD}'}}]",
    ],
    ids=["objects", "cut", "without quotes", "numpy of objects"],
)
def test_a_cell_that_looks_like_a_list_is_not_taken_for_a_text(write: Write, cell: str) -> None:
    """What cannot be read as a list is refused, with line, cell and remedy."""
    with pytest.raises(InvalidInputError, match=r"line 2: the cell ['\"]\[.*looks like a list.*write it as JSON"):
        load_collection(write(cell_row(cell), "set.csv"))


def test_a_text_may_begin_with_a_bracket(write: Write) -> None:
    """A footnote or an editor's remark is no list."""
    file = write(cell_row("[1] The ferry leaves at nine."), "set.csv")
    assert load_collection(file).documents[0].page_content == "[1] The ferry leaves at nine."


@pytest.mark.parametrize("cell", ["", "nan", "None", "[]"])
def test_a_cell_without_a_value_is_no_context(write: Write, cell: str) -> None:
    """What pandas writes for nothing is counted as a question without contexts, and is no document."""
    found = load_collection(write(cell_row(cell) + f"Why?,{BREAD}\n", "set.csv"))
    assert [document.page_content for document in found.documents] == [BREAD]
    assert found.notes[0] == "1 questions have no reference contexts and are left out."


def test_langsmith_examples_are_a_collection(write: Write) -> None:
    """Inputs hold the question, outputs the contexts, as texts or as documents."""
    found = load_collection(write(json_lines(LANGSMITH), "examples.jsonl"))
    assert found.queries == {"e1": "When does it leave?", "e2": "Why does it rise?"}
    assert found.qrels == {"e1": {"c0": 1}, "e2": {"c1": 1}}


def test_what_a_langsmith_run_found_is_no_reference(write: Write) -> None:
    """An export of an experiment has outputs and reference outputs; only the latter say what is right."""
    outputs = {"answer": "So.", "documents": [{"page_content": FERRY}]}
    row = {"inputs": {"question": "Why?"}, "outputs": outputs, "reference_outputs": {"contexts": [BREAD]}}
    found = load_collection(write(json_lines([row]), "run.jsonl"))
    assert [document.page_content for document in found.documents] == [BREAD]
    row["reference_outputs"] = {"answer": "So."}
    with pytest.raises(InvalidInputError, match=r"line 1: no reference contexts; .*'reference_outputs'\]"):
        load_collection(write(json_lines([row]), "run.jsonl"))


def test_squad_is_a_collection(write: Write) -> None:
    """A paragraph is a document; questions without an answer are left out and counted."""
    found = load_collection(write(SQUAD, "squad.json"))
    assert (found.queries, found.qrels) == ({"s1": "When does it leave?"}, {"s1": {"c0": 1}})
    assert found.notes[0] == "1 questions have no reference contexts and are left out."


@pytest.mark.parametrize(
    "fields",
    [
        {"answers": {"text": [], "answer_start": []}},
        {"answers": []},
        {"is_impossible": True},
        {"answers": "{'text': array([], dtype=object), 'answer_start': array([], dtype=int32)}"},
        {"answers": '{"text": [], "answer_start": []}'},
        {"is_impossible": "True"},
    ],
    ids=["answers", "a list", "impossible", "numpy in a cell", "JSON in a cell", "impossible in a cell"],
)
def test_flat_squad_leaves_out_what_cannot_be_answered(write: Write, fields: dict[str, Any]) -> None:
    """One record a question, as the data set hubs have it, counts unanswerable questions as the nested form does."""
    rows = [
        {"id": "s1", "question": "When?", "context": FERRY, "answers": {"text": ["nine"], "answer_start": [21]}},
        {"id": "s2", "question": "Who steers it?", "context": FERRY, **fields},
    ]
    found = load_collection(write(json_lines(rows), "squad.jsonl"))
    assert (found.queries, found.qrels) == ({"s1": "When?"}, {"s1": {"c0": 1}})
    assert found.notes[0] == "1 questions have no reference contexts and are left out."


def test_one_context_with_an_answer_is_a_data_set_of_questions(write: Write) -> None:
    """A text named context, next to an answer, is what was asked about."""
    rows = [{"question": "When?", "context": FERRY, "answer": "At nine."}]
    assert load_collection(write(json_lines(rows), "set.jsonl")).qrels == {"q0": {"c0": 1}}


def test_a_llama_index_data_set_is_a_collection(write: Write) -> None:
    """Queries, corpus and relevant documents keep their ids."""
    found = load_collection(write(LLAMA_INDEX, "set.json"))
    assert found.documents == [Document(FERRY, id="n1"), Document(BREAD, id="n2")]
    assert found.qrels == {"q1": {"n1": 1}}


def test_contexts_are_matched_with_ones_own_documents(write: Write) -> None:
    """White space aside, a document that contains a context, or is part of one, answers; what is lost is counted."""
    own = [
        Document(f"Before.\n{FERRY.replace(' ', '  ')} After.", id="whole"),
        Document("The ferry", id="part"),
        Document("Nothing of it.", id="other"),
    ]
    found = load_collection(write(RAGAS, "set.json"), documents=own)
    assert found.documents == own
    assert found.qrels == {"q0": {"whole": 1, "part": 1}, "q1": {"whole": 1, "part": 1}}
    assert found.notes == ("1 reference contexts are in none of the documents.",)
    with pytest.raises(InvalidInputError, match=r"none of the reference contexts of .* is in the documents"):
        load_collection(write(RAGAS, "set.json"), documents=own[2:])


@pytest.mark.parametrize("text", ["2", "art", "cent", "The"])
def test_a_few_characters_in_common_are_no_judgement(write: Write, text: str) -> None:
    """A page number, a part of a word and a word alone answer nothing; how many there are is noted."""
    context = "In 1820 the artist moved to Vincent Street, where he lived for 42 years. The house is a museum now."
    rows = [{"user_input": "Where did he live?", "reference_contexts": [context]}]
    own = [Document(f"Chapter 5. {context}", id="whole"), Document(text, id="by chance")]
    found = load_collection(write(rows, "set.json"), documents=own)
    assert found.qrels == {"q0": {"whole": 1}}
    assert [note for note in found.notes if "1 documents share only a few characters" in note and "by chance" in note]


@pytest.mark.parametrize(
    ("context", "document", "judged"),
    [
        ("the artist lived there for forty years", "artist lived there for forty", True),
        ("the artist lived there for forty years", "tist lived there for fort", False),
        ("(the artist) lived", "artist", True),
        ("私は昨日東京に行きました", "東京に行きました", True),
    ],
    ids=["whole words", "cut words", "beside a bracket", "a script without spaces"],
)
def test_a_part_is_of_whole_words(write: Write, context: str, document: str, judged: bool) -> None:
    """A document that begins or ends within a word of the context may be there by chance."""
    rows = [{"user_input": "Where?", "reference_contexts": [context]}]
    own = [Document(context, id="same"), Document(document, id="part")]
    found = load_collection(write(rows, "set.json"), documents=own[1:] if judged else own)
    assert found.qrels == {"q0": {"part" if judged else "same": 1}}
    with pytest.raises(InvalidInputError, match="is in the documents") if not judged else nullcontext():
        load_collection(write(rows, "set.json"), documents=own[1:])


def test_a_folder_is_read_as_beir(write_beir: WriteBeir) -> None:
    """`load_collection` takes a folder as well, with its split; a file has neither split nor qrels."""
    folder = write_beir()
    assert load_collection(folder).queries.keys() == {"q1", "q2"}
    with pytest.raises(InvalidInputError, match="leave qrels= and split= out"):
        load_collection(folder / "corpus.jsonl", split="test")
    with pytest.raises(InvalidInputError, match="a folder has its own corpus"):
        load_collection(folder, documents=[])


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": "Why?", "contexts": [FERRY], "answer": "So."}, ".*what a system retrieved"),
        (
            {"query": "Why?", "result": "So.", "source_documents": [{"page_content": FERRY}]},
            "'source_documents' is what",
        ),
        ({"question": "Why?", "source_documents": [FERRY]}, "'source_documents' is what a system retrieved"),
        ({"input": "Why?", "answer": "So.", "context": [{"page_content": FERRY}]}, "'context' next to an answer is"),
        ({"question": "Why?", "answer": "So.", "documents": [FERRY]}, "'documents' next to an answer is"),
        ({"user_input": "Why?", "response": "So.", "passages": [FERRY]}, "'passages' next to an answer is"),
        ({"question": "Why?", "answer": "So.", "context": f"['{FERRY}' '{BREAD}']"}, "'context' next to an answer is"),
        ({"question": "Why?"}, r"no reference contexts; .*\['question'\]"),
        ({"reference_contexts": [FERRY]}, r"no question; .*\['reference_contexts'\]"),
        ({"question": "Why?", "reference_contexts": [5]}, "a reference context is 5"),
    ],
    ids=[
        "retrieved",
        "RetrievalQA",
        "source documents",
        "a retrieval chain",
        "documents",
        "passages",
        "a list in a cell",
        "no contexts",
        "no question",
        "number",
    ],
)
def test_a_row_that_says_something_else_is_refused(write: Write, row: dict[str, Any], complaint: str) -> None:
    """What a system retrieved is not what is right, and missing keys are named with file and line."""
    with pytest.raises(InvalidInputError, match=rf"set\.jsonl, line 1: {complaint}"):
        load_collection(write(json.dumps(row), "set.jsonl"))


def test_a_missing_path_is_named(write: Write) -> None:
    """A path that is not there, and a file without questions, are input errors."""
    for split in (None, "test"):
        with pytest.raises(InvalidInputError, match="there is no file or folder 'nowhere"):
            load_collection("nowhere.json", split=split)
    with pytest.raises(InvalidInputError, match="no question with reference contexts"):
        load_collection(write([], "empty.json"))
