"""A store with three passages on two subjects, for the tests of agents."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_crossrerank.testing import ScriptedCrossEncoder
from tests.unit.agents.passages import BREAD, LORA, MEMORY


@pytest.fixture
def store() -> InMemoryVectorStore:
    """A vector store that returns all three passages for any query."""
    documents = [
        Document(BREAD, id="bread", metadata={"source": "/srv/kitchen.pdf", "page": 0, "year": 2020}),
        Document(MEMORY, id="memory", metadata={"source": "/srv/course.pdf", "page": 6, "year": 2021}),
        Document(LORA, id="lora", metadata={"source": "/srv/course.pdf", "page": 5, "year": 2021}),
    ]
    return InMemoryVectorStore.from_documents(documents, DeterministicFakeEmbedding(size=8))


@pytest.fixture
def model() -> ScriptedCrossEncoder:
    """A model whose probabilities are about 0.95, 0.73 and 0.05."""
    return ScriptedCrossEncoder({LORA: 3.0, MEMORY: 1.0, BREAD: -3.0})
