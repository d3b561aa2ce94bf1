"""The command that trains a reranker on your own queries."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from langchain_crossrerank.cli.options import model_name
from langchain_crossrerank.cli.output import say
from langchain_crossrerank.downloads import describe_failure
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError, UnsupportedModelError
from langchain_crossrerank.extras import check_extra

BI_ENCODER = "bi-encoder"
"""What `--teacher` calls the model of `--embeddings`."""

BASES = (
    "These work as --base: bundled, a cross-encoder with one label, such as cross-encoder/ms-marco-MiniLM-L6-v2 or "
    "BAAI/bge-reranker-base, and a BERT bi-encoder, such as sentence-transformers/all-MiniLM-L6-v2, by hub name or "
    "folder with safetensors."
)
"""What an error about `--base` ends with."""


def train_command(
    data: Annotated[list[str], typer.Argument(metavar="DATA", help="JSONL files or BEIR folders.")],
    *,
    output: Annotated[str, typer.Option(metavar="FOLDER", help="The model folder to write.")],
    base: Annotated[str, typer.Option(metavar="MODEL", help="What to start from: a folder or a hub name.")],
    run_folder: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Checkpoint and log.  [dim]default: OUTPUT.run[/dim]")
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", parser=model_name, help="Bi-encoder to mine negatives with, in addition to BM25."
        ),
    ] = None,
    held_out: Annotated[float, typer.Option(metavar="SHARE", help="Share of the queries to validate on.")] = 0.05,
    max_length: Annotated[int, typer.Option(help="Tokens of a pair.")] = 256,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Maximum number of optimiser steps.")] = None,
    groups_per_step: Annotated[int | None, typer.Option(metavar="N", help="Queries in a step.")] = None,
    negatives: Annotated[int | None, typer.Option(metavar="N", help="Negative passages for each positive.")] = None,
    learning_rate: Annotated[float | None, typer.Option(metavar="X", help="Peak learning rate.")] = None,
    distillation: Annotated[
        float | None, typer.Option(metavar="X", help="How much to follow the teacher's scores.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            parser=model_name,
            help=f'A cross-encoder, or "{BI_ENCODER}" for that of --embeddings.  [dim]default: the base itself[/dim]',
        ),
    ] = None,
    keep_start: Annotated[
        float | None, typer.Option(metavar="X", help="Share of the starting weights in the result.")
    ] = None,
    validate_every: Annotated[int | None, typer.Option(metavar="STEPS", help="Steps between validations.")] = None,
    patience: Annotated[
        int | None, typer.Option(metavar="N", help="Stop after this many validations without a gain.")
    ] = None,
    checkpoint_minutes: Annotated[float | None, typer.Option(metavar="X", help="Minutes between checkpoints.")] = None,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Faster on processors that support it.")] = False,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of every random draw.")] = None,
) -> None:
    """Train a reranker on your own queries, or resume a run that was stopped.

    Options left out have the defaults of TrainingSettings. The same command resumes from the last checkpoint.
    """
    check_extra("training", needed_for="training")
    from langchain_crossrerank.training import TrainingSettings, train

    settings: dict[str, Any] = {
        "steps": steps,
        "groups_per_step": groups_per_step,
        "negatives": negatives,
        "learning_rate": learning_rate,
        "distillation": distillation,
        "keep_start": keep_start,
        "validate_every": validate_every,
        "patience": patience,
        "checkpoint_minutes": checkpoint_minutes,
        "bfloat16": bfloat16 or None,
        "seed": seed,
    }
    bi_encoder, teaching = _load_helpers(embeddings, teacher)
    try:
        result = train(
            data,
            output,
            base=base,
            run_folder=run_folder,
            settings=TrainingSettings(**{name: value for name, value in settings.items() if value is not None}),
            max_length=max_length,
            embeddings=bi_encoder,
            teacher=teaching,
            held_out=held_out,
            show_progress=sys.stderr.isatty(),
        )
    except ModelNotFoundError as err:
        raise ModelNotFoundError(f"--base {base!r} cannot be loaded ({describe_failure(err)}). {BASES}") from err
    except UnsupportedModelError as err:
        raise UnsupportedModelError(f"{err} {BASES}") from err
    say(
        f"Wrote {result.folder}: nDCG@10 {result.base_ndcg:.4f} -> {result.ndcg:.4f} on {result.held_out} held-out "
        f"queries, trained on {result.examples}. Load it with load_cross_encoder({str(result.folder)!r})."
    )


def _load_helpers(embeddings: str | None, teacher: str | None) -> tuple[Any, Any]:
    """Load the bi-encoder that mines and the model that teaches, where they are named."""
    bi_encoder: Any = None
    if embeddings is not None:
        from langchain_crossrerank.embeddings import load_embeddings

        bi_encoder = load_embeddings(embeddings)
    if teacher == BI_ENCODER:
        if bi_encoder is None:
            raise InvalidInputError(f"--teacher {BI_ENCODER} needs --embeddings MODEL, which names the bi-encoder.")
        return bi_encoder, bi_encoder
    if teacher is None:
        return bi_encoder, None
    from langchain_crossrerank.cross_encoders.loading import load_cross_encoder

    return bi_encoder, load_cross_encoder(teacher)
