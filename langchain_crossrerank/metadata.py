"""Every metadata key that this package writes into a document."""

from __future__ import annotations

INITIAL_SCORE = "initial_score"
"""Metadata key of the first stage's score, where the first stage gives one."""

RELEVANCE_SCORE = "relevance_score"
"""Metadata key of the cross-encoder's score, a plain float."""

INITIAL_RANK = "initial_rank"
"""Metadata key of the place, counted from 1, that the first stage gave."""

TRUNCATED = "truncated"
"""Metadata key that is `True` where the model did not read the passage's end."""

BEST_WINDOW = "best_window"
"""Metadata key of the best window's `[first, last + 1]` characters in the passage, where it was read in windows."""

PRUNED = "pruned"
"""Metadata key that is `True` where a cascade's cheaper model ruled the passage out before the full one read it."""

RERANKED = "reranked"
"""Metadata key that is `False` where the model failed and the first stage's order was kept."""

RERANK_ERROR = "rerank_error"
"""Metadata key of the reason, beside `reranked: False`."""
