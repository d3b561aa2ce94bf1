"""The commands that search: demo, ask, compare."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_crossrerank.cross_encoders.loading import DEFAULT_MODEL
from langchain_crossrerank.errors import AnswerError, CrossRerankError, InvalidInputError, ModelNotFoundError
from langchain_crossrerank.files import write_whole

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

    from langchain_crossrerank.cross_encoders.base import CrossEncoder

DEMO_QUESTIONS = (
    "What is LoRA?",
    "How does QLoRA reduce memory?",
    "How do the storage type and the computation type differ in QLoRA?",
)
"""What the demo asks the PDF that comes with the package."""


def demo(options: argparse.Namespace) -> None:
    """Show two-stage retrieval on the PDF that comes with the package, without network."""
    from langchain_crossrerank.evaluation import compare

    started = time.perf_counter()
    pdf = demo_pdf()
    retriever = index(options, [pdf])
    print(f"Indexed {pdf.name} in {time.perf_counter() - started:.1f} s. Offline: no network, no API key.\n")
    for question in DEMO_QUESTIONS:
        comparison = compare(retriever, question)
        print(comparison.to_text(terminal_width()))
        answer_ms = _answer(retriever, question, llm=None)
        stages = (("first stage", comparison.retrieve_ms), ("rerank", comparison.rerank_ms), ("answer", answer_ms))
        print(f"\nMilliseconds: {', '.join(f'{stage} {spent:.0f}' for stage, spent in stages)}\n{'=' * 60}\n")


def ask(options: argparse.Namespace) -> None:
    """Answer one question from files."""
    from langchain_crossrerank.chains import default_llm

    retriever = index(options, options.files)
    _answer(retriever, options.question, llm=None if options.offline else default_llm())


def compare_lists(options: argparse.Namespace) -> None:
    """Show the candidates of one question before and after reranking."""
    from langchain_crossrerank.evaluation import compare

    check_target("--html", options.html)
    comparison = compare(index(options, options.files), options.question)
    # First the file: the reader of what is printed may have gone.
    if options.html is not None:
        write_whole(options.html, page(comparison))
    print(comparison.to_text(terminal_width()))


def demo_pdf() -> Path:
    """Find the PDF that comes with the package: inside it, or in the checkout it is developed in."""
    package = Path(str(files("langchain_crossrerank")))
    places = (package / "data" / "llm_fundamentals.pdf", package.parent / "notebooks" / "data" / "llm_fundamentals.pdf")
    for place in places:
        if place.is_file():
            return place
    raise ModelNotFoundError(f"the demo's PDF is not at {places[0]}; install langchain-crossrerank again.")


def index(options: argparse.Namespace, paths: Sequence[Any]) -> ContextualCompressionRetriever:
    """Index files and put the chosen cross-encoder over them."""
    from langchain_crossrerank.indexing import find_files, index_files
    from langchain_crossrerank.retrievers import create_rerank_retriever

    check_numbers(options)
    find_files(paths)
    model = chosen_model(options)
    report = index_files(
        paths,
        embeddings=chosen_embeddings(options),
        persist_directory=getattr(options, "persist", None),
        show_progress=sys.stderr.isatty(),
    )
    for failure in report.failures:
        print(f"crossrerank: left out: {failure}", file=sys.stderr)
    if options.k <= options.top_n:
        print(f"crossrerank: --k {options.k} with --top-n {options.top_n}: only the order can change", file=sys.stderr)
    return create_rerank_retriever(report.vector_store, model=model, k=options.k, top_n=options.top_n)


def check_numbers(options: argparse.Namespace) -> None:
    """Raise unless `--k` and `--top-n` can be used."""
    if options.k < 1 or options.top_n < 1:
        raise InvalidInputError(f"--k is {options.k} and --top-n is {options.top_n}; both must be at least 1.")


def check_target(option: str, path: str | None, suffixes: Sequence[str] = ()) -> None:
    """Raise unless a result can be written where an option says, before anything is computed for it."""
    if path is None:
        return
    if suffixes and Path(path).suffix.lower() not in suffixes:
        *most, last = suffixes
        raise InvalidInputError(f"{option} is {path!r}; name a file that ends in {', '.join(most)} or {last}.")
    if Path(path).is_dir():
        raise InvalidInputError(f"{option} is {path!r}, which is a folder; name a file.")
    if not Path(path).parent.is_dir():
        raise InvalidInputError(f"{option} is {path!r}, and there is no folder {str(Path(path).parent)!r}; make it.")


def chosen_model(options: argparse.Namespace) -> CrossEncoder:
    """Load the cross-encoder that the options name."""
    from langchain_crossrerank.cross_encoders.loading import load_cross_encoder

    return load_cross_encoder(options.model or ("bundled" if options.offline else DEFAULT_MODEL))


def chosen_embeddings(options: argparse.Namespace) -> str:
    """Name the bi-encoder that the options ask for."""
    from langchain_crossrerank.indexing import DEFAULT_EMBEDDINGS, OFFLINE_EMBEDDINGS

    return str(options.embeddings or (OFFLINE_EMBEDDINGS if options.offline else DEFAULT_EMBEDDINGS))


def page(result: Any, notes: Sequence[str] = ()) -> str:
    """Put a result's HTML, and notes below it, into a page of its own, light or dark as the reader's system is."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>crossrerank</title>'
    style = "<style>:root{color-scheme:light dark}body{font-family:sans-serif;margin:1.5em}</style>"
    body = result._repr_html_() + "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f'<!doctype html><html lang="en"><head>{head}{style}</head><body>{body}</body></html>\n'


def _answer(retriever: ContextualCompressionRetriever, question: str, *, llm: Any) -> float:
    """Print the answer as it comes and its sources; give the milliseconds from the context to the answer's end."""
    from langchain_crossrerank.chains import create_rag_chain, format_sources

    context: list[Any] = []
    found = time.perf_counter()
    print("\nAnswer:")
    try:
        for part in create_rag_chain(retriever, llm).stream(question):
            if "context" in part:
                context, found = part["context"], time.perf_counter()
            print(part.get("answer", ""), end="", flush=True)
    except (CrossRerankError, BrokenPipeError):
        raise
    except Exception as err:
        # Every provider and every store has its own errors.
        reason = f"{type(err).__name__}: {err}"
        if context and llm is not None:
            raise AnswerError(
                f"the language model failed ({reason}); check its key and network, or answer without one: --offline."
            ) from err
        raise AnswerError(f"searching and answering failed ({reason}); a kept index may need to be made anew.") from err
    answered = time.perf_counter()
    print(f"\n\nSources (score, file):\n{format_sources(context)}")
    return (answered - found) * 1000


def terminal_width() -> int:
    """Columns to lay text out in."""
    return max(80, min(shutil.get_terminal_size((110, 24)).columns, 160))


def drop_output() -> None:
    """Send further output nowhere, because its reader (head, less) has gone; that is no failure."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
