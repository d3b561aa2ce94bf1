"""The command that shows two-stage retrieval on the PDF inside the package."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_crossrerank.checks import cut
from langchain_crossrerank.cli.options import Embeddings, K, Model, TopN
from langchain_crossrerank.cli.output import say, show_table
from langchain_crossrerank.cli.search import list_sources
from langchain_crossrerank.cli.stages import Stages
from langchain_crossrerank.errors import ModelNotFoundError

if TYPE_CHECKING:
    from langchain_crossrerank.cross_encoders.base import CrossEncoder
    from langchain_crossrerank.evaluation import Comparison
    from langchain_crossrerank.extractive import Quote

DEMO_QUESTIONS = (
    "Does QLoRA compute in four bits?",
    "What is catastrophic forgetting?",
    "What is LoRA?",
)
"""What the demo asks the PDF; the last is a question that the first stage answers well by itself."""


def demo_command(model: Model = None, embeddings: Embeddings = None, k: K = 20, top_n: TopN = 3) -> None:
    """Show two-stage retrieval on a PDF that comes with the package, offline.

    Without --model and --embeddings it uses the models inside the package: the cross-encoder "bundled"
    (minilm-l6-en-v1) and the embeddings all-MiniLM-L6-v2.
    """
    from langchain_crossrerank.cli.tables import ranking_table
    from langchain_crossrerank.evaluation import compare

    started = time.perf_counter()
    pdf = demo_pdf()
    stages = Stages(model, embeddings, offline=True, k=k, top_n=top_n)
    retriever, _ = stages.over_files([pdf])
    say(f"Indexed {pdf.name} in {time.perf_counter() - started:.1f} s. Offline: no network, no API key.\n")
    for question in DEMO_QUESTIONS:
        comparison = compare(retriever, question)
        quotes = _find_quotes(comparison, stages.load_model())
        say(f"Query: {question}")
        show_table(ranking_table(comparison, {rank: (quote.start, quote.end) for rank, quote in reversed(quotes)}))
        say(f"{_what_changed(comparison)}\n\nAnswer, quoted without a language model:")
        for rank, quote in quotes:
            say(f'- "{quote.shown}" [{rank}]')
        say(f"\nSources (score, file):\n{list_sources(comparison)}\n")
        say(f"First stage {comparison.retrieve_ms:.0f} ms, rerank {comparison.rerank_ms:.0f} ms\n{'=' * 60}\n")
    say('Now with your own files:  crossrerank ask FILE "your question" --offline')
    say('Both lists side by side:  crossrerank compare FILE "your question" --offline')


def _find_quotes(comparison: Comparison, model: CrossEncoder) -> list[tuple[int, Quote]]:
    """Find the statements that answer, best first, with the place of their passage in the reranked list."""
    from langchain_core.documents import Document

    from langchain_crossrerank.extractive import ExtractiveAnswerer

    kept = [Document(ranked.text, metadata=ranked.metadata) for ranked in comparison.reranked]
    quotes = ExtractiveAnswerer(model, max_sentences=2).quote(comparison.query, kept)
    return [(1 + next(i for i, document in enumerate(kept) if document is quote.document), quote) for quote in quotes]


def _what_changed(comparison: Comparison) -> str:
    """Say what the reranker did for the question, also where that is nothing."""
    best = comparison.reranked[0]
    if best.initial_rank == 1:
        return "The first stage had this passage first, too; reranking was not needed here."
    first = " ".join(comparison.documents[0].text.split())
    return f"The first stage had this passage in place {best.initial_rank}. Its own first was:\n  {cut(first, 76)}"


def demo_pdf() -> Path:
    """Find the PDF that comes with the package: inside it, or in the checkout it is developed in."""
    package = Path(str(files("langchain_crossrerank")))
    places = (package / "data" / "llm_fundamentals.pdf", package.parent / "notebooks" / "data" / "llm_fundamentals.pdf")
    for place in places:
        if place.is_file():
            return place
    raise ModelNotFoundError(f"the demo's PDF is missing at {places[0]}; reinstall langchain-crossrerank.")
