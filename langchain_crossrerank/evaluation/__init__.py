"""Answers whether reranking helps: one query before and after, side by side."""

from langchain_crossrerank.evaluation.compare import Comparison, RankedDocument, compare

__all__ = ["Comparison", "RankedDocument", "compare"]
