"""Scores files of queries and passages that are too long to hold in memory, and batches of rows for other engines."""

from langchain_crossrerank.scoring.batches import BatchScorer
from langchain_crossrerank.scoring.file_scoring import ScoringProgress, ScoringResult, score_file

__all__ = ["BatchScorer", "ScoringProgress", "ScoringResult", "score_file"]
