"""Names of the inner tensors at which a graph can be split; apart from `splitting`, so that they cost no import."""

from __future__ import annotations

STATES = ("states_apart", "sparse_states")
"""Names of the tensors, of shape (pairs, tokens, width), in which the tokens of one text do not depend on the other;
`training.models` exports graphs with them."""

QUERY_TERMS = "query_terms"
"""Name of the tensor, of shape (pairs, terms, width), that a graph with sparse states computes from the query's."""

SPARSE_SCORES = "sparse_scores"
"""Name of the tensor, of shape (pairs, 1), that a graph with a sparse branch adds to the other scores."""
