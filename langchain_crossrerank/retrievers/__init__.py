"""Two-stage retrievers: a first stage finds candidates, a reranker keeps the best of them."""

from langchain_crossrerank.retrievers.factory import DEFAULT_TOP_N, create_rerank_retriever, retrieve_and_rerank
from langchain_crossrerank.retrievers.first_stages import DEFAULT_K
from langchain_crossrerank.retrievers.inspection import fetch_candidates, find_reranker

__all__ = [
    "DEFAULT_K",
    "DEFAULT_TOP_N",
    "create_rerank_retriever",
    "fetch_candidates",
    "find_reranker",
    "retrieve_and_rerank",
]
