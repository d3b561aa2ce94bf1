"""The command line: `crossrerank demo | ask | compare | evaluate | profile | export`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from langchain_crossrerank.cli.measure import evaluate_folder, profile_files
from langchain_crossrerank.cli.search import DEMO_QUESTIONS, ask, compare_lists, demo, demo_pdf
from langchain_crossrerank.cross_encoders import DEFAULT_MODEL
from langchain_crossrerank.errors import CrossRerankError

__all__ = ["DEMO_QUESTIONS", "demo_pdf", "main"]


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
    with warnings.catch_warnings():
        # Notices of other packages to their developers; this command's own warnings are printed by it.
        warnings.simplefilter("ignore")
        _quieten()
        try:
            return run(options) or 0
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


def export(options: argparse.Namespace) -> None:
    """Export a cross-encoder to a folder that needs no torch."""
    from langchain_crossrerank.extras import check_extra

    check_extra("export", needed_for="exporting a model")
    from langchain_crossrerank.cross_encoders.graph import export_onnx

    difference = export_onnx(options.model, options.folder)
    print(f"Wrote {options.folder}; largest difference from torch {difference:.1e} in logits.")


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
    stages = _stage_options()
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
    command.add_argument("--output", metavar="FILE", help="write a .json, .csv or .html file")
    _evaluate_options(add("evaluate", evaluate_folder, stages, offline))
    command = add("export", export)
    command.add_argument("model", help="a hub name or a folder")
    command.add_argument("folder", help="the folder to write; must not exist or be empty")
    return parser


def _stage_options() -> argparse.ArgumentParser:
    stages = argparse.ArgumentParser(add_help=False)
    stages.add_argument("--model", help=f'cross-encoder: "bundled", a folder or a hub name (default {DEFAULT_MODEL})')
    stages.add_argument("--embeddings", help="bi-encoder of the first stage: a folder or a hub name")
    stages.add_argument("--k", type=int, default=20, help="candidates of the first stage (default %(default)s)")
    stages.add_argument("--top-n", type=int, default=5, help="documents to keep (default %(default)s)")
    return stages


def _file_options() -> argparse.ArgumentParser:
    over_files = argparse.ArgumentParser(add_help=False)
    over_files.add_argument("files", nargs="+", metavar="FILE", help="PDF, text or Markdown files, or folders")
    over_files.add_argument("question", help="what to search for")
    over_files.add_argument("--persist", metavar="FOLDER", help="keep the index in this folder and use it again")
    return over_files


def _evaluate_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", metavar="BEIR_DIR", help="folder with corpus.jsonl, queries.jsonl and qrels.tsv")
    command.add_argument("--qrels", metavar="FILE", help="other judgements than the folder's qrels.tsv")
    command.add_argument("--run", metavar="FILE", help="a fixed first stage: query-id, corpus-id, score by line")
    measures = ["nDCG@10", "RR@10", "R@k"]
    command.add_argument("--measures", nargs="+", default=measures, help="as ir-measures spells them")
    command.add_argument("--output", metavar="FILE", help="write a .json, .csv or .html file")
    command.add_argument("--checkpoint", metavar="FILE", help="keep finished queries here and go on from there")
    command.add_argument("--min-ndcg-gain", type=float, metavar="X", help="exit with 3 if nDCG@10 gains less than this")
    command.add_argument("--make-queries", type=int, metavar="N", help="draft N queries into BEIR_DIR instead")
    command.add_argument("--files", nargs="+", metavar="FILE", help="with --make-queries: what to draft from")
