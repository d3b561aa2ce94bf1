"""Puts the commands together, and turns what happens in them into exit codes."""

from __future__ import annotations

import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from langchain_crossrerank.cli import about, cache, demo, mcp, measure, models, score, search, serve, train
from langchain_crossrerank.cli.output import drop_output, note, prepare_streams, report_error, say
from langchain_crossrerank.cli.progress import announced_downloads
from langchain_crossrerank.errors import CrossRerankError

_WRONG_CALL: tuple[type[Exception], ...] = tuple(
    kind for kind in typer.BadParameter.__mro__ if issubclass(kind, Exception) and hasattr(kind, "format_message")
)
"""What typer raises for a wrong call; of these classes only `BadParameter` is public."""

INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
cache_app = typer.Typer()
app.add_typer(cache_app, name="cache", rich_help_panel="Models")


@app.callback(invoke_without_command=True)
def _crossrerank(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Two-stage retrieval with a cross-encoder, from the command line."""
    if version:
        import langchain_crossrerank

        say(f"crossrerank {langchain_crossrerank.__version__}")
        raise typer.Exit
    _help_without_command(context)


@cache_app.callback(invoke_without_command=True)
def _cache(context: typer.Context) -> None:
    """Look after a score cache in a SQLite file."""
    _help_without_command(context)


def _help_without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        say(context.get_help())
        raise typer.Exit


def _add(name: str, command: Callable[..., int | None], *, examples: Sequence[str], panel: str | None = None) -> None:
    lines = [f"[cyan]$ crossrerank {name} {words}[/cyan]" for words in examples]
    epilog = "\n\n".join(["[bold]Examples[/bold]", *lines])
    group = cache_app if name.startswith("cache ") else app
    group.command(name.removeprefix("cache "), rich_help_panel=panel, epilog=epilog)(_reporting_errors(command))


def _reporting_errors(command: Callable[..., int | None]) -> Callable[..., int]:
    """Let a command return its exit code, and say what went wrong in one line."""

    @functools.wraps(command)
    def run_command(*args: Any, **kwargs: Any) -> int:
        try:
            with announced_downloads():
                return command(*args, **kwargs) or 0
        except KeyboardInterrupt:
            note("interrupted")
            return INTERRUPTED
        except (CrossRerankError, OSError) as err:
            # An OSError is a file that cannot be read or written: no permission, no space, a folder in its place.
            return report_error(err)

    return run_command


def run(arguments: Sequence[str]) -> int:
    """Parse the arguments, run the command and return its exit code."""
    prepare_streams()
    code = 0
    with warnings.catch_warnings():
        # Other packages warn their developers; what concerns the user is printed by the command.
        warnings.simplefilter("ignore")
        _quieten()
        try:
            code = _run_command(arguments)
            # What is still buffered may fail; nothing would catch that when the interpreter exits.
            sys.stdout.flush()
        except BrokenPipeError:
            drop_output()
        except OSError as err:
            drop_output()
            return report_error(err)
    return code


def _run_command(arguments: Sequence[str]) -> int:
    try:
        code = typer.main.get_command(app).main(list(arguments), prog_name="crossrerank", standalone_mode=False)
    except _WRONG_CALL as err:
        return _report_wrong_call(err, arguments)
    except SystemExit as err:
        # What prints the help leaves so when its reader has gone.
        if isinstance(err.__context__, BrokenPipeError):
            raise err.__context__ from None
        raise
    return int(code or 0)


def _report_wrong_call(err: Any, arguments: Sequence[str]) -> int:
    usage = f"crossrerank {arguments[0]} [OPTIONS] ..." if err.ctx is None else err.ctx.get_usage()
    note(" ".join(usage.removeprefix("Usage:").split()), prefix="Usage: ")
    message = " ".join(err.format_message().split())
    parameter = getattr(err, "param", None)
    if parameter and parameter.name == "files" and any(other.name == "question" for other in err.ctx.command.params):
        # The parser takes a single word for the question; it is most likely a file.
        message = "Missing argument 'QUESTION': name the files first, then the question in quotes."
    note(f"error: {message}")
    return 2


def _quieten() -> None:
    # Errors and skipped files are printed by the command; the log would repeat them.
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


PDF = "report.pdf"
_add("demo", demo.demo_command, panel="Search", examples=["", "--top-n 3"])
_add(
    "ask",
    search.ask_command,
    panel="Search",
    examples=[f'{PDF} "What is LoRA?" --offline', 'notes/ more.md "When does the ferry leave?" --persist index'],
)
_add(
    "compare",
    search.compare_command,
    panel="Search",
    examples=[f'{PDF} "What is LoRA?" --offline --k 50 --top-n 3', f'{PDF} "What is LoRA?" --output lists.html'],
)
_add(
    "ui",
    serve.ui_command,
    panel="Serve",
    examples=[PDF, "notes/ more.md --model bundled --model BAAI/bge-reranker-base"],
)
_add(
    "serve",
    serve.serve_command,
    panel="Serve",
    examples=["bundled", "fast=bundled BAAI/bge-reranker-base --port 8080 --workers 2 --cache scores.sqlite"],
)
_add(
    "mcp",
    mcp.mcp_command,
    panel="Serve",
    examples=["--offline", f"{PDF} notes/ --offline", "notes/ --http --port 8765"],
)
_add(
    "evaluate",
    measure.evaluate_command,
    panel="Measure",
    examples=[
        "beir/ --offline --min-ndcg-gain 0.02",
        "beir/ --split dev --sample 200 --model my-model --against bundled",
        "beir/ --run bm25.trec --measures nDCG@10,RR@10 --output result.html",
        "beir/ --make-queries 50 --files report.pdf --files notes/",
    ],
)
_add(
    "sweep",
    measure.sweep_command,
    panel="Measure",
    examples=["beir/ --offline --ks 5,10,20,50 --budget-ms 200"],
)
_add(
    "profile",
    measure.profile_command,
    panel="Measure",
    examples=[f'{PDF} "What is LoRA?" --offline --repeats 5'],
)
_add(
    "score",
    score.score_command,
    panel="Search",
    examples=[
        "pairs.jsonl scored.jsonl --offline",
        "queries.parquet scored.parquet --candidates-column hits --on-error skip",
    ],
)
_add(
    "train",
    train.train_command,
    panel="Models",
    examples=["pairs.jsonl --base cross-encoder/ms-marco-MiniLM-L6-v2 --output my-model"],
)
_add(
    "verify",
    models.verify_command,
    panel="Models",
    examples=["bundled", "http://localhost:7997/rerank --goldens goldens.json --golden-model BAAI/bge-reranker-base"],
)
_add(
    "export",
    models.export_command,
    panel="Models",
    examples=["BAAI/bge-reranker-base bge-onnx --precision fp16"],
)
_add("models", about.models_command, panel="Models", examples=["", "--json"])
_add("info", about.info_command, examples=["", "--model BAAI/bge-reranker-base"])
_add("cache info", cache.info_command, examples=["scores.sqlite"])
_add("cache clear", cache.clear_command, examples=["scores.sqlite"])
