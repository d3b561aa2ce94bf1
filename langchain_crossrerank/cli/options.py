"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from langchain_crossrerank.errors import InvalidInputError


def readable_text(text: str) -> str:
    """Replace what was not valid in the terminal's encoding by U+FFFD, so that a model can read the text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def finite_number(text: str) -> float:
    """Read a number, and refuse nan and infinity."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(f"{text!r} is not a finite number.")
    return value


def model_name(text: str) -> str:
    """Read the name of a model, and refuse a blank one."""
    if not text.strip():
        raise typer.BadParameter(f"{text!r} names no model; name one, or leave the option out.")
    return text


def split_list(values: Sequence[str]) -> list[str]:
    """Split `a,b` at its commas, but not inside brackets; an option may also be repeated."""
    parts = [part.strip() for value in values for part in re.split(r",(?![^()]*\))", value)]
    return [part for part in parts if part]


def whole_numbers(values: Sequence[str], *, option: str) -> list[int]:
    """Read a list of whole numbers."""
    try:
        return [int(part) for part in split_list(values)]
    except ValueError as err:
        raise typer.BadParameter(f"{option} is {', '.join(values)!r}; pass whole numbers, such as 5,10,20.") from err


def given(**settings: Any) -> dict[str, Any]:
    """Keep the settings that were given, so that the rest have the defaults of what they are passed to."""
    return {name: value for name, value in settings.items() if value is not None}


def check_file(option: str, path: str | None) -> None:
    """Raise unless the file that an option names, if any, is there."""
    if path is not None and not Path(path).is_file():
        raise InvalidInputError(f"{option} is {path!r}, and there is no such file; check its name.")


_FILES = "Model files"

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        help="PDF, text, Markdown and source files, or folders; with the documents extra also HTML, Word, PowerPoint, "
        "Excel, EPUB, CSV and notebooks.",
    ),
]
Question = Annotated[str, typer.Argument(metavar="QUESTION", help="What to search for.", parser=readable_text)]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        parser=model_name,
        help='Cross-encoder: "bundled", a folder or a hub name. '
        "[dim]default: cross-encoder/ms-marco-MiniLM-L6-v2[/dim]",
    ),
]
Backend = Annotated[
    Literal["onnx", "openvino", "torch"] | None,
    typer.Option(help="What runs the cross-encoder; chosen by the model's files if left out.", rich_help_panel=_FILES),
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16", "int8", "auto"] | None,
    typer.Option(help="Precision of the cross-encoder; exact if left out.", rich_help_panel=_FILES),
]
Subfolder = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Folder of the cross-encoder inside its repository.", rich_help_panel=_FILES),
]
FileName = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="ONNX graph to run, such as onnx/model_int8.onnx.", rich_help_panel=_FILES),
]
Embeddings = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        parser=model_name,
        help='Bi-encoder of the first stage: "bundled", a folder or a hub name. '
        "[dim]default: sentence-transformers/all-MiniLM-L6-v2[/dim]",
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Use the bundled models, or those named from this machine: no network, no API key.",
    ),
]
K = Annotated[int, typer.Option("--k", help="Candidates that the first stage fetches.")]
TopN = Annotated[int, typer.Option(help="Documents to keep.")]
Persist = Annotated[str | None, typer.Option(metavar="FOLDER", help="Keep the index in this folder and use it again.")]
AllFiles = Annotated[
    bool, typer.Option("--all", help="With --persist: search all files of the index, not only those named here.")
]
CollectionPath = Annotated[
    str,
    typer.Argument(
        metavar="COLLECTION",
        help="A BEIR folder (corpus.jsonl, queries.jsonl and qrels.tsv), or one file with a test set of ragas, "
        "LangSmith, LlamaIndex or SQuAD.",
    ),
]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Judgements of the folder's qrels/NAME.tsv.")]
Sample = Annotated[int | None, typer.Option(metavar="N", help="Measure a random sample of N judged queries.")]
Qrels = Annotated[str | None, typer.Option(metavar="FILE", help="Judgements to use instead of the folder's qrels.tsv.")]
Run = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="A fixed first stage: query-id, corpus-id, score per line, or a TREC run."),
]
Output = Annotated[str | None, typer.Option(metavar="FILE", help="Write a .json, .csv or .html file.")]
