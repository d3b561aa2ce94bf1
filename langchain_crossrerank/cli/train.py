"""The command that trains a reranker on one's own queries."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extras import check_extra

BI_ENCODER = "bi-encoder"
"""What `--teacher` calls the model of `--embeddings`."""


def train_model(options: argparse.Namespace) -> None:
    """Train a reranker on your own queries, or go on with a run that was stopped."""
    check_extra("training", needed_for="training")
    from langchain_crossrerank.training import train
    from langchain_crossrerank.training.trainer import TrainingSettings

    embeddings: Any = None
    if options.embeddings:
        from langchain_crossrerank.indexing import load_embeddings

        embeddings = load_embeddings(options.embeddings)
    teacher: Any = None
    if options.teacher == BI_ENCODER:
        if embeddings is None:
            raise InvalidInputError(f"--teacher {BI_ENCODER} needs --embeddings MODEL, which names the bi-encoder.")
        teacher = embeddings
    elif options.teacher:
        from langchain_crossrerank.cross_encoders.loading import load_cross_encoder

        teacher = load_cross_encoder(options.teacher)
    chosen = {field.name: getattr(options, field.name, None) for field in dataclasses.fields(TrainingSettings)}
    result = train(
        options.data,
        options.output,
        base=options.base,
        run_folder=options.run_folder,
        settings=TrainingSettings(**{name: value for name, value in chosen.items() if value is not None}),
        max_length=options.max_length,
        embeddings=embeddings,
        teacher=teacher,
        held_apart=options.held_apart,
        show_progress=sys.stderr.isatty(),
    )
    print(
        f"Wrote {result.folder}: nDCG@10 {result.start:.4f} -> {result.ndcg:.4f} on {result.held_apart} queries held "
        f"apart, trained on {result.examples}. Load it with load_cross_encoder({str(result.folder)!r})."
    )


def train_options(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `crossrerank train`; what is left out has the default of `TrainingSettings`."""
    command.add_argument("data", nargs="+", metavar="DATA", help="JSONL files or BEIR folders")
    command.add_argument("--output", required=True, metavar="FOLDER", help="the model folder to write")
    command.add_argument("--base", required=True, metavar="MODEL", help="what to start from: a folder or a hub name")
    command.add_argument("--run-folder", metavar="FOLDER", help="checkpoint and log (default OUTPUT.run)")
    command.add_argument("--embeddings", metavar="MODEL", help="bi-encoder to mine negatives with beside BM25")
    command.add_argument("--held-apart", type=float, default=0.05, metavar="SHARE", help="of queries, to validate on")
    command.add_argument("--max-length", type=int, default=256, help="tokens of a pair (default %(default)s)")
    command.add_argument("--steps", type=int, help="optimiser steps at most")
    command.add_argument("--groups-per-step", type=int, metavar="N", help="queries in a step")
    command.add_argument("--negatives", type=int, metavar="N", help="passages beside the positive")
    command.add_argument("--learning-rate", type=float, metavar="X")
    command.add_argument("--distillation", type=float, metavar="X", help="how much to follow the teacher's scores")
    command.add_argument(
        "--teacher",
        metavar="MODEL",
        help=f"a cross-encoder, or {BI_ENCODER!r} for that of --embeddings (default the model itself at the start)",
    )
    command.add_argument("--keep-start", type=float, metavar="X", help="share of the starting weights in the result")
    command.add_argument("--validate-every", type=int, metavar="STEPS")
    command.add_argument("--patience", type=int, metavar="N", help="validations without gain before it stops")
    command.add_argument("--checkpoint-minutes", type=float, metavar="X")
    command.add_argument("--bfloat16", action="store_true", default=None, help="faster on processors that have it")
    command.add_argument("--seed", type=int)
