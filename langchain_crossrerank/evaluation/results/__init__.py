"""What the functions of `evaluation` return: figures, what follows from them, and a report of both."""

from langchain_crossrerank.evaluation.results.comparison import Comparison, RankedDocument
from langchain_crossrerank.evaluation.results.evaluation import EvaluationResult, MeasureResult
from langchain_crossrerank.evaluation.results.profile import ProfileResult, StageTimes
from langchain_crossrerank.evaluation.results.rerankers import RerankerComparison, RerankerMeasure
from langchain_crossrerank.evaluation.results.sweep import SweepResult, SweepRow

__all__ = [
    "Comparison",
    "EvaluationResult",
    "MeasureResult",
    "ProfileResult",
    "RankedDocument",
    "RerankerComparison",
    "RerankerMeasure",
    "StageTimes",
    "SweepResult",
    "SweepRow",
]
