"""What indexing did."""

from __future__ import annotations

from dataclasses import dataclass, field

from langchain_core.vectorstores import VectorStore

from langchain_crossrerank.errors import IndexingError


@dataclass
class IndexReport:
    """What indexing did.

    Attributes:
        vector_store: Where the chunks are; search it, or pass it to `create_rerank_retriever`. With
            `persist_directory` it answers from `sources` alone.
        added: Chunks that are new.
        skipped: Chunks that were there already.
        deleted: Chunks that were taken out: those of an earlier version of a file, and of files that are gone.
        failures: One error for each file that could not be indexed; the other files are indexed.
        notes: What was left out, one sentence each: pages without text, types that are not read, hidden folders.
        sources: The files that `vector_store` answers from, as `source` in the chunks' metadata names them.
        read: How many files were read; unchanged ones are not.
    """

    vector_store: VectorStore
    added: int = 0
    skipped: int = 0
    deleted: int = 0
    failures: list[IndexingError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    read: int = 0
