"""The command that shows two-stage retrieval on the PDF inside the package."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_crossrerank.cli.options import Embeddings, K, Model, TopN
from langchain_crossrerank.cli.output import make_console, say, show_table
from langchain_crossrerank.cli.stages import Stages
from langchain_crossrerank.errors import ModelNotFoundError

if TYPE_CHECKING:
    from langchain_crossrerank.evaluation import Comparison

DEMO_QUESTIONS = (
    "What is catastrophic forgetting?",
    "How do the storage type and the computation type differ in QLoRA?",
    "How large is the vocabulary of GPT-2?",
)
"""The questions that the demo asks about the PDF; the first stage answers the last one well by itself."""


def demo_command(model: Model = None, embeddings: Embeddings = None, k: K = 20, top_n: TopN = 3) -> None:
    """Show two-stage retrieval on a PDF that comes with the package, offline.

    Without --model and --embeddings it uses the models inside the package: the cross-encoder "bundled"
    (minilm-l6-en-v2) and the embeddings all-MiniLM-L6-v2.
    """
    from langchain_crossrerank.evaluation import compare

    started = time.perf_counter()
    pdf = demo_pdf()
    stages = Stages(model, embeddings, offline=True, k=k, top_n=top_n)
    retriever, _ = stages.over_files([pdf])
    say(f"Indexed {pdf.name} in {time.perf_counter() - started:.1f} s. Offline: no network, no API key.\n")
    for question in DEMO_QUESTIONS:
        _show(compare(retriever, question))
    say('Answers from your own files:\n  crossrerank ask FILE "your question" --offline')
    say('Both lists as a page:\n  crossrerank compare FILE "your question" --offline --output lists.html')


def _show(comparison: Comparison) -> None:
    """Show what the first stage put first, what the reranker did about it, and how long both took."""
    from langchain_crossrerank.cli.tables import heading, passage_line, ranking_list

    show_table(heading(comparison.query))
    if not comparison.reranked:
        say("Nothing was kept.\n")
        return
    first, best = comparison.documents[0], comparison.reranked[0]
    if first is not best:
        place = "dropped" if first.rank is None else f"place {first.rank}"
        score = "" if first.score is None else f", score {first.score:.3f}"
        say(f"\nWithout reranking, this comes first (the reranker: {place}{score}):")
        show_table(passage_line(first))
        say(f"With reranking, the best passage comes up from place {best.initial_rank}:\n")
    else:
        say("\nBoth stages have the same passage first: reranking is not needed here.\n")
    console = make_console()
    show_table(ranking_list(comparison, emphasis="" if console.is_terminal else "*", width=console.width))
    say(f"First stage {comparison.retrieve_ms:.0f} ms, rerank {comparison.rerank_ms:.0f} ms\n")


def demo_pdf() -> Path:
    """Find the PDF that comes with the package: inside it, or in the checkout it is developed in."""
    package = Path(str(files("langchain_crossrerank")))
    places = (package / "data" / "llm_fundamentals.pdf", package.parent / "notebooks" / "data" / "llm_fundamentals.pdf")
    for place in places:
        if place.is_file():
            return place
    raise ModelNotFoundError(f"the demo's PDF is missing at {places[0]}; reinstall langchain-crossrerank.")
