"""From files to a vector store: find, read, cut, embed, store, and keep the store true to the files."""

from langchain_crossrerank.indexing.building import index_files
from langchain_crossrerank.indexing.cutting import split_documents
from langchain_crossrerank.indexing.finding import find_files
from langchain_crossrerank.indexing.reading import SUFFIXES, load_documents
from langchain_crossrerank.indexing.report import IndexReport

__all__ = ["SUFFIXES", "IndexReport", "find_files", "index_files", "load_documents", "split_documents"]
