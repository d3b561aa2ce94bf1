"""Typical calls, read by the type checker and never run."""

from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_crossrerank import (
    Comparison,
    CrossEncoder,
    CrossEncoderReranker,
    compare,
    create_rag_chain,
    create_rerank_retriever,
    load_cross_encoder,
    load_embeddings,
    retrieve_and_rerank,
)


def typical_calls(documents: list[Document]) -> None:
    model: CrossEncoder = load_cross_encoder("bundled", activation="identity")
    scores: list[float] = model.score([("query", "passage")])
    reranker = CrossEncoderReranker(model=model, top_n=None, score_threshold=0.0)
    kept: list[Document] = reranker.invoke({"query": "query", "documents": documents})
    kept = reranker.compress_documents(documents, "query")
    store = InMemoryVectorStore(load_embeddings())
    retriever = create_rerank_retriever(store, model="bundled", k=20, top_n=5)
    kept = retriever.invoke("query", k=50, top_n=3, filter={"source": "notes.txt"})
    create_rerank_retriever(store, topn=5)  # type: ignore[call-arg]  # a misspelt option is an error
    create_rerank_retriever(store, score_threshold="high")  # type: ignore[arg-type]  # and so is a wrong type
    create_rerank_retriever(store, top_n="5")  # type: ignore[arg-type]
    create_rerank_retriever(store, model="bundled", top_n=None)
    retriever = create_rerank_retriever(store, reranker=reranker.with_retry(), search_kwargs={"filter": {}})
    pairs: list[tuple[Document, float]] = retrieve_and_rerank(retriever, "query")
    comparison: Comparison = compare(retriever, "query")
    answer = create_rag_chain(retriever, None).invoke("query")
    text: str = answer["answer"]
    chain: Runnable[str, list[Document]] = {"query": RunnablePassthrough(), "documents": retriever} | reranker
    print(scores, kept, pairs, comparison, text, chain)


async def typical_async_calls(model: CrossEncoder, reranker: CrossEncoderReranker, documents: list[Document]) -> None:
    scores: list[float] = await model.ascore([("query", "passage")])
    kept: list[Document] = await reranker.acompress_documents(documents, "query")
    print(scores, kept)
