"""The command line: `crossrerank demo | ask | compare | export`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_crossrerank.cross_encoders import DEFAULT_MODEL
from langchain_crossrerank.errors import CrossRerankError, InvalidInputError, ModelNotFoundError

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

DEMO_QUESTIONS = (
    "What is LoRA?",
    "How does QLoRA reduce memory?",
    "When does reranking help most?",
)
"""What the demo asks the PDF that comes with the package."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after `crossrerank`; `None` for those of this process.

    Returns:
        The exit code: 0 for success, 1 for an error, 2 for a wrong call, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = options.run
    with warnings.catch_warnings():
        # Notices of other packages to their developers; this command's own warnings are printed by it.
        warnings.simplefilter("ignore")
        _quieten()
        try:
            run(options)
        except CrossRerankError as err:
            print(f"crossrerank: error: {' '.join(str(err).split())}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("crossrerank: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            # The reader of our output (head, less) has gone; that is no failure.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def demo(options: argparse.Namespace) -> None:
    """Show two-stage retrieval on the PDF that comes with the package, without network."""
    from langchain_crossrerank.evaluation import compare

    started = time.perf_counter()
    pdf = demo_pdf()
    retriever = _index(options, [pdf])
    print(f"Indexed {pdf.name} in {time.perf_counter() - started:.1f} s. Offline: no network, no API key.\n")
    for question in DEMO_QUESTIONS:
        comparison = compare(retriever, question)
        print(comparison.to_text(_terminal_width()))
        answer_ms = _answer(retriever, question, llm=None)
        stages = (("first stage", comparison.retrieve_ms), ("rerank", comparison.rerank_ms), ("answer", answer_ms))
        print(f"\nMilliseconds: {', '.join(f'{stage} {spent:.0f}' for stage, spent in stages)}\n{'=' * 60}\n")


def ask(options: argparse.Namespace) -> None:
    """Answer one question from files."""
    from langchain_crossrerank.chains import default_llm

    retriever = _index(options, options.files)
    _answer(retriever, options.question, llm=None if options.offline else default_llm())


def compare_lists(options: argparse.Namespace) -> None:
    """Show the candidates of one question before and after reranking."""
    from langchain_crossrerank.evaluation import compare

    print(compare(_index(options, options.files), options.question).to_text(_terminal_width()))


def export(options: argparse.Namespace) -> None:
    """Export a cross-encoder to a folder that needs no torch."""
    from langchain_crossrerank.extras import check_extra

    check_extra("export", needed_for="exporting a model")
    from langchain_crossrerank.cross_encoders.graph import export_onnx

    difference = export_onnx(options.model, options.folder)
    print(f"Wrote {options.folder}; largest difference from torch {difference:.1e} in logits.")


def demo_pdf() -> Path:
    """Find the PDF that comes with the package: inside it, or in the checkout it is developed in."""
    package = Path(str(files("langchain_crossrerank")))
    places = (package / "data" / "llm_fundamentals.pdf", package.parent / "notebooks" / "data" / "llm_fundamentals.pdf")
    for place in places:
        if place.is_file():
            return place
    raise ModelNotFoundError(f"the demo's PDF is not at {places[0]}; install langchain-crossrerank again.")


def _index(options: argparse.Namespace, paths: Sequence[Any]) -> ContextualCompressionRetriever:
    from langchain_crossrerank.cross_encoders import load_cross_encoder
    from langchain_crossrerank.indexing import DEFAULT_EMBEDDINGS, OFFLINE_EMBEDDINGS, find_files, index_files
    from langchain_crossrerank.retrievers import create_rerank_retriever

    if options.k < 1 or options.top_n < 1:
        raise InvalidInputError(f"--k is {options.k} and --top-n is {options.top_n}; both must be at least 1.")
    find_files(paths)
    model = load_cross_encoder(options.model or ("bundled" if options.offline else DEFAULT_MODEL))
    embeddings = options.embeddings or (OFFLINE_EMBEDDINGS if options.offline else DEFAULT_EMBEDDINGS)
    report = index_files(
        paths,
        embeddings=embeddings,
        persist_directory=getattr(options, "persist", None),
        show_progress=sys.stderr.isatty(),
    )
    for failure in report.failures:
        print(f"crossrerank: left out: {failure}", file=sys.stderr)
    if options.k <= options.top_n:
        print(f"crossrerank: --k {options.k} with --top-n {options.top_n}: only the order can change", file=sys.stderr)
    return create_rerank_retriever(report.vector_store, model=model, k=options.k, top_n=options.top_n)


def _answer(retriever: ContextualCompressionRetriever, question: str, *, llm: Any) -> float:
    """Print the answer as it comes and its sources; give the milliseconds from the context to the answer's end."""
    from langchain_crossrerank.chains import create_rag_chain, format_sources

    context: list[Any] = []
    found = time.perf_counter()
    print("\nAnswer:")
    for part in create_rag_chain(retriever, llm).stream(question):
        if "context" in part:
            context, found = part["context"], time.perf_counter()
        print(part.get("answer", ""), end="", flush=True)
    answered = time.perf_counter()
    print(f"\n\nSources (score, file):\n{format_sources(context)}")
    return (answered - found) * 1000


def _terminal_width() -> int:
    return max(80, min(shutil.get_terminal_size((110, 24)).columns, 160))


def _quieten() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crossrerank", description="Two-stage retrieval with a cross-encoder, from the command line."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    stages = argparse.ArgumentParser(add_help=False)
    stages.add_argument("--model", help=f'cross-encoder: "bundled", a folder or a hub name (default {DEFAULT_MODEL})')
    stages.add_argument("--embeddings", help="bi-encoder of the first stage: a folder or a hub name")
    stages.add_argument("--k", type=int, default=20, help="candidates of the first stage (default %(default)s)")
    stages.add_argument("--top-n", type=int, default=5, help="documents to keep (default %(default)s)")

    over_files = argparse.ArgumentParser(add_help=False)
    over_files.add_argument("files", nargs="+", metavar="FILE", help="PDF, text or Markdown files, or folders")
    over_files.add_argument("question", help="what to search for")
    over_files.add_argument("--offline", action="store_true", help="the bundled models: no network, no API key")
    over_files.add_argument("--persist", metavar="FOLDER", help="keep the index in this folder and use it again")

    command = commands.add_parser("demo", parents=[stages], help=(demo.__doc__ or "").splitlines()[0])
    command.set_defaults(run=demo, offline=True)
    command = commands.add_parser("ask", parents=[over_files, stages], help=(ask.__doc__ or "").splitlines()[0])
    command.set_defaults(run=ask)
    text = (compare_lists.__doc__ or "").splitlines()[0]
    command = commands.add_parser("compare", parents=[over_files, stages], help=text)
    command.set_defaults(run=compare_lists)
    command = commands.add_parser("export", help=(export.__doc__ or "").splitlines()[0])
    command.add_argument("model", help="a hub name or a folder")
    command.add_argument("folder", help="the folder to write; must not exist or be empty")
    command.set_defaults(run=export)
    return parser


if __name__ == "__main__":
    sys.exit(main())
