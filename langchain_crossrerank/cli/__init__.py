"""The command line: `crossrerank demo | ask | compare | profile | evaluate | sweep | export | train`."""

from __future__ import annotations

import argparse
import io
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from langchain_crossrerank.cli.measure import evaluate_folder, profile_files, sweep_folder
from langchain_crossrerank.cli.search import DEMO_QUESTIONS, ask, compare_lists, demo, demo_pdf, drop_output
from langchain_crossrerank.cli.train import train_model, train_options
from langchain_crossrerank.cross_encoders.loading import DEFAULT_MODEL
from langchain_crossrerank.errors import CrossRerankError

__all__ = ["DEMO_QUESTIONS", "demo_pdf", "main"]

OUTPUT_HELP = "write a .json, .csv or .html file"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after `crossrerank`; `None` for those of this process.

    Returns:
        The exit code: 0 for success, 1 for an error, 2 for a wrong call, 3 for a gain below `--min-ndcg-gain`, 130
        when interrupted.
    """
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int | None] = options.run_command
    code = 0
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Documents hold any character, and a terminal's encoding may lack it.
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        # Notices of other packages to their developers; this command's own warnings are printed by it.
        warnings.simplefilter("ignore")
        _quieten()
        try:
            code = run(options) or 0
            # What is still to be written may fail; at the interpreter's end nothing would catch that.
            sys.stdout.flush()
            return code
        except CrossRerankError as err:
            print(f"crossrerank: error: {' '.join(str(err).split())}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("crossrerank: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            drop_output()
            return code
        except OSError as err:
            # A file that cannot be read or written: no permission, no space, a folder in its place.
            print(f"crossrerank: error: {' '.join(str(err).split())}", file=sys.stderr)
            return 1


def export(options: argparse.Namespace) -> None:
    """Export a cross-encoder to a folder that needs no torch."""
    from langchain_crossrerank.extras import check_extra

    check_extra("export", needed_for="exporting a model")
    from langchain_crossrerank.cross_encoders.export import export_onnx

    rows = export_onnx(options.model, options.folder, precision=options.precision)
    print(f"{'query':<24}  {'passage':<40}  {'torch':>9}  {'exported':>9}")
    for row in rows:
        query, passage = row.text_pair
        print(f"{query:<24.24}  {passage:<40.40}  {row.torch:>9.5f}  {row.exported:>9.5f}")
    largest = max(row.difference for row in rows)
    print(f"Wrote {options.folder}; largest difference from torch {largest:.1e} in logits.")


def _quieten() -> None:
    # Errors and what was left out are printed; the log would say them a second time.
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crossrerank", description="Two-stage retrieval with a cross-encoder, from the command line."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    models = _model_options()
    stages = _stage_options(models)
    over_files = _file_options()
    offline = argparse.ArgumentParser(add_help=False)
    offline.add_argument("--offline", action="store_true", help="the bundled models: no network, no API key")

    def add(
        name: str, run: Callable[[argparse.Namespace], int | None], *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        text = (run.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, parents=list(parents), help=text, description=text)
        command.set_defaults(run_command=run)
        return command

    add("demo", demo, stages).set_defaults(offline=True)
    add("ask", ask, over_files, stages, offline)
    command = add("compare", compare_lists, over_files, stages, offline)
    command.add_argument("--html", metavar="FILE", help="write the comparison as a page too")
    command = add("profile", profile_files, over_files, stages, offline)
    command.add_argument("--repeats", type=int, default=3, help="how often to run it (default %(default)s)")
    command.add_argument("--output", metavar="FILE", help=OUTPUT_HELP)
    _evaluate_options(add("evaluate", evaluate_folder, stages, offline))
    _sweep_options(add("sweep", sweep_folder, models, offline))
    train_options(add("train", train_model))
    command = add("export", export)
    command.add_argument("model", help="a hub name or a folder")
    command.add_argument("folder", help="the folder to write; must not exist or be empty")
    command.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="fp32 is exact, fp16 halves the file, int8 is for processors with instructions for it (default fp32)",
    )
    return parser


def _model_options() -> argparse.ArgumentParser:
    models = argparse.ArgumentParser(add_help=False)
    models.add_argument("--model", help=f'cross-encoder: "bundled", a folder or a hub name (default {DEFAULT_MODEL})')
    models.add_argument("--embeddings", help="bi-encoder of the first stage: a folder or a hub name")
    return models


def _stage_options(models: argparse.ArgumentParser) -> argparse.ArgumentParser:
    stages = argparse.ArgumentParser(add_help=False, parents=[models])
    stages.add_argument("--k", type=int, default=20, help="candidates of the first stage (default %(default)s)")
    stages.add_argument("--top-n", type=int, default=5, help="documents to keep (default %(default)s)")
    return stages


def _file_options() -> argparse.ArgumentParser:
    over_files = argparse.ArgumentParser(add_help=False)
    over_files.add_argument("files", nargs="+", metavar="FILE", help="PDF, text or Markdown files, or folders")
    over_files.add_argument("question", help="what to search for")
    over_files.add_argument("--persist", metavar="FOLDER", help="keep the index in this folder and use it again")
    return over_files


def _collection_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", metavar="BEIR_DIR", help="folder with corpus.jsonl, queries.jsonl and qrels.tsv")
    command.add_argument("--qrels", metavar="FILE", help="other judgements than the folder's qrels.tsv")
    command.add_argument(
        "--run", metavar="FILE", help="a fixed first stage: query-id, corpus-id, score by line, or a TREC run"
    )
    command.add_argument("--output", metavar="FILE", help=OUTPUT_HELP)


def _evaluate_options(command: argparse.ArgumentParser) -> None:
    _collection_options(command)
    measures = ["nDCG@10", "RR@10", "R@k"]
    command.add_argument("--measures", nargs="+", default=measures, help="as ir-measures spells them")
    command.add_argument("--checkpoint", metavar="FILE", help="keep finished queries here and go on from there")
    command.add_argument(
        "--min-ndcg-gain", type=_finite, metavar="X", help="exit with 3 if nDCG@10 gains less than this"
    )
    command.add_argument("--make-queries", type=int, metavar="N", help="draft N queries into BEIR_DIR instead")
    command.add_argument("--files", nargs="+", metavar="FILE", help="with --make-queries: what to draft from")


def _sweep_options(command: argparse.ArgumentParser) -> None:
    _collection_options(command)
    ks = [5, 10, 20, 50, 100]
    command.add_argument("--ks", nargs="+", type=int, default=ks, metavar="K", help="numbers of candidates")
    command.add_argument("--measure", default="nDCG@10", help="as ir-measures spells it (default %(default)s)")
    command.add_argument(
        "--budget-ms", type=_finite, metavar="X", help="advise --k and --top-n for a rerank of X milliseconds (p95)"
    )


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value
