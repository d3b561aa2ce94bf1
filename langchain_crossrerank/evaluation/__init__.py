"""Answers whether reranking helps: one query side by side, many queries with judgements, the time of each stage."""

from langchain_crossrerank.evaluation.collection import Collection, load_beir, load_corpus, load_queries
from langchain_crossrerank.evaluation.comparing import compare
from langchain_crossrerank.evaluation.evaluating import evaluate
from langchain_crossrerank.evaluation.judgements import load_qrels
from langchain_crossrerank.evaluation.kept_index import KeptVectorStore, kept_vector_store
from langchain_crossrerank.evaluation.profiling import profile
from langchain_crossrerank.evaluation.results import (
    Comparison,
    EvaluationResult,
    MeasureResult,
    ProfileResult,
    RankedDocument,
    RerankerComparison,
    RerankerMeasure,
    StageTimes,
    SweepResult,
    SweepRow,
)
from langchain_crossrerank.evaluation.runs import load_run, run_retriever
from langchain_crossrerank.evaluation.sweeping import sweep
from langchain_crossrerank.evaluation.test_sets import load_collection

__all__ = [
    "Collection",
    "Comparison",
    "EvaluationResult",
    "KeptVectorStore",
    "MeasureResult",
    "ProfileResult",
    "RankedDocument",
    "RerankerComparison",
    "RerankerMeasure",
    "StageTimes",
    "SweepResult",
    "SweepRow",
    "compare",
    "evaluate",
    "kept_vector_store",
    "load_beir",
    "load_collection",
    "load_corpus",
    "load_qrels",
    "load_queries",
    "load_run",
    "profile",
    "run_retriever",
    "sweep",
]
