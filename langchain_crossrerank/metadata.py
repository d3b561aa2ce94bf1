"""Every metadata key that this package writes into a document."""

from __future__ import annotations

INITIAL_SCORE = "initial_score"
"""Metadata key of the first stage's score, if the first stage provides one."""

RELEVANCE_SCORE = "relevance_score"
"""Metadata key of the cross-encoder's score: a plain float, or `None` if the model failed."""

INITIAL_RANK = "initial_rank"
"""Metadata key of the document's rank in the first stage, from 1."""

TRUNCATED = "truncated"
"""Metadata key that is `True` if the model did not read the passage to its end."""

QUERY_TRUNCATED = "query_truncated"
"""Metadata key that is `True` if the query was too long for the model and its middle was left out."""

BEST_WINDOW = "best_window"
"""Metadata key of the best window, `[start, end]` in characters of the passage, if it was read in windows."""

PRUNED = "pruned"
"""Metadata key that is `True` if a cascade's first model ruled the passage out, so that the second did not read it."""

RERANKED = "reranked"
"""Metadata key that is `False` if the model failed and the first stage's order was kept."""

RERANK_ERROR = "rerank_error"
"""Metadata key of the reason for `reranked: False`."""

SECTION = "section"
"""Metadata key of a chunk's path of headings, such as `"Install > On Linux"`."""

CARRIED = "carried"
"""Metadata key of the number of characters at a chunk's front that were carried from above: headings, header rows."""

CUT_OFF = "cut_off"
"""Metadata key that is `True` if a chunk ends inside a sentence, list item, row or line that is longer than a chunk."""

BOOSTED_SCORE = "boosted_score"
"""Metadata key of the score after a boost by metadata; `relevance_score` stays the cross-encoder's."""

KEPT_SPANS = "kept_spans"
"""Metadata key of the sentences that pruning kept: `[start, end]` of each in characters of the unpruned text."""
