"""The commands that search: ask and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_crossrerank.checks import check_query
from langchain_crossrerank.cli.options import (
    AllFiles,
    Backend,
    Embeddings,
    FileName,
    Files,
    K,
    Model,
    Offline,
    Persist,
    Precision,
    Question,
    Subfolder,
    TopN,
    given,
)
from langchain_crossrerank.cli.output import SUFFIXES, check_target, output_width, report, say
from langchain_crossrerank.cli.stages import Stages
from langchain_crossrerank.errors import AnswerError, CrossRerankError, InvalidInputError

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

    from langchain_crossrerank.evaluation import Comparison


def ask_command(
    files: Files,
    question: Question,
    *,
    model: Model = None,
    embeddings: Embeddings = None,
    k: K = 20,
    top_n: TopN = 5,
    persist: Persist = None,
    all_files: AllFiles = False,
    offline: Offline = False,
    backend: Backend = None,
    precision: Precision = None,
    subfolder: Subfolder = None,
    file_name: FileName = None,
) -> None:
    """Answer a question from files, with sources.

    The answer is written by OpenAI's gpt-4o-mini if OPENAI_API_KEY is set, and quoted from the files otherwise.
    """
    check_query(question)
    _check_all(all_files, persist)
    from langchain_crossrerank.chains import default_llm

    loading = given(backend=backend, precision=precision, subfolder=subfolder, file_name=file_name)
    stages = Stages(model, embeddings, offline, k, top_n, loading)
    retriever, searched = stages.over_files(files, persist=persist, all_files=all_files)
    _answer(retriever, question, llm=None if offline else default_llm())
    say(f"\n{searched}")


def compare_command(
    files: Files,
    question: Question,
    *,
    model: Model = None,
    embeddings: Embeddings = None,
    k: K = 20,
    top_n: TopN = 5,
    persist: Persist = None,
    all_files: AllFiles = False,
    offline: Offline = False,
    backend: Backend = None,
    precision: Precision = None,
    subfolder: Subfolder = None,
    file_name: FileName = None,
    output: Annotated[
        str | None, typer.Option("--output", "--html", metavar="FILE", help="Write a .json, .csv or .html file.")
    ] = None,
) -> None:
    """Show a question's candidates before and after reranking."""
    check_query(question)
    check_target("--output", output, SUFFIXES)
    _check_all(all_files, persist)
    from langchain_crossrerank.evaluation import compare

    loading = given(backend=backend, precision=precision, subfolder=subfolder, file_name=file_name)
    stages = Stages(model, embeddings, offline, k, top_n, loading)
    retriever, searched = stages.over_files(files, persist=persist, all_files=all_files)
    comparison = compare(retriever, question)
    notes = [f"Sources (score, file):\n{list_sources(comparison)}", searched]
    report(comparison, notes, output, width=output_width())


def list_sources(comparison: Comparison) -> str:
    """List the kept documents of a comparison with their scores, one per line."""
    from langchain_core.documents import Document

    from langchain_crossrerank.chains import format_sources
    from langchain_crossrerank.metadata import RELEVANCE_SCORE

    return format_sources(
        [
            Document(ranked.text, metadata={**ranked.metadata, RELEVANCE_SCORE: ranked.score})
            for ranked in comparison.reranked
        ]
    )


def _check_all(all_files: bool, persist: str | None) -> None:
    if all_files and persist is None:
        raise InvalidInputError("--all searches what a kept index has; name its folder with --persist.")


def _answer(retriever: ContextualCompressionRetriever, question: str, *, llm: Any) -> None:
    """Print the answer as it comes, then its sources."""
    from langchain_crossrerank.chains import create_rag_chain, format_sources

    context: list[Any] = []
    heading = "\nAnswer:\n"
    try:
        for part in create_rag_chain(retriever, llm).stream(question):
            context = part.get("context", context)
            if "answer" in part:
                say(heading + part["answer"], end="")
                heading = ""
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
    say(f"\n\nSources (score, file):\n{format_sources(context)}")
