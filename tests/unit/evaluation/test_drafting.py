"""Drafting queries with a language model: what is asked, what is written, and what is never touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import BaseMessage

from langchain_crossrerank.errors import AnswerError, InvalidInputError
from langchain_crossrerank.evaluation import drafting, load_beir
from langchain_crossrerank.evaluation.drafting import draft_queries
from langchain_crossrerank.files import write_whole

FILES = ["corpus.jsonl", "qrels.drafted.tsv", "queries.jsonl"]


class ScriptedChatModel(SimpleChatModel):
    """A chat model that answers a passage by a function, and keeps the passages."""

    answer: Callable[[str], str]
    passages: list[str]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
        passage = str(messages[0].content).split("Passage:\n", 1)[1]
        self.passages.append(passage)
        return self.answer(passage)


def scripted(answer: Callable[[str], str] = lambda passage: f"what of {passage}") -> ScriptedChatModel:
    """Make a chat model that answers by a function."""
    return ScriptedChatModel(answer=answer, passages=[])


def chunks(count: int) -> list[Document]:
    """Make chunks with texts of their own."""
    return [Document(f"text {number}", metadata={"page": number}) for number in range(count)]


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_beir_folder_is_written(tmp_path: Path) -> None:
    """All chunks, the queries with their origin, and a judgement for each query's chunk are in three files."""
    assert draft_queries(chunks(3), scripted(), 3, tmp_path / "new") == 3
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == FILES
    assert read_rows(tmp_path / "new" / "corpus.jsonl") == [
        {"_id": f"c0000{n}", "title": "", "text": f"text {n}", "metadata": {"page": n}} for n in range(3)
    ]
    assert read_rows(tmp_path / "new" / "queries.jsonl") == [
        {"_id": f"qc0000{n}", "text": f"what of text {n}", "metadata": {"origin": "drafted"}} for n in range(3)
    ]
    assert (tmp_path / "new" / "qrels.drafted.tsv").read_text() == (
        "query-id\tcorpus-id\tscore\nqc00000\tc00000\t1\nqc00001\tc00001\t1\nqc00002\tc00002\t1\n"
    )


def test_drafted_judgements_are_not_read_unasked(tmp_path: Path) -> None:
    """`load_beir` takes nothing for a person's judgements until they are saved under that name."""
    draft_queries(chunks(2), scripted(), 2, tmp_path)
    with pytest.raises(InvalidInputError, match=r"qrels\.tsv"):
        load_beir(tmp_path)
    drafted = load_beir(tmp_path, qrels="qrels.drafted.tsv")
    (tmp_path / "qrels.drafted.tsv").rename(tmp_path / "qrels.tsv")
    assert load_beir(tmp_path) == drafted
    assert drafted.qrels == {"qc00000": {"c00000": 1}, "qc00001": {"c00001": 1}}


@pytest.mark.parametrize(
    "text",
    [
        "two\nlines\r\nand\ta tab",
        "Straße, 東京, 🙂, שלום",
        'quotes " and \\ and {braces} and {passage}',
        "line\u2028separator, page\x0cbreak, next\x85line",
        "  space around  ",
        "lone \ud800 surrogate and \\ud800 in letters",
    ],
)
def test_any_text_survives(tmp_path: Path, text: str) -> None:
    """A chunk's text is sent, written and read again unchanged; its question is on one line."""
    llm = scripted(lambda passage: f"  what\tabout\n{passage}?\n")
    draft_queries([Document(text)], llm, 1, tmp_path)
    assert llm.passages == [text]
    collection = load_beir(tmp_path, qrels="qrels.drafted.tsv")
    assert [document.page_content for document in collection.documents] == [text]
    assert collection.queries == {"qc00000": " ".join(f"what about {text}?".split())}


def test_metadata_that_json_cannot_hold_is_left_out(tmp_path: Path) -> None:
    """Texts and numbers of a chunk's metadata are kept, anything else is not."""
    metadata = {"source": "a.pdf", "page": 3, "share": 0.5, "read": True, "path": tmp_path, "tags": ["x"], "none": None}
    draft_queries([Document("text", metadata=metadata)], scripted(), 1, tmp_path)
    (row,) = read_rows(tmp_path / "corpus.jsonl")
    assert row["metadata"] == {"source": "a.pdf", "page": 3, "share": 0.5, "read": True}


