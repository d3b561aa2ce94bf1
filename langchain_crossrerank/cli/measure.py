"""The commands that measure: evaluate and profile."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_crossrerank.cli.search import check_numbers, chosen_embeddings, chosen_model, index, page
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.files import write_whole

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

    from langchain_crossrerank.evaluation import Collection, EvaluationResult

GAIN_TOO_SMALL = 3
"""Exit code when the gain stays below `--min-ndcg-gain`."""


def evaluate_folder(options: argparse.Namespace) -> int:
    """Measure a BEIR folder before and after reranking."""
    if options.make_queries is not None:
        return _draft(options)
    from langchain_crossrerank.evaluation import evaluate, load_beir, load_qrels

    check_numbers(options)
    collection = load_beir(options.folder)
    qrels = collection.qrels if options.qrels is None else load_qrels(options.qrels)
    measures = ["nDCG@10", *options.measures] if options.min_ndcg_gain is not None else options.measures
    result = evaluate(
        _first_stage(options, collection),
        collection.queries,
        qrels,
        measures=list(dict.fromkeys(measures)),
        checkpoint=options.checkpoint,
        show_progress=sys.stderr.isatty(),
    )
    print(result.to_text())
    if options.output:
        write_whole(options.output, _written(result, Path(options.output)))
    if options.min_ndcg_gain is not None:
        gain = next(row.difference for row in result.measures if row.name == "nDCG@10")
        if gain < options.min_ndcg_gain:
            print(f"crossrerank: nDCG@10 gain {gain:+.4f} is below {options.min_ndcg_gain}", file=sys.stderr)
            return GAIN_TOO_SMALL
    return 0


def profile_files(options: argparse.Namespace) -> None:
    """Time each stage of answering a question from files."""
    from langchain_crossrerank.chains import create_rag_chain
    from langchain_crossrerank.evaluation import profile

    retriever = index(options, options.files)
    result = profile(
        retriever, [options.question], repeats=options.repeats, chain=create_rag_chain(retriever, llm=None)
    )
    print(result.to_text())
    if options.output:
        write_whole(options.output, _written(result, Path(options.output)))


def _first_stage(options: argparse.Namespace, collection: Collection) -> ContextualCompressionRetriever:
    from langchain_core.vectorstores import InMemoryVectorStore

    from langchain_crossrerank.evaluation import load_run, run_retriever
    from langchain_crossrerank.indexing import load_embeddings
    from langchain_crossrerank.retrievers import create_rerank_retriever

    model = chosen_model(options)
    if options.run:
        fixed = run_retriever(collection, load_run(options.run), k=options.k)
        return create_rerank_retriever(fixed, model=model, top_n=options.top_n)
    store = InMemoryVectorStore(load_embeddings(chosen_embeddings(options)))
    store.add_documents(collection.documents)
    return create_rerank_retriever(store, model=model, k=options.k, top_n=options.top_n)


def _draft(options: argparse.Namespace) -> int:
    from langchain_crossrerank.chains import default_llm
    from langchain_crossrerank.evaluation.drafting import DRAFTED_QRELS, draft_queries
    from langchain_crossrerank.indexing import find_files, load_documents, split_documents

    if not options.files:
        raise InvalidInputError("--make-queries needs --files with the documents to draft from.")
    llm = default_llm()
    if llm is None:
        raise InvalidInputError("--make-queries needs a language model; set OPENAI_API_KEY, or call draft_queries.")
    documents = [document for file in find_files(options.files) for document in load_documents(file)]
    count = draft_queries(split_documents(documents), llm, options.make_queries, options.folder)
    print(f"Drafted {count} queries in {options.folder}. Correct them, then save {DRAFTED_QRELS} as qrels.tsv.")
    return 0


def _written(result: Any, path: Path) -> str:
    if path.suffix == ".html":
        return page(result)
    if path.suffix == ".csv":
        return _csv(result)
    if path.suffix == ".json":
        return json.dumps(result.to_dict(), indent=1, ensure_ascii=False) + "\n"
    raise InvalidInputError(f"--output is {str(path)!r}; name a file that ends in .json, .csv or .html.")


def _csv(result: EvaluationResult | Any) -> str:
    """One row a query and measure for an evaluation, one row a stage for a profile."""
    output = io.StringIO()
    writer = csv.writer(output)
    if hasattr(result, "stages"):
        writer.writerow(["stage", "p50_ms", "p95_ms", "share"])
        writer.writerows([row.name, row.p50_ms, row.p95_ms, row.share] for row in result.stages)
    else:
        writer.writerow(["query_id", "measure", "before", "after"])
        writer.writerows(
            [key, row.name, before, after] for row in result.measures for key, (before, after) in row.per_query.items()
        )
    return output.getvalue()
