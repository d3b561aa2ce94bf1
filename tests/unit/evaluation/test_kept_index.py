"""The kept index: exact search, each text embedded once, and nothing wrong after a kill or another model."""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_crossrerank.errors import IndexingError, InvalidInputError
from langchain_crossrerank.evaluation.kept_index import KeptVectorStore, kept_vector_store
from langchain_crossrerank.evaluation.kept_vectors import KeptVectors


class HashEmbeddings(Embeddings):
    """Vectors from a hash of the text and a seed; counts what was embedded, and may fail after some."""

    def __init__(self, seed: int = 0, *, fails_after: int | None = None) -> None:
        self.seed = seed
        self.embedded: list[str] = []
        self.fails_after = fails_after

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.fails_after is not None and len(self.embedded) + len(texts) > self.fails_after:
            raise RuntimeError("killed")
        self.embedded += texts
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        digest = hashlib.blake2b(f"{self.seed} {text}".encode("utf-8", "surrogatepass"), digest_size=32).digest()
        return [float(value) - 128 for value in digest]


def documents(count: int, start: int = 0) -> list[Document]:
    return [Document(f"text {number}", id=f"d{number}", metadata={"n": number}) for number in range(start, count)]


def store(
    found: list[Document], embeddings: Embeddings, folder: Path, name: str = "hash", *, progress: bool = False
) -> KeptVectorStore:
    return kept_vector_store(found, embeddings, name=name, folder=folder, show_progress=progress)


@pytest.mark.parametrize("block", [3, 8192])
def test_the_search_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Documents, scores and order are those of LangChain's own store, whatever the blocks."""
    monkeypatch.setattr("langchain_crossrerank.evaluation.kept_index._BLOCK", block)
    found = documents(40)
    kept, plain = store(found, HashEmbeddings(), tmp_path), InMemoryVectorStore(HashEmbeddings())
    plain.add_documents(found)
    for query in ("text 3", "something else"):
        mine = kept.similarity_search_with_score(query, k=7)
        theirs = plain.similarity_search_with_score(query, k=7)
        assert [document for document, _ in mine] == [document for document, _ in theirs]
        assert [score for _, score in mine] == pytest.approx([score for _, score in theirs], abs=1e-5)


def test_a_text_is_embedded_once(tmp_path: Path) -> None:
    """A second store embeds nothing, a grown collection only what is new, and equal texts count once."""
    first = HashEmbeddings()
    store([*documents(10), Document("text 3", id="twin")], first, tmp_path)
    assert sorted(first.embedded) == sorted({document.page_content for document in documents(10)})
    again = HashEmbeddings()
    kept = store(documents(13, start=5), again, tmp_path)
    assert sorted(again.embedded) == ["text 10", "text 11", "text 12"]
    assert [document.id for document in kept.similarity_search("text 7", k=1)] == ["d7"]


def test_equal_texts_are_all_found(tmp_path: Path) -> None:
    """Documents with one text keep their own ids, in their order."""
    kept = store(
        [Document("same", id="a"), Document("other", id="b"), Document("same", id="c")], HashEmbeddings(), tmp_path
    )
    assert [document.id for document in kept.similarity_search("same", k=2)] == ["a", "c"]


def test_what_was_embedded_before_a_kill_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped continues where it was, and finds the same as one that was not."""
    monkeypatch.setattr("langchain_crossrerank.evaluation.kept_index._BATCH", 4)
    with pytest.raises(RuntimeError, match="killed"):
        store(documents(20), HashEmbeddings(fails_after=10), tmp_path)
    rest = HashEmbeddings()
    kept = store(documents(20), rest, tmp_path)
    assert len(rest.embedded) == 12
    whole = store(documents(20), HashEmbeddings(), tmp_path / "other")
    assert kept.similarity_search_with_score("x", 20) == whole.similarity_search_with_score("x", 20)


@pytest.mark.parametrize("file", ["vectors-*.f32", "keys-*.bin"])
@pytest.mark.parametrize("cut", [1, 17, 200])
def test_a_cut_file_costs_only_its_end(tmp_path: Path, file: str, cut: int) -> None:
    """Whatever a crash cut off, what is found afterwards is right."""
    store(documents(20), HashEmbeddings(), tmp_path)
    (path,) = tmp_path.glob(f"*/{file}")
    path.write_bytes(path.read_bytes()[:-cut])
    rest = HashEmbeddings()
    kept = store(documents(20), rest, tmp_path)
    assert 0 < len(rest.embedded) < 20
    for number in range(20):
        ((document, score),) = kept.similarity_search_with_score(f"text {number}", k=1)
        assert (document.id, score) == (f"d{number}", pytest.approx(1))


def test_other_embeddings_under_the_name_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Vectors of a model that was replaced are thrown away, with a warning; other names are apart."""
    store(documents(5), HashEmbeddings(), tmp_path)
    other = HashEmbeddings(seed=1)
    with caplog.at_level(logging.WARNING):
        store(documents(5), other, tmp_path)
    assert len(other.embedded) == 5
    assert "are not those of the kept vectors" in caplog.text
    apart = HashEmbeddings()
    store(documents(5), apart, tmp_path, name="another")
    assert len(apart.embedded) == 5


