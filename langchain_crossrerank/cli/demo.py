"""The command that shows two-stage retrieval on the PDF inside the package."""

from __future__ import annotations

import re
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_crossrerank.checks import cut
from langchain_crossrerank.cli.options import Embeddings, K, Model, TopN
from langchain_crossrerank.cli.output import say, show_table
from langchain_crossrerank.cli.stages import Stages
from langchain_crossrerank.errors import ModelNotFoundError

if TYPE_CHECKING:
    from langchain_crossrerank.evaluation import Comparison

DEMO_QUESTIONS = (
    "How do the storage type and the computation type differ in QLoRA?",
    "How does QLoRA reduce memory?",
    "What is LoRA?",
)
"""What the demo asks the PDF; the last is a question that the first stage answers well by itself."""

_QUOTE = re.compile(r'^- "(.+)" \(', re.MULTILINE)


def demo_command(model: Model = None, embeddings: Embeddings = None, k: K = 20, top_n: TopN = 3) -> None:
    """Show two-stage retrieval on a PDF that comes with the package, offline.

    Without --model and --embeddings it uses the models inside the package: the cross-encoder "bundled"
    (minilm-l6-en-v1) and the embeddings all-MiniLM-L6-v2.
    """
    from langchain_crossrerank.chains import create_rag_chain, format_sources
    from langchain_crossrerank.cli.tables import ranking_table
    from langchain_crossrerank.evaluation import compare

    started = time.perf_counter()
    pdf = demo_pdf()
    retriever = Stages(model, embeddings, offline=True, k=k, top_n=top_n).over_files([pdf])
    say(f"Indexed {pdf.name} in {time.perf_counter() - started:.1f} s. Offline: no network, no API key.\n")
    chain = create_rag_chain(retriever, llm=None)
    for question in DEMO_QUESTIONS:
        comparison = compare(retriever, question)
        answered = chain.invoke(question)
        say(f"Query: {question}")
        show_table(ranking_table(comparison, _QUOTE.findall(answered["answer"])))
        say(f"{_what_changed(comparison)}\n\n{answered['answer']}\n")
        say(f"Sources (score, file):\n{format_sources(answered['context'])}\n")
        say(f"First stage {comparison.retrieve_ms:.0f} ms, rerank {comparison.rerank_ms:.0f} ms\n{'=' * 60}\n")
    say('Now with your own files:  crossrerank ask FILE "your question" --offline')
    say('Both lists side by side:  crossrerank compare FILE "your question" --offline')


def _what_changed(comparison: Comparison) -> str:
    """Say what the reranker did for the question, also where that is nothing."""
    best = comparison.reranked[0]
    if best.initial_rank == 1:
        return "The first stage had this passage in first place already; here, reranking was not needed."
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
