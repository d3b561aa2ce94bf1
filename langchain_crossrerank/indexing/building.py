"""Builds an index: finds, reads, cuts, embeds and stores files, and keeps a store true to the files it is made of."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4
from weakref import WeakKeyDictionary

from filelock import FileLock, Timeout
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from langchain_crossrerank.checks import check_choices
from langchain_crossrerank.cross_encoders.model_files import BUNDLED
from langchain_crossrerank.embeddings import DEFAULT_EMBEDDINGS, load_embeddings
from langchain_crossrerank.embeddings.settings import WHEEL_EMBEDDINGS
from langchain_crossrerank.errors import IndexingError, InvalidInputError, MissingExtraError
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.files import write_whole
from langchain_crossrerank.indexing.cutting import CHUNK_OVERLAP, CHUNK_SIZE, Splitter, split_documents
from langchain_crossrerank.indexing.finding import FoundFiles, Paths, check_found, search_files
from langchain_crossrerank.indexing.progress import Progress
from langchain_crossrerank.indexing.reading import PdfReader, largest_size, read_file, show_path
from langchain_crossrerank.indexing.records import (
    FileRecord,
    KeptRecords,
    MemoryRecords,
    Records,
    describe_file,
    is_unchanged,
    unfinished,
)
from langchain_crossrerank.indexing.report import IndexReport
from langchain_crossrerank.indexing.stores import (
    Changes,
    chunk_id,
    chunk_ids,
    compare_chunks,
    holds_chunks,
    remove_chunks,
)

_READING_VERSION = 3
"""Counted up when files are read or cut differently, so that a kept index is brought up to date."""

_BATCH = 128
"""Chunks that are embedded and stored at once."""

_EMBEDDINGS_NOTE = "embeddings.json"
"""Name of the file beside a kept collection that says what embedded it."""

_LOCK = "index.lock"
"""Name of the file beside a kept collection that a process locks while it brings the collection up to date."""

_ESCAPED_BYTE = re.compile(r"\\x[0-9a-f]{2}")

_logger = logging.getLogger(__name__)
_RECORDS: WeakKeyDictionary[VectorStore, MemoryRecords] = WeakKeyDictionary()


def index_files(
    paths: Paths,
    *,
    vector_store: VectorStore | None = None,
    embeddings: Embeddings | str = DEFAULT_EMBEDDINGS,
    persist_directory: str | os.PathLike[str] | None = None,
    all_files: bool = False,
    chunk_size: int = CHUNK_SIZE,
    chunk_overlap: int = CHUNK_OVERLAP,
    splitter: Splitter = "structure",
    pdf_reader: PdfReader = "pypdfium2",
    show_progress: bool = True,
) -> IndexReport:
    """Read files, split them, embed the chunks and store them; only what has changed is read and embedded.

    A file that is unchanged since it was indexed is recognised by size, time and content before it is read. A file that
    changed replaces its chunks, and a file that is gone from a folder named here is taken out. A file that cannot be
    read, embedded or stored is reported and does not stop the others. Of files with the same content, the first that
    can be read is indexed.

    Args:
        paths: A file, a folder (see `find_files`), or several of them.
        vector_store: Where to store; `None` makes a Chroma collection, in memory or in `persist_directory`.
        embeddings: LangChain embeddings, or a name for `load_embeddings`; not used with `vector_store`.
        persist_directory: Folder of a Chroma collection that is kept, with the records of what is in it. While another
            process indexes into it, this one waits. Not together with `vector_store`.
        all_files: Whether a kept collection answers from all of its files that still exist; by default it answers from
            the files named in this call alone.
        chunk_size: As in `split_documents`.
        chunk_overlap: As in `split_documents`.
        splitter: As in `split_documents`.
        pdf_reader: As in `load_documents`.
        show_progress: Whether to show a progress bar on standard error.

    Returns:
        The vector store, what was added, skipped and deleted, and what was left out.

    Raises:
        InvalidInputError: If a path does not exist or no file is found that can be read; or if the kept index was made
            with other embeddings.
        IndexingError: If not a single file could be indexed.
        MissingExtraError: If the `rag` extra, or for converted types the `documents` extra, is not installed.
    """
    check_extra("rag", needed_for="indexing files", modules=("langchain_text_splitters", "sentencex"), backend="rag")
    if vector_store is not None and persist_directory is not None:
        raise InvalidInputError("vector_store and persist_directory were both given; pass one of them.")
    if persist_directory is not None and Path(persist_directory).exists() and not Path(persist_directory).is_dir():
        raise InvalidInputError(f"persist_directory {os.fspath(persist_directory)!r} is a file; name a folder.")
    check_choices(splitter=(splitter, ("structure", "plain")), pdf_reader=(pdf_reader, ("pypdfium2", "pypdf")))
    split = partial(split_documents, chunk_size=chunk_size, chunk_overlap=chunk_overlap, splitter=splitter)
    # Sizes that do not fit are found before anything is read.
    split([])
    found = search_files(paths)
    kept = Path(persist_directory) if persist_directory is not None else None
    if not found.folders or (vector_store is None and (kept is None or not kept.exists())):
        # Nothing can be gone from a folder that is not named, or from an index that is new.
        check_found(found)
    settings = json.dumps([_READING_VERSION, chunk_size, chunk_overlap, splitter, pdf_reader])
    with _alone(kept) if kept is not None else nullcontext():
        if vector_store is None:
            vector_store = _open_chroma(embeddings, kept)
        records = KeptRecords(kept) if kept is not None else _records_of(vector_store)
        builder = _Builder(vector_store, records, settings, pdf_reader, split)
        with Progress(show_progress) as progress:
            builder.index(found, progress)
    report = builder.report
    silent = builder.copies | {failure.path for failure in report.failures}
    report.sources = [source for source in map(show_path, found.files) if source not in silent]
    if kept is not None:
        _narrow(report, records, all_files)
    return report


class _Builder:
    """Brings one store up to date with files."""

    def __init__(
        self,
        store: VectorStore,
        records: Records,
        settings: str,
        pdf_reader: PdfReader,
        split: Callable[[Sequence[Document]], list[Document]],
    ) -> None:
        self.store = store
        self.records = records
        self.settings = settings
        self.pdf_reader = pdf_reader
        self.split = split
        self.report = IndexReport(store)
        self.copies: set[str] = set()
        self._contents: dict[str, str] = {}
        self._pending: list[tuple[FileRecord, Changes]] = []

    def index(self, found: FoundFiles, progress: Progress) -> None:
        """Index the files that were found and changed, and take out those that are gone from the folders."""
        looked_at = [seen for file in found.files if (seen := self._look_at(file)) is not None]
        progress.expect(sum(record.size for _, record, is_known in looked_at if not is_known))
        for file, record, is_known in looked_at:
            if not is_known:
                progress.start(file, record.size)
            if self._is_copy(record):
                pass
            elif is_known:
                self._keep(record)
            else:
                self._read(file, record, progress)
            if sum(len(changes.add) for _, changes in self._pending) >= _BATCH:
                self._store_pending(progress)
            progress.finish()
        self._store_pending(progress)
        for problem in (*self.report.notes, *self.report.failures):
            _logger.warning("%s", problem)
        self.report.notes += found.notes
        self._take_out_missing(found)
        check_found(found)
        if len(self.report.failures) == len(found.files):
            failures = self.report.failures
            raise IndexingError("; ".join(map(str, failures)), path=failures[0].path) from failures[0]

    def _look_at(self, file: Path) -> tuple[Path, FileRecord, bool] | None:
        """Return a file, its record as it is now, and whether the store holds it as it is now."""
        source = show_path(file)
        known = self.records.get(source)
        try:
            now = describe_file(file, source, self.settings)
            same, record = is_unchanged(file, now, known, largest=largest_size(file))
        except OSError as err:
            self._fail(source, f"{source!r} cannot be read: {err.strerror or err}.", err)
            return None
        is_known = same and known is not None and holds_chunks(self.store, source, known.chunks)
        if is_known and record is not known:
            self.records.put(record)
        return file, record, is_known

    def _keep(self, record: FileRecord) -> None:
        """Count a file that the store holds as it is now."""
        self.report.skipped += record.chunks
        self.report.notes += record.notes
        if record.failure:
            self.report.failures.append(IndexingError(record.failure, path=record.source))
        else:
            self._contents[record.digest] = record.source

    def _is_copy(self, record: FileRecord) -> bool:
        """Whether a file has the same content as one that was read before it in this call; if so, only that answers."""
        first = self._contents.get(record.digest)
        if record.size == 0 or first is None:
            return False
        self._take_out(record.source)
        self.copies.add(record.source)
        self.report.notes.append(f"{record.source!r}: left out, because it is a copy of {first!r}.")
        return True

    def _read(self, file: Path, record: FileRecord, progress: Progress) -> None:
        """Read and cut a file, and note what has to change in the store."""
        self.report.read += 1
        source = record.source
        try:
            text = read_file(file, pdf_reader=self.pdf_reader, on_page=partial(progress.page, file))
            chunks = self.split(text.documents)
        except IndexingError as err:
            self.report.failures.append(err)
            record = replace(record, failure=str(err))
            chunks, pages, notes = [], 1, []
        except MissingExtraError:
            raise
        except Exception as err:  # noqa: BLE001 - whatever is in a file, it must not stop the others
            self._fail(source, f"{source!r} cannot be read ({type(err).__name__}: {err}).", err)
            return
        else:
            pages, notes = text.pages, text.notes
            self._contents[record.digest] = source
        self.report.notes += notes
        chunks = [chunk.model_copy(update={"id": chunk_id(source, place)}) for place, chunk in enumerate(chunks)]
        known = self.records.get(source)
        changes = compare_chunks(self.store, source, chunks, known.chunks if known is not None else self._unknown())
        self._pending.append((replace(record, chunks=len(chunks), pages=pages, notes=notes), changes))

    def _unknown(self) -> int | None:
        """How many chunks a file without a record has: none in a collection of our own, unknown in another store."""
        return 0 if isinstance(self.records, KeptRecords) else None

    def _store_pending(self, progress: Progress) -> None:
        """Embed and store the chunks of the files that were read; if that fails, find the file it is due to."""
        pending, self._pending = self._pending, []
        for record, changes in pending:
            # Should this process end before all is stored, the file is read again, and what is there of it is known.
            self.records.put(unfinished(record, self.records.get(record.source)))
            self._remove(record.source, changes.remove)
        try:
            self._add([chunk for _, changes in pending for chunk in changes.add], progress)
        except MissingExtraError:
            raise
        except Exception as err:  # noqa: BLE001 - stores and embeddings have errors of their own
            stored = [pair for pair in pending if len(pending) > 1 and self._add_one(*pair, progress)]
            if len(pending) == 1:
                self._fail_storing(pending[0][0], err)
        else:
            stored = pending
        for record, changes in stored:
            self.records.put(record)
            self.report.added += len(changes.add)
            self.report.skipped += changes.kept

    def _add_one(self, record: FileRecord, changes: Changes, progress: Progress) -> bool:
        try:
            self._add(changes.add, progress)
        except Exception as err:  # noqa: BLE001 - stores and embeddings have errors of their own
            self._fail_storing(record, err)
            return False
        return True

    def _add(self, chunks: Sequence[Document], progress: Progress) -> None:
        for start in range(0, len(chunks), _BATCH):
            batch = list(chunks[start : start + _BATCH])
            self.store.add_documents(batch, ids=[str(chunk.id) for chunk in batch])
            progress.stored(start + len(batch), len(chunks))

    def _fail_storing(self, record: FileRecord, err: Exception) -> None:
        source = record.source
        self._fail(source, f"{source!r} cannot be embedded or stored ({type(err).__name__}: {err}).", err)
        with suppress(Exception):
            # Half a file would be searched as if it were the whole one.
            stored = self.records.get(source) or record
            if remove_chunks(self.store, chunk_ids(source, stored.chunks)):
                self.records.remove(source)

    def _fail(self, source: str, message: str, err: Exception) -> None:
        failure = IndexingError(message, path=source)
        failure.__cause__ = err
        self.report.failures.append(failure)

    def _take_out_missing(self, found: FoundFiles) -> None:
        """Take out the chunks of files that were in a folder that was searched, and no longer exist."""
        folders = [f"{show_path(folder).rstrip(os.sep)}{os.sep}" for folder in found.folders]
        if not folders:
            return
        named = {show_path(file) for file in found.files}
        for source in self.records.sources():
            if source in named or not source.startswith(tuple(folders)) or _exists(source):
                continue
            self._take_out(source)

    def _take_out(self, source: str) -> None:
        """Take all chunks of a file out of the store, and forget it."""
        known = self.records.get(source)
        changes = compare_chunks(self.store, source, [], known.chunks if known is not None else self._unknown())
        if self._remove(source, changes.remove):
            self.records.remove(source)

    def _remove(self, source: str, ids: Sequence[str]) -> bool:
        """Remove chunks of a file; note it if the store cannot."""
        if remove_chunks(self.store, ids):
            self.report.deleted += len(ids)
            return True
        self.report.notes.append(
            f"{source!r}: chunks of an earlier version stay, because {type(self.store).__name__} cannot delete; "
            "build the index again to remove them."
        )
        return False


def _exists(source: str) -> bool:
    # A name that is not UTF-8 is recorded with escapes and cannot be looked up; it counts as being there.
    return (os.sep == "/" and _ESCAPED_BYTE.search(source) is not None) or os.path.lexists(source)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time index into a folder; two would leave chunks of both versions of a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _logger.warning("waiting for another process that indexes into %s", show_path(folder))
            lock.acquire()
    except (OSError, NotImplementedError) as err:
        raise IndexingError(
            f"the index in {show_path(folder)!r} cannot be locked ({err}); keep it in a folder that can be written to.",
            path=show_path(folder),
        ) from err
    try:
        yield
    finally:
        lock.release()


def _records_of(store: VectorStore) -> Records:
    """Return this process's records of a store of the caller's; the store itself is asked for what others put there."""
    try:
        return _RECORDS.setdefault(store, MemoryRecords())
    except TypeError:
        # A store that cannot be hashed or referred to weakly.
        return MemoryRecords()


def _open_chroma(embeddings: Embeddings | str, folder: Path | None) -> VectorStore:
    check_extra("rag", needed_for="keeping chunks in Chroma", modules=("langchain_chroma",), backend="chroma")
    if folder is not None:
        name = _check_kept_embeddings(folder, embeddings)
    if isinstance(embeddings, str):
        embeddings = load_embeddings(embeddings)
    if folder is not None:
        from langchain_crossrerank.indexing.kept_chroma import open_kept_chroma

        store = open_kept_chroma(folder, embeddings)
        if not (folder / _EMBEDDINGS_NOTE).is_file():
            write_whole(folder / _EMBEDDINGS_NOTE, json.dumps({"embeddings": name}) + "\n")
        return store
    from langchain_chroma import Chroma

    # Chroma's in-memory collections are shared by name within a process.
    return Chroma(
        collection_name=f"crossrerank-{uuid4().hex}",
        embedding_function=embeddings,
        collection_metadata={"hnsw:space": "cosine"},
    )


def _check_kept_embeddings(folder: Path, embeddings: Embeddings | str) -> str:
    """Return the name of the embeddings; raise if others made the collection in a folder."""
    name = embeddings if isinstance(embeddings, str) else getattr(embeddings, "model_name", None)
    if name == WHEEL_EMBEDDINGS:
        # Another name of the same vectors, which is not theirs once they are loaded.
        name = BUNDLED
    name = name or getattr(embeddings, "model", None) or type(embeddings).__name__
    note = folder / _EMBEDDINGS_NOTE
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))["embeddings"] if note.is_file() else None
    except (OSError, ValueError, LookupError, TypeError) as err:
        raise InvalidInputError(
            f"{str(note)!r} does not say which embeddings made the index ({err}); delete the folder to index again."
        ) from err
    if kept is not None and kept != str(name):
        raise InvalidInputError(
            f"the index in {str(folder)!r} was made with the embeddings {kept!r} and cannot be searched with {name!r}; "
            "use the same ones, or another folder."
        )
    return str(name)


def _narrow(report: IndexReport, records: Records, all_files: bool) -> None:
    """Let a kept collection answer from the named files alone, or from all that still exist."""
    from langchain_crossrerank.indexing.kept_chroma import KeptChroma

    known = records.sources()
    if all_files:
        report.sources = sorted({*report.sources, *(source for source in known if _exists(source))})
    if isinstance(report.vector_store, KeptChroma) and not set(known) <= set(report.sources):
        report.vector_store.sources = report.sources
