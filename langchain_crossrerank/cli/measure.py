"""The commands that measure: evaluate, sweep and profile."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langchain_crossrerank.checks import check_query, check_whole_numbers
from langchain_crossrerank.cli.options import (
    Backend,
    CollectionPath,
    Embeddings,
    FileName,
    Files,
    K,
    Model,
    Offline,
    Output,
    Persist,
    Precision,
    Qrels,
    Question,
    Run,
    Sample,
    Split,
    Subfolder,
    TopN,
    check_file,
    finite_number,
    given,
    model_name,
    split_list,
    whole_numbers,
)
from langchain_crossrerank.cli.output import SUFFIXES, check_target, note, report, say
from langchain_crossrerank.cli.stages import Stages
from langchain_crossrerank.errors import AnswerError, CrossRerankError, InvalidInputError

if TYPE_CHECKING:
    from langchain_core.retrievers import RetrieverLike

    from langchain_crossrerank import evaluation
    from langchain_crossrerank.evaluation import EvaluationResult, SweepResult

GAIN_TOO_SMALL = 3
"""Exit code when the gain stays below `--min-ndcg-gain`."""

GAIN_MEASURE = "nDCG@10"
"""The measure of `--min-ndcg-gain`; added to `--measures` where it is missing."""


def evaluate_command(
    collection: CollectionPath,
    *,
    measures: Annotated[
        list[str], typer.Option(metavar="LIST", help="Measures as ir-measures spells them, separated by commas.")
    ] = ["nDCG@10,RR@10,R@k"],  # noqa: B006 - typer reads it and copies it
    min_ndcg_gain: Annotated[
        float | None,
        typer.Option(metavar="X", parser=finite_number, help="Exit with 3 if nDCG@10 gains less than this."),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="FILE", help="Keep finished queries in this file and resume from it.")
    ] = None,
    run: Run = None,
    qrels: Qrels = None,
    split: Split = None,
    sample: Sample = None,
    output: Output = None,
    model: Model = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL", parser=model_name, help="Another cross-encoder to compare --model with."),
    ] = None,
    embeddings: Embeddings = None,
    k: K = 20,
    top_n: TopN = 5,
    offline: Offline = False,
    backend: Backend = None,
    precision: Precision = None,
    subfolder: Subfolder = None,
    file_name: FileName = None,
    make_queries: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Measure nothing; let a language model draft N queries and write them to the folder."
        ),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="With --make-queries: a file or folder to draft from; repeatable."),
    ] = None,
) -> int:
    """Measure a collection before and after reranking, with a verdict."""
    if make_queries is not None:
        _draft_queries(collection, make_queries, files or [], offline=offline)
        return 0
    if files:
        raise InvalidInputError("--files names what to draft queries from; use it with --make-queries.")
    loading = given(backend=backend, precision=precision, subfolder=subfolder, file_name=file_name)
    stages = Stages(model, embeddings, offline, k, top_n, loading)
    stages.check()
    names = list(dict.fromkeys([*split_list(measures), *([] if min_ndcg_gain is None else [GAIN_MEASURE])]))
    read = _read(collection, names, run=run, qrels=qrels, split=split, sample=sample, output=output)
    from langchain_crossrerank.evaluation import evaluate
    from langchain_crossrerank.retrievers import create_rerank_retriever

    others = [] if against is None else [Stages(against, embeddings, offline, k, top_n)]
    first, run_key = _first_stage([stages, *others], read, run)

    def measured(reranker: Stages, kept: str | None) -> EvaluationResult:
        return evaluate(
            create_rerank_retriever(first, model=reranker.load_model(), top_n=top_n),
            read.queries,
            read.qrels,
            measures=names,
            checkpoint=kept,
            run_key=run_key,
            show_progress=sys.stderr.isatty(),
        )

    result = measured(stages, checkpoint)
    comparisons: list[evaluation.RerankerComparison] = []
    try:
        kept = None if checkpoint is None else f"{checkpoint}.against"
        comparisons += [result.against(measured(other, kept)) for other in others]
    finally:
        report(result, _notes(read), output, comparisons)
    if min_ndcg_gain is not None:
        gain = next(row.difference for row in result.measures if row.name == GAIN_MEASURE)
        if gain < min_ndcg_gain:
            note(f"{GAIN_MEASURE} gain {gain:+.4f} is below {min_ndcg_gain}")
            return GAIN_TOO_SMALL
    return 0


def sweep_command(
    collection: CollectionPath,
    *,
    ks: Annotated[
        list[str], typer.Option(metavar="LIST", help="Numbers of candidates to try, separated by commas.")
    ] = ["5,10,20,50,100"],  # noqa: B006 - typer reads it and copies it
    measure: Annotated[str, typer.Option(help="Measure as ir-measures spells it.")] = "nDCG@10",
    budget_ms: Annotated[
        float | None,
        typer.Option(metavar="X", parser=finite_number, help="Recommend --k and --top-n for a rerank of X ms (p95)."),
    ] = None,
    run: Run = None,
    qrels: Qrels = None,
    split: Split = None,
    sample: Sample = None,
    output: Output = None,
    model: Model = None,
    embeddings: Embeddings = None,
    offline: Offline = False,
    backend: Backend = None,
    precision: Precision = None,
    subfolder: Subfolder = None,
    file_name: FileName = None,
) -> None:
    """Find out how many candidates are worth their time."""
    numbers = whole_numbers(ks, option="--ks")
    if not numbers or min(numbers) < 1:
        raise InvalidInputError(f"--ks is {numbers}; every number of candidates must be at least 1.")
    if budget_ms is not None and budget_ms <= 0:
        raise InvalidInputError(f"--budget-ms is {budget_ms:g}; pass more than 0.")
    read = _read(collection, [measure], run=run, qrels=qrels, split=split, sample=sample, output=output)
    from langchain_crossrerank.evaluation import sweep
    from langchain_crossrerank.retrievers import create_rerank_retriever

    loading = given(backend=backend, precision=precision, subfolder=subfolder, file_name=file_name)
    stages = Stages(model, embeddings, offline, max(numbers), None, loading)
    first, _ = _first_stage([stages], read, run)
    result = sweep(
        create_rerank_retriever(first, model=stages.load_model()),
        read.queries,
        read.qrels,
        ks=numbers,
        measure=measure,
        show_progress=sys.stderr.isatty(),
    )
    notes = _notes(read)
    if budget_ms is not None:
        notes.append(f"Within {budget_ms:g} ms (p95): {_advise(result, budget_ms)}.")
    report(result, notes, output)


def profile_command(
    files: Files,
    question: Question,
    *,
    repeats: Annotated[int, typer.Option(help="How many times to run the question.")] = 3,
    output: Output = None,
    model: Model = None,
    embeddings: Embeddings = None,
    k: K = 20,
    top_n: TopN = 5,
    persist: Persist = None,
    offline: Offline = False,
    backend: Backend = None,
    precision: Precision = None,
    subfolder: Subfolder = None,
    file_name: FileName = None,
) -> None:
    """Time each stage of answering a question from files."""
    check_query(question)
    check_target("--output", output, SUFFIXES)
    check_whole_numbers(**{"--repeats": (repeats, 1)})
    from langchain_crossrerank.chains import create_rag_chain
    from langchain_crossrerank.evaluation import profile

    loading = given(backend=backend, precision=precision, subfolder=subfolder, file_name=file_name)
    retriever, _ = Stages(model, embeddings, offline, k, top_n, loading).over_files(files, persist=persist)
    chain = create_rag_chain(retriever, llm=None)
    report(profile(retriever, [question], repeats=repeats, chain=chain), [], output)


def _read(
    path: str,
    measures: Sequence[str],
    *,
    run: str | None,
    qrels: str | None,
    split: str | None,
    sample: int | None,
    output: str | None,
) -> evaluation.Collection:
    """Check what can be checked before a model is loaded, and read the collection."""
    from langchain_crossrerank.extras import check_extra

    check_target("--output", output, SUFFIXES)
    check_file("--run", run)
    check_file("--qrels", qrels)
    check_extra("eval", needed_for="measuring")
    from langchain_crossrerank.evaluation import load_collection
    from langchain_crossrerank.evaluation.drafting import DRAFTED_QRELS
    from langchain_crossrerank.evaluation.measures import check_measures

    check_measures(measures)
    root = Path(path)
    judged = any((root / name).exists() for name in ("qrels", "qrels.tsv"))
    if qrels is None and not judged and (root / DRAFTED_QRELS).exists():
        raise InvalidInputError(
            f"all judgements in {path!r} are drafts; correct {DRAFTED_QRELS} and save it as qrels.tsv, or name it "
            "with --qrels."
        )
    collection = load_collection(root, qrels=None if qrels is None else str(Path(qrels).absolute()), split=split)
    return collection if sample is None else collection.sample(sample)


def _advise(result: SweepResult, budget_ms: float) -> str:
    advice = result.recommend(budget_ms)
    if advice is not None:
        return "--k {} --top-n {}".format(*advice)
    if any(row.k > 1 and 0 < row.p95_ms <= budget_ms for row in result.rows):
        return "no number of candidates is better than no reranking"
    return "no number of candidates above 1 was that fast"


def _first_stage(
    rerankers: Sequence[Stages], collection: evaluation.Collection, run_file: str | None
) -> tuple[RetrieverLike, str]:
    """Make the first stage: a fixed run, or a search of the collection's embedded documents.

    Args:
        rerankers: What is to rerank it; all have the same first stage.
        collection: What is searched.
        run_file: The file of a fixed run, or `None`.

    Returns:
        The first stage, and a key of everything that decides what it finds.
    """
    from langchain_crossrerank.evaluation import kept_vector_store, run_retriever

    stages = rerankers[0]
    fixed = None if run_file is None else run_retriever(collection, _load_run(run_file, collection.queries), k=stages.k)
    # A model that cannot be loaded is worth neither embedding a collection nor measuring another model.
    for reranker in rerankers:
        reranker.load_model()
    if fixed is not None:
        # It identifies itself to `evaluate`.
        return fixed, ""
    store = kept_vector_store(
        collection.documents,
        stages.load_embeddings(),
        name=stages.embeddings_name,
        show_progress=sys.stderr.isatty(),
    )
    return store.as_retriever(search_kwargs={"k": stages.k}), f"{store.digest}|{stages.k}"


def _load_run(file: str, queries: Mapping[str, str]) -> dict[str, list[tuple[str, float]]]:
    from langchain_crossrerank.evaluation import load_run

    run = load_run(file)
    if not any(run.get(query_id) for query_id in queries):
        raise InvalidInputError(f"--run {file!r} has no documents for any judged query; there is nothing to rerank.")
    return run


def _draft_queries(folder: str, count: int, files: Sequence[str], *, offline: bool) -> None:
    from langchain_crossrerank.chains import default_llm
    from langchain_crossrerank.evaluation.drafting import DRAFTED_QRELS, draft_queries
    from langchain_crossrerank.indexing import find_files, load_documents, split_documents

    if not files:
        raise InvalidInputError("--make-queries needs --files with the documents to draft from.")
    if offline:
        raise InvalidInputError("--make-queries needs a language model, and --offline works without one; drop one.")
    llm = default_llm()
    if llm is None:
        raise InvalidInputError("--make-queries needs a language model; set OPENAI_API_KEY, or call draft_queries.")
    documents = [document for file in find_files(files) for document in load_documents(file)]
    try:
        drafted = draft_queries(split_documents(documents), llm, count, folder)
    except (CrossRerankError, OSError):
        raise
    except Exception as err:
        # Every provider has its own errors.
        raise AnswerError(
            f"the language model failed ({type(err).__name__}: {err}); nothing was written. Check its key and network."
        ) from err
    say(f"Drafted {drafted} queries in {folder}. Correct them, then save {DRAFTED_QRELS} as qrels.tsv.")


def _notes(collection: evaluation.Collection) -> list[str]:
    """Say what was left out of the collection, and how many of the judged queries were written by no person."""
    notes = list(collection.notes)
    if collection.drafted:
        notes.append(
            f"{len(collection.drafted)} of {len(collection.qrels)} judged queries were drafted by a language model; "
            "the figures are only as reliable as your corrections to these queries."
        )
    return notes