@pytest.mark.parametrize(
    ("there", "count", "chosen"),
    [(5, 5, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (10, 1, [0]), (10, 6, [0, 1, 3, 5, 6, 8]), (9, 3, [0, 3, 6])],
)
def test_chunks_are_taken_evenly_over_the_whole(tmp_path: Path, there: int, count: int, chosen: list[int]) -> None:
    """The chosen chunks reach from the first to the last part, also where `count` does not divide their number."""
    llm = scripted()
    assert draft_queries(chunks(there), llm, count, tmp_path) == len(chosen)
    assert sorted(llm.passages) == [f"text {number}" for number in chosen]


def test_chunks_without_text_are_not_sent(tmp_path: Path) -> None:
    """A blank chunk stays in the corpus, and the drafts come from the others."""
    llm = scripted()
    documents = [Document("  \n"), Document("text a"), Document(""), Document("text b")]
    assert draft_queries(documents, llm, 2, tmp_path) == 2
    assert sorted(llm.passages) == ["text a", "text b"]
    collection = load_beir(tmp_path, qrels="qrels.drafted.tsv")
    assert len(collection.documents) == 4
    assert collection.qrels == {"qc00001": {"c00001": 1}, "qc00003": {"c00003": 1}}


def test_a_blank_draft_is_left_out(tmp_path: Path) -> None:
    """A chunk whose draft is blank has no query and no judgement."""
    llm = scripted(lambda passage: " \n" if passage == "text 1" else passage)
    assert draft_queries(chunks(3), llm, 3, tmp_path) == 2
    assert load_beir(tmp_path, qrels="qrels.drafted.tsv").queries == {"qc00000": "text 0", "qc00002": "text 2"}


def test_the_same_question_is_one_query_that_all_its_chunks_answer(tmp_path: Path) -> None:
    """Capitals and spaces aside, equal drafts are one query, judged against each chunk they came from."""
    answers = {"text 0": "What is LoRA?", "text 1": "And this?", "text 2": "what  is lora?\n"}
    assert draft_queries(chunks(3), scripted(answers.__getitem__), 3, tmp_path) == 2
    collection = load_beir(tmp_path, qrels="qrels.drafted.tsv")
    assert collection.queries == {"qc00000": "What is LoRA?", "qc00001": "And this?"}
    assert collection.qrels == {"qc00000": {"c00000": 1, "c00002": 1}, "qc00001": {"c00001": 1}}


def test_nothing_drafted_is_an_error(tmp_path: Path) -> None:
    """When every draft is blank no folder is made."""
    with pytest.raises(AnswerError, match="drafted nothing from 3 chunks"):
        draft_queries(chunks(3), scripted(lambda passage: "\n"), 3, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels.tsv", "qrels.drafted.tsv", "qrels"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, name: str) -> None:
    """A folder with a part of any collection is refused before the language model is asked."""
    (tmp_path / name).write_text("mine")
    llm = scripted()
    with pytest.raises(InvalidInputError, match=rf"holds {name} already"):
        draft_queries(chunks(3), llm, 3, tmp_path)
    assert llm.passages == []
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_what_came_while_drafting_is_not_overwritten_either(tmp_path: Path) -> None:
    """The folder is looked at again before writing."""

    def write_meanwhile(passage: str) -> str:
        (tmp_path / "corpus.jsonl").write_text("mine")
        return passage

    with pytest.raises(InvalidInputError, match=r"holds corpus\.jsonl already"):
        draft_queries(chunks(1), scripted(write_meanwhile), 1, tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("corpus.jsonl", "mine")]


def test_other_files_of_the_folder_stay(tmp_path: Path) -> None:
    """A folder may hold files that are no part of a collection."""
    (tmp_path / "README.md").write_text("mine")
    draft_queries(chunks(2), scripted(), 2, tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_file_in_the_folders_place_is_refused_first(tmp_path: Path) -> None:
    """A path that is a file is named before the language model is asked."""
    (tmp_path / "new").write_text("mine")
    llm = scripted()
    with pytest.raises(InvalidInputError, match="new' is a file; name a folder"):
        draft_queries(chunks(3), llm, 3, tmp_path / "new")
    assert llm.passages == []


def test_a_language_model_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Its own error comes through, and no folder is made."""

    def fail_late(passage: str) -> str:
        if passage == "text 2":
            raise RuntimeError("no more quota")
        return passage

    with pytest.raises(RuntimeError, match="no more quota"):
        draft_queries(chunks(4), scripted(fail_late), 4, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("failing", FILES)
def test_a_file_that_cannot_be_written_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """When one of the files fails the others are taken back, so that a second try finds the folder free."""

    def fail_at_one(path: Path, text: str) -> None:
        if path.name == failing:
            raise OSError(28, "No space left on device")
        write_whole(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(drafting, "write_whole", fail_at_one)
        with pytest.raises(OSError, match="No space left"):
            draft_queries(chunks(2), scripted(), 2, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert draft_queries(chunks(2), scripted(), 2, tmp_path) == 2


@pytest.mark.parametrize(
    ("documents", "count", "said"),
    [
        ([], 3, "3 queries from 0 chunks"),
        ([Document(" ")], 3, "3 queries from 0 chunks"),
        (chunks(2), 0, "0 queries"),
        (chunks(2), -1, "-1 queries"),
    ],
)
def test_nothing_to_draft_is_refused(tmp_path: Path, documents: list[Document], count: int, said: str) -> None:
    """Without text or with a count below 1 the language model is not asked."""
    llm = scripted()
    with pytest.raises(InvalidInputError, match=said):
        draft_queries(documents, llm, count, tmp_path / "new")
    assert llm.passages == []
    assert not (tmp_path / "new").exists()


def test_drafted_queries_are_known_by_their_origin(tmp_path: Path) -> None:
    """Ids are those of `load_beir`, and only of queries whose origin is a draft."""
    rows = [
        {"_id": 1, "text": "a", "metadata": {"origin": "drafted"}},
        {"_id": "2", "text": "b", "metadata": {"origin": "log"}},
        {"_id": "3", "text": "c", "metadata": None},
        {"_id": "4", "text": "d"},
    ]
    (tmp_path / "queries.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "x", "text": "a passage"}))
    (tmp_path / "qrels.tsv").write_text("".join(f"{key}\tx\t1\n" for key in "124"))
    assert load_beir(tmp_path).drafted == {"1"}
