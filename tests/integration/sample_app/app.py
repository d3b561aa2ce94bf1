"""A small application that answers from a guide, as the skill finds it: python app.py QUESTION."""

import sys
from pathlib import Path

from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore

paragraphs = Path("guide.md").read_text(encoding="utf-8").split("\n\n")
store = InMemoryVectorStore.from_texts(paragraphs, DeterministicFakeEmbedding(size=64))
retriever = store.as_retriever(search_kwargs={"k": 2})

if __name__ == "__main__":
    for document in retriever.invoke(sys.argv[1]):
        print(document.metadata, document.page_content)
