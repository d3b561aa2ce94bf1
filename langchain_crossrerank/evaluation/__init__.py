"""Answers whether reranking helps: one query side by side, many queries with judgements, the time of each stage."""

from langchain_crossrerank.evaluation.collection import Collection, load_beir, load_qrels, load_run, run_retriever
from langchain_crossrerank.evaluation.comparison import Comparison, RankedDocument, compare
from langchain_crossrerank.evaluation.evaluating import EvaluationResult, MeasureResult, evaluate
from langchain_crossrerank.evaluation.profiling import ProfileResult, StageTimes, profile
from langchain_crossrerank.evaluation.sweeping import SweepResult, SweepRow, sweep

__all__ = [
    "Collection",
    "Comparison",
    "EvaluationResult",
    "MeasureResult",
    "ProfileResult",
    "RankedDocument",
    "StageTimes",
    "SweepResult",
    "SweepRow",
    "compare",
    "evaluate",
    "load_beir",
    "load_qrels",
    "load_run",
    "profile",
    "run_retriever",
    "sweep",
]
