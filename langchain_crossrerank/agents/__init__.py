"""Reranking for agents and graphs: a retriever tool, a relevance gate, tool selection, and steps after reranking."""
