"""From files to a vector store: read, cut, embed, store."""

from langchain_crossrerank.indexing.indexing import (
    DEFAULT_EMBEDDINGS,
    OFFLINE_EMBEDDINGS,
    SUFFIXES,
    IndexReport,
    find_files,
    index_files,
    load_documents,
    load_embeddings,
    split_documents,
)

__all__ = [
    "DEFAULT_EMBEDDINGS",
    "OFFLINE_EMBEDDINGS",
    "SUFFIXES",
    "IndexReport",
    "find_files",
    "index_files",
    "load_documents",
    "load_embeddings",
    "split_documents",
]
