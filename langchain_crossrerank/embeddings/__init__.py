"""The first stage's embeddings: a bi-encoder on onnxruntime, without torch, or LangChain's own on torch."""

from langchain_crossrerank.embeddings.loading import load_embeddings
from langchain_crossrerank.embeddings.settings import DEFAULT_EMBEDDINGS, OFFLINE_EMBEDDINGS

__all__ = ["DEFAULT_EMBEDDINGS", "OFFLINE_EMBEDDINGS", "load_embeddings"]
