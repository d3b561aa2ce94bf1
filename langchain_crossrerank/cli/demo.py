"""The command that shows two-stage retrieval on the PDF inside the package."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path

from langchain_crossrerank.cli.options import Embeddings, K, Model, TopN
from langchain_crossrerank.cli.output import output_width, say, show
from langchain_crossrerank.cli.search import answer
from langchain_crossrerank.cli.stages import Stages
from langchain_crossrerank.errors import ModelNotFoundError

DEMO_QUESTIONS = (
    "What is LoRA?",
    "How does QLoRA reduce memory?",
    "How do the storage type and the computation type differ in QLoRA?",
)
"""What the demo asks the PDF."""


def demo_command(model: Model = None, embeddings: Embeddings = None, k: K = 20, top_n: TopN = 5) -> None:
    """Show two-stage retrieval on a PDF that comes with the package, offline.

    Without --model and --embeddings it uses the models inside the package: the cross-encoder "bundled"
    (minilm-l6-en-v1) and the embeddings all-MiniLM-L6-v2.
    """
    from langchain_crossrerank.evaluation import compare

    started = time.perf_counter()
    pdf = demo_pdf()
    retriever = Stages(model, embeddings, offline=True, k=k, top_n=top_n).over_files([pdf])
    say(f"Indexed {pdf.name} in {time.perf_counter() - started:.1f} s. Offline: no network, no API key.\n")
    for question in DEMO_QUESTIONS:
        comparison = compare(retriever, question)
        show(comparison, width=output_width())
        answer_ms = answer(retriever, question, llm=None)
        times = (("first stage", comparison.retrieve_ms), ("rerank", comparison.rerank_ms), ("answer", answer_ms))
        say(f"\nMilliseconds: {', '.join(f'{stage} {spent:.0f}' for stage, spent in times)}\n{'=' * 60}\n")


def demo_pdf() -> Path:
    """Find the PDF that comes with the package: inside it, or in the checkout it is developed in."""
    package = Path(str(files("langchain_crossrerank")))
    places = (package / "data" / "llm_fundamentals.pdf", package.parent / "notebooks" / "data" / "llm_fundamentals.pdf")
    for place in places:
        if place.is_file():
            return place
    raise ModelNotFoundError(f"the demo's PDF is missing at {places[0]}; reinstall langchain-crossrerank.")
