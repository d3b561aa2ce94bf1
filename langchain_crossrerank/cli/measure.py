"""The commands that measure: evaluate, sweep and profile."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_crossrerank.cli.search import (
    check_numbers,
    check_target,
    chosen_embeddings,
    chosen_model,
    drop_output,
    index,
    page,
)
from langchain_crossrerank.errors import AnswerError, CrossRerankError, InvalidInputError
from langchain_crossrerank.files import write_whole

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

    from langchain_crossrerank.evaluation import Collection

GAIN_TOO_SMALL = 3
"""Exit code when the gain stays below `--min-ndcg-gain`."""

GAIN_MEASURE = "nDCG@10"
"""What `--min-ndcg-gain` looks at, and what is measured for it where nobody asked."""

SUFFIXES = (".json", ".csv", ".html")
"""What `--output` may end in."""


def evaluate_folder(options: argparse.Namespace) -> int:
    """Measure a BEIR folder before and after reranking."""
    if options.make_queries is not None:
        return _draft(options)
    from langchain_crossrerank.evaluation import evaluate

    if options.files:
        raise InvalidInputError("--files is what to draft from; it goes with --make-queries.")
    check_numbers(options)
    least = options.min_ndcg_gain
    measures = list(dict.fromkeys([*options.measures, *([] if least is None else [GAIN_MEASURE])]))
    collection = _collection(options, measures)
    notes = _origin_notes(collection)
    result = evaluate(
        _retriever(options, collection, options.k, top_n=options.top_n),
        collection.queries,
        collection.qrels,
        measures=measures,
        checkpoint=options.checkpoint,
        show_progress=sys.stderr.isatty(),
    )
    _report(options, result, notes)
    if least is not None:
        gain = next(row.difference for row in result.measures if row.name == GAIN_MEASURE)
        if gain < least:
            print(f"crossrerank: {GAIN_MEASURE} gain {gain:+.4f} is below {least}", file=sys.stderr)
            return GAIN_TOO_SMALL
    return 0


def sweep_folder(options: argparse.Namespace) -> None:
    """Find how many candidates are worth their time, on a BEIR folder."""
    from langchain_crossrerank.evaluation import sweep

    if min(options.ks) < 1:
        raise InvalidInputError(f"--ks is {options.ks}; every number of candidates must be at least 1.")
    collection = _collection(options, [options.measure])
    notes = _origin_notes(collection)
    result = sweep(
        _retriever(options, collection, max(options.ks), top_n=None),
        collection.queries,
        collection.qrels,
        ks=options.ks,
        measure=options.measure,
        show_progress=sys.stderr.isatty(),
    )
    if options.budget_ms is not None:
        advice = result.recommend(options.budget_ms)
        words = "no number of candidates is better than no reranking" if advice is None else "--k {} --top-n {}"
        notes.append(f"Within {options.budget_ms:g} ms (p95): {words.format(*advice or ())}.")
    _report(options, result, notes)


def profile_files(options: argparse.Namespace) -> None:
    """Time each stage of answering a question from files."""
    from langchain_crossrerank.chains import create_rag_chain
    from langchain_crossrerank.evaluation import profile

    check_target("--output", options.output, SUFFIXES)
    if options.repeats < 1:
        raise InvalidInputError(f"--repeats is {options.repeats}; it must be at least 1.")
    retriever = index(options, options.files)
    chain = create_rag_chain(retriever, llm=None)
    _report(options, profile(retriever, [options.question], repeats=options.repeats, chain=chain), [])


def _collection(options: argparse.Namespace, measures: Sequence[str]) -> Collection:
    """Check what can be checked before a model is loaded, and read the folder."""
    from langchain_crossrerank.extras import check_extra

    check_target("--output", options.output, SUFFIXES)
    check_extra("eval", needed_for="measuring")
    from langchain_crossrerank.evaluation import load_beir
    from langchain_crossrerank.evaluation.drafting import DRAFTED_QRELS
    from langchain_crossrerank.evaluation.measures import check_measures

    check_measures(measures)
    root = Path(options.folder)
    if options.qrels is not None:
        return load_beir(root, qrels=str(Path(options.qrels).absolute()))
    if (root / DRAFTED_QRELS).exists() and not (root / "qrels.tsv").exists():
        raise InvalidInputError(
            f"the only judgements in {options.folder!r} are drafted ones; correct {DRAFTED_QRELS} and save it as "
            "qrels.tsv, or name it with --qrels."
        )
    return load_beir(root)


def _retriever(
    options: argparse.Namespace, collection: Collection, k: int, *, top_n: int | None
) -> ContextualCompressionRetriever:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import InMemoryVectorStore

    from langchain_crossrerank.evaluation import run_retriever
    from langchain_crossrerank.indexing import load_embeddings
    from langchain_crossrerank.retrievers import create_rerank_retriever

    class FirstStage(BaseRetriever):
        """Any search, with all that decides what it finds in `search_kwargs`: a checkpoint is bound to them."""

        search: Any
        search_kwargs: dict[str, Any]

        def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
            return list(self.search.invoke(query, config={"callbacks": run_manager.get_child()}))

    identity: dict[str, Any] = {"k": k, "corpus": _digest([(d.id, d.page_content) for d in collection.documents])}
    if options.run is not None:
        run = _load_run(options.run, collection.queries)
        fixed = run_retriever(collection, run, k=k)
        stage = FirstStage(search=fixed, search_kwargs={**identity, "run": _digest(sorted(run.items()))})
        return create_rerank_retriever(stage, model=chosen_model(options), top_n=top_n)
    model = chosen_model(options)
    name = chosen_embeddings(options)
    store = InMemoryVectorStore(load_embeddings(name))
    store.add_documents(collection.documents)
    found = store.as_retriever(search_kwargs={"k": k})
    return create_rerank_retriever(
        FirstStage(search=found, search_kwargs={**identity, "embeddings": name}), model=model, top_n=top_n
    )


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def _load_run(file: str, queries: Mapping[str, str]) -> dict[str, list[tuple[str, float]]]:
    """Read a fixed first stage, as `load_run` takes it or in the six columns of a TREC run."""
    from langchain_crossrerank.evaluation import load_run

    run = load_run(file)
    if not any(run.get(query_id) for query_id in queries):
        raise InvalidInputError(f"--run {file!r} holds nothing for any judged query; there is nothing to rerank.")
    return run


def _draft(options: argparse.Namespace) -> int:
    from langchain_crossrerank.chains import default_llm
    from langchain_crossrerank.evaluation.drafting import DRAFTED_QRELS, draft_queries
    from langchain_crossrerank.indexing import find_files, load_documents, split_documents

    if not options.files:
        raise InvalidInputError("--make-queries needs --files with the documents to draft from.")
    if options.offline:
        raise InvalidInputError("--make-queries needs a language model, which --offline does without; leave one out.")
    llm = default_llm()
    if llm is None:
        raise InvalidInputError("--make-queries needs a language model; set OPENAI_API_KEY, or call draft_queries.")
    documents = [document for file in find_files(options.files) for document in load_documents(file)]
    try:
        count = draft_queries(split_documents(documents), llm, options.make_queries, options.folder)
    except (CrossRerankError, OSError):
        raise
    except Exception as err:
        # Every provider has its own errors.
        raise AnswerError(
            f"the language model failed ({type(err).__name__}: {err}); nothing was written. Check its key and network."
        ) from err
    print(f"Drafted {count} queries in {options.folder}. Correct them, then save {DRAFTED_QRELS} as qrels.tsv.")
    return 0


def _origin_notes(collection: Collection) -> list[str]:
    """Say how many of the judged queries no person wrote."""
    count = len(collection.drafted)
    if not count:
        return []
    return [
        f"{count} of {len(collection.qrels)} judged queries were drafted by a language model; the figures say as much "
        "as somebody has checked them."
    ]


def _report(options: argparse.Namespace, result: Any, notes: Sequence[str]) -> None:
    """Write a result and what must be said with it to `--output`, and print both."""
    try:
        # First the file: the reader of what is printed may have gone.
        if options.output is not None:
            text = _written(result, notes, Path(options.output).suffix.lower())
            # A lone surrogate, which UTF-8 cannot hold, becomes its escape.
            write_whole(options.output, text.encode("utf-8", "backslashreplace").decode())
    finally:
        try:
            print("\n\n".join([result.to_text(), *notes]), flush=True)
        except BrokenPipeError:
            # What is still to be said on standard error, and the exit code, do not depend on it.
            drop_output()


def _written(result: Any, notes: Sequence[str], suffix: str) -> str:
    if suffix == ".html":
        return page(result, notes)
    if suffix == ".csv":
        return _csv(result)
    content = {**result.to_dict(), **({"notes": list(notes)} if notes else {})}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _csv(result: Any) -> str:
    """One row a query and measure for an evaluation, one row a stage for a profile, one row a k for a sweep."""
    output = io.StringIO()
    writer = csv.writer(output)
    if hasattr(result, "stages"):
        writer.writerow(["stage", "p50_ms", "p95_ms", "share"])
        writer.writerows([row.name, row.p50_ms, row.p95_ms, row.share] for row in result.stages)
    elif hasattr(result, "rows"):
        writer.writerow(["k", "measure", "quality", "ceiling", "p50_ms", "p95_ms"])
        writer.writerows(
            [row.k, result.measure, row.quality, row.ceiling, row.p50_ms, row.p95_ms] for row in result.rows
        )
    else:
        writer.writerow(["query_id", "measure", "before", "after"])
        writer.writerows(
            [key, row.name, before, after] for row in result.measures for key, (before, after) in row.per_query.items()
        )
    return output.getvalue()