def test_embeddings_that_were_replaced_while_in_use_never_mix(tmp_path: Path) -> None:
    """A process that goes on with the old model stops with an error, and the new model's vectors stay whole."""
    old = KeptVectors(tmp_path, "model", [1.0, 0.0])
    old.append([b"a" * 16], [[1.0, 0.0]])
    new = KeptVectors(tmp_path, "model", [0.0, 1.0, 0.0])
    new.append([b"b" * 16], [[0.0, 1.0, 0.0]])
    for late in (lambda: old.append([b"c" * 16], [[1.0, 0.0]]), old.open):
        with pytest.raises(IndexingError, match="replaced by those of other embeddings"):
            late()
    again = KeptVectors(tmp_path, "model", [0.0, 1.0, 0.0])
    assert set(again.rows) == {b"b" * 16}
    assert again.open().tolist() == [[0.0, 1.0, 0.0]]


def test_a_damaged_note_starts_over(tmp_path: Path) -> None:
    """Vectors with an unreadable note are not trusted."""
    store(documents(5), HashEmbeddings(), tmp_path)
    (note,) = tmp_path.glob("*/note.json")
    note.write_bytes(b"\xff{")
    again = HashEmbeddings()
    store(documents(5), again, tmp_path)
    assert len(again.embedded) == 5


def test_several_can_embed_at_once(tmp_path: Path) -> None:
    """Two that share a folder lose nothing and mix nothing up."""
    stores: list[KeptVectorStore] = []

    def work(start: int) -> None:
        stores.append(store(documents(60, start=start), HashEmbeddings(), tmp_path))

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 3
    for kept in [*stores, store(documents(60), HashEmbeddings(fails_after=0), tmp_path)]:
        ((document, score),) = kept.similarity_search_with_score("text 50", k=1)
        assert (document.id, score) == ("d50", pytest.approx(1))


def test_the_digest_is_of_contents_and_name(tmp_path: Path) -> None:
    """Another document, text, id, metadata or name of the embeddings is another index."""
    base = documents(3)
    digests = [
        store(found, HashEmbeddings(), tmp_path, name=name).digest
        for found, name in (
            (base, "hash"),
            (list(base), "hash"),
            (base[:2], "hash"),
            ([*base[:2], Document("text 2", id="x")], "hash"),
            ([*base[:2], Document("changed", id="d2")], "hash"),
            ([*base[:2], base[2].model_copy(update={"metadata": {"title": "changed"}})], "hash"),
            (base, "other"),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 6


@pytest.mark.parametrize("text", ["", "lone \ud800 surrogate", "🙂" * 1000])
def test_any_text_can_be_kept(tmp_path: Path, text: str) -> None:
    """Blank, broken and long texts have keys like any other."""
    kept = store([Document(text, id="a")], HashEmbeddings(), tmp_path)
    assert [document.id for document in kept.similarity_search(text, k=3)] == ["a"]


def test_an_empty_collection_finds_nothing(tmp_path: Path) -> None:
    """No documents are no error, and zero vectors are no division by zero."""

    class Zeros(HashEmbeddings):
        def embed_query(self, text: str) -> list[float]:
            return [0.0] * 4

    assert store([], HashEmbeddings(), tmp_path).similarity_search("x") == []
    ((_, score),) = store(documents(1), Zeros(), tmp_path, name="zeros").similarity_search_with_score("x")
    assert score == 0
    assert not np.isnan(score)


def test_what_the_store_cannot_do_is_refused(tmp_path: Path) -> None:
    """A filter is named and not ignored."""
    with pytest.raises(InvalidInputError, match="a kept index has no filter"):
        store(documents(2), HashEmbeddings(), tmp_path).similarity_search("x", k=1, filter={"n": 1})


def test_the_callers_documents_stay_as_they_were(tmp_path: Path) -> None:
    """What is found are copies."""
    found = documents(2)
    store(found, HashEmbeddings(), tmp_path).similarity_search("text 0", k=1)[0].metadata["n"] = "changed"
    assert found == documents(2)


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], progress: bool
) -> None:
    """Embedding is shown, and only there; where nothing is embedded nothing is shown."""
    store(documents(3), HashEmbeddings(), tmp_path, progress=progress)
    output = capsys.readouterr()
    assert output.out == ""
    assert ("Embedding" in output.err) is progress
    store(documents(3), HashEmbeddings(), tmp_path, progress=True)
    assert capsys.readouterr().err == ""


def test_a_retriever_takes_k(tmp_path: Path) -> None:
    """The store serves as a first stage like any other."""
    kept = KeptVectorStore.from_texts(
        ["a", "b", "c"], HashEmbeddings(), name="hash", folder=tmp_path, ids=["1", "2", "3"]
    )
    assert len(kept.as_retriever(search_kwargs={"k": 2}).invoke("a")) == 2
