"""The commands that search: ask and compare."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_crossrerank.checks import check_query
from langchain_crossrerank.cli.options import Embeddings, Files, K, Model, Offline, Persist, Question, TopN
from langchain_crossrerank.cli.output import check_target, output_width, page, say, show
from langchain_crossrerank.cli.stages import Stages
from langchain_crossrerank.errors import AnswerError, CrossRerankError
from langchain_crossrerank.files import write_whole

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever


def ask_command(
    files: Files,
    question: Question,
    *,
    model: Model = None,
    embeddings: Embeddings = None,
    k: K = 20,
    top_n: TopN = 5,
    persist: Persist = None,
    offline: Offline = False,
) -> None:
    """Answer a question from files, with sources.

    The answer is written by OpenAI's gpt-4o-mini if OPENAI_API_KEY is set, and quoted from the files otherwise.
    """
    check_query(question)
    from langchain_crossrerank.chains import default_llm

    retriever = Stages(model, embeddings, offline, k, top_n).over_files(files, persist=persist)
    answer(retriever, question, llm=None if offline else default_llm())


def compare_command(
    files: Files,
    question: Question,
    *,
    model: Model = None,
    embeddings: Embeddings = None,
    k: K = 20,
    top_n: TopN = 5,
    persist: Persist = None,
    offline: Offline = False,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Also write the comparison as a page.")] = None,
) -> None:
    """Show a question's candidates before and after reranking."""
    check_query(question)
    check_target("--html", html)
    from langchain_crossrerank.evaluation import compare

    retriever = Stages(model, embeddings, offline, k, top_n).over_files(files, persist=persist)
    comparison = compare(retriever, question)
    if html is not None:
        write_whole(html, page(comparison))
    show(comparison, width=output_width())


def answer(retriever: ContextualCompressionRetriever, question: str, *, llm: Any) -> float:
    """Print the answer as it comes, then its sources.

    Returns:
        Milliseconds from the documents to the end of the answer.
    """
    from langchain_crossrerank.chains import create_rag_chain, format_sources

    context: list[Any] = []
    found = time.perf_counter()
    say("\nAnswer:")
    try:
        for part in create_rag_chain(retriever, llm).stream(question):
            if "context" in part:
                context, found = part["context"], time.perf_counter()
            say(part.get("answer", ""), end="")
    except CrossRerankError:
        raise
    except Exception as err:
        # Every provider and every store has its own errors.
        reason = f"{type(err).__name__}: {err}"
        if context and llm is not None:
            raise AnswerError(
                f"the language model failed ({reason}); check its key and network, or answer without one: --offline."
            ) from err
        raise AnswerError(f"searching failed ({reason}); a kept index may have to be rebuilt.") from err
    answered = time.perf_counter()
    say(f"\n\nSources (score, file):\n{format_sources(context)}")
    return (answered - found) * 1000
