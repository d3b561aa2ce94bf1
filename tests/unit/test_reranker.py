"""The reranker's promises, each kept by every way of calling it."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField, RunnableConfig, RunnableLambda, RunnablePassthrough
from pydantic import Field, ValidationError

from langchain_crossrerank import CrossEncoder, CrossEncoderReranker, create_rerank_retriever
from langchain_crossrerank.cross_encoders import loading
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.cross_encoders.settings import ModelSettings
from langchain_crossrerank.errors import InvalidInputError, MissingExtraError, ScoringError
from langchain_crossrerank.reranker import RerankerOptions
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder

GIVE_UP = 10.0
"""Seconds after which a thread that should have been released fails the test instead of hanging the run."""

Rerank = Callable[..., list[Document]]

CALLS: dict[str, Rerank] = {
    "compress_documents": lambda reranker, documents, query="q", callbacks=None: reranker.compress_documents(
        documents, query, callbacks
    ),
    "acompress_documents": lambda reranker, documents, query="q", callbacks=None: asyncio.run(
        reranker.acompress_documents(documents, query, callbacks)
    ),
    "invoke": lambda reranker, documents, query="q", callbacks=None: reranker.invoke(
        {"query": query, "documents": documents}, {"callbacks": callbacks}
    ),
    "ainvoke": lambda reranker, documents, query="q", callbacks=None: asyncio.run(
        reranker.ainvoke({"query": query, "documents": documents}, {"callbacks": callbacks})
    ),
    "batch": lambda reranker, documents, query="q", callbacks=None: reranker.batch(
        [{"query": query, "documents": documents}], {"callbacks": callbacks}
    )[0],
    "abatch": lambda reranker, documents, query="q", callbacks=None: asyncio.run(
        reranker.abatch([{"query": query, "documents": documents}], {"callbacks": callbacks})
    )[0],
}


@pytest.fixture(params=CALLS)
def rerank(request: pytest.FixtureRequest) -> Rerank:
    """Each way to rerank, synchronous and asynchronous, behind one signature."""
    return CALLS[request.param]


class Note(Document):
    """A document type of a caller's own."""

    author: str


class StockCrossEncoder(BaseCrossEncoder):
    """What LangChain's own wrappers look like: nothing but `score`, and numpy floats out of it."""

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score by the passage's length."""
        return list(np.array([len(passage) for _, passage in text_pairs], dtype=np.float32))


class HeldCrossEncoder(FakeCrossEncoder):
    """A model whose forward pass lasts until the test lets it go."""

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Event()
        self.release = threading.Event()

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        self.started.set()
        if not self.release.wait(GIVE_UP):
            raise TimeoutError("nobody let the model go: the event loop was blocked")
        return super()._score_batch(batch)


class Recorder(BaseCallbackHandler):
    """Writes down the runs that a tracer would see."""

    raise_error = True

    def __init__(self) -> None:
        self.runs: dict[UUID, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    def on_chain_start(
        self, serialized: dict[str, Any], inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note a chain's start."""
        self.runs[run_id] = {"id": run_id, "parent": parent_run_id, "inputs": inputs, **kwargs}

    def on_retriever_start(
        self, serialized: dict[str, Any], query: str, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note a retriever's start."""
        self.runs[run_id] = {"id": run_id, "parent": parent_run_id, "inputs": query, **kwargs}

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note a chain's result."""
        self.runs[run_id]["outputs"] = outputs

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Note a chain's failure."""
        self.runs[run_id]["error"] = error

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note an event."""
        self.events.append({"name": name, "data": data, "run": run_id})

    def named(self, name: str) -> dict[str, Any]:
        """Return the one run of this name."""
        (run,) = [run for run in self.runs.values() if run["name"] == name]
        return run


def make(scores: dict[str, float], **kwargs: Any) -> CrossEncoderReranker:
    """Make a reranker over scripted scores."""
    return CrossEncoderReranker(model=ScriptedCrossEncoder(scores), **kwargs)


def of(*texts: str) -> list[Document]:
    """Make documents of texts."""
    return [Document(text) for text in texts]


def texts(documents: Iterable[Document]) -> list[str]:
    """Return the documents' texts."""
    return [document.page_content for document in documents]


def test_documents_come_best_first_with_score_and_initial_rank(rerank: Rerank) -> None:
    """Every call sorts by score, and writes a plain float and the place counted from 1 into the metadata."""
    result = rerank(make({"a": -1.5, "b": 0.25, "c": 3.0}), of("a", "b", "c"))
    assert texts(result) == ["c", "b", "a"]
    assert [document.metadata for document in result] == [
        {"relevance_score": 3.0, "initial_rank": 3},
        {"relevance_score": 0.25, "initial_rank": 2},
        {"relevance_score": -1.5, "initial_rank": 1},
    ]
    assert {type(document.metadata["relevance_score"]) for document in result} == {float}
    assert {type(document.metadata["initial_rank"]) for document in result} == {int}


def test_the_query_is_what_the_model_reads_first(rerank: Rerank) -> None:
    """The model gets pairs of query and passage, in this order."""
    model = FakeCrossEncoder()
    rerank(CrossEncoderReranker(model=model), of("a passage"), query="a query")
    assert model.batches == [[("a query", "a passage")]]


def test_a_stale_score_and_rank_are_overwritten(rerank: Rerank) -> None:
    """Metadata left by an earlier rerank gives way to this one's."""
    stale = Document("a", metadata={"relevance_score": 99.0, "initial_rank": 77})
    (result,) = rerank(make({"a": 0.5}), [stale])
    assert result.metadata == {"relevance_score": 0.5, "initial_rank": 1}


def test_the_callers_documents_stay_as_they_were(rerank: Rerank, documents: list[Document]) -> None:
    """Neither the list, nor a document in it, nor its metadata is changed."""
    documents[0].metadata["nested"] = {"tags": ["x"]}
    before, objects = copy.deepcopy(documents), list(documents)
    result = rerank(CrossEncoderReranker(model=FakeCrossEncoder(), top_n=None), documents, query="LoRA")
    assert documents == before
    assert all(now is then for now, then in zip(documents, objects, strict=True))
    assert not {id(document.metadata) for document in result} & {id(document.metadata) for document in documents}


def test_id_subclass_and_other_metadata_are_kept(rerank: Rerank) -> None:
    """A document keeps its id, its class with that class's fields, and every other metadata entry."""
    note = Note(page_content="a", id="n-1", author="Ada", metadata={"source": "x.md", "tags": ["t"], "score": 7})
    (result,) = rerank(make({"a": 1.0}), [note])
    assert isinstance(result, Note)
    assert (result.id, result.author, result.page_content, result.type) == ("n-1", "Ada", "a", "Document")
    assert result.metadata == {**note.metadata, "relevance_score": 1.0, "initial_rank": 1}


@pytest.mark.parametrize("top_n", [None, 3])
def test_equal_scores_keep_the_first_stages_order(rerank: Rerank, top_n: int | None) -> None:
    """Ties are broken by the place in the first stage, before the cut."""
    result = rerank(make({"e": 1.0}, top_n=top_n), of("d", "c", "e", "b", "a"))
    assert texts(result) == ["e", "d", "c", "b", "a"][:top_n]


def test_equal_passages_are_kept_once(rerank: Rerank) -> None:
    """Of passages that differ only in whitespace, the first stage's best is scored and kept, and the rest make way."""
    recorder, model = Recorder(), FakeCrossEncoder()
    given = of("other", "the  same", "the same\n", "the same", "third", "fourth")
    result = rerank(CrossEncoderReranker(model=model, top_n=4), given, query="the same", callbacks=[recorder])
    assert [document.metadata["initial_rank"] for document in result][:1] == [2]
    assert sorted(texts(result)) == ["fourth", "other", "the  same", "third"]
    assert sum(len(batch) for batch in model.batches) == 4
    (event,) = recorder.events
    assert (event["data"]["candidates"], event["data"]["duplicates_dropped"]) == (6, 2)
    assert len(event["data"]["scores"]) == 6
    assert len(set(event["data"]["scores"][1:4])) == 1


def test_equal_texts_with_different_titles_are_different_passages(rerank: Rerank) -> None:
    """What is compared is what the model reads, so a template that shows a title tells two documents apart."""
    given = [Document("text", metadata={"title": title}) for title in ("A", "B", "A")]
    reranker = CrossEncoderReranker(model=FakeCrossEncoder(), passage_template="{title}: {page_content}")
    assert sorted(document.metadata["title"] for document in rerank(reranker, given)) == ["A", "B"]


def test_duplicates_are_kept_on_request(rerank: Rerank) -> None:
    """With `drop_duplicates=False` a repeated text is scored once and keeps every place it had."""
    model = FakeCrossEncoder()
    result = rerank(CrossEncoderReranker(model=model, drop_duplicates=False), of("same", "same", "same"))
    assert [document.metadata["initial_rank"] for document in result] == [1, 2, 3]
    assert sum(len(batch) for batch in model.batches) == 1


def test_duplicates_are_dropped_from_a_degraded_result(rerank: Rerank) -> None:
    """The first stage's order is kept without repetitions."""
    reranker = make({"b": math.nan}, on_error="keep_order")
    result = rerank(reranker, of("a", "a", "b", "c", "d"))
    assert [(document.page_content, document.metadata["initial_rank"]) for document in result] == [
        ("a", 1),
        ("b", 3),
        ("c", 4),
    ]


@pytest.mark.parametrize(("top_n", "kept"), [(None, 5), (1, 1), (3, 3), (5, 5), (50, 5)])
def test_top_n_is_the_most_documents_kept(
    rerank: Rerank, documents: list[Document], top_n: int | None, kept: int
) -> None:
    """`top_n` cuts the list, `None` keeps all, and more than there are is allowed."""
    assert len(rerank(CrossEncoderReranker(model=FakeCrossEncoder(), top_n=top_n), documents)) == kept


@pytest.mark.parametrize("top_n", [0, -1, "many", 1.5])
def test_top_n_must_be_a_positive_number(top_n: object) -> None:
    """Zero, negatives and values that are not whole numbers are refused by name."""
    with pytest.raises(ValidationError, match="top_n"):
        CrossEncoderReranker(model=FakeCrossEncoder(), top_n=top_n)


@pytest.mark.parametrize(
    ("threshold", "kept"), [(None, ["c", "b", "a"]), (0.0, ["c", "b"]), (0.1, ["c"]), (2.0, ["c"]), (2.1, [])]
)
def test_score_threshold_keeps_scores_that_reach_it(rerank: Rerank, threshold: float | None, kept: list[str]) -> None:
    """A score equal to the threshold stays, a lower one goes, and zero is a threshold like any other."""
    assert texts(rerank(make({"a": -1.0, "b": 0.0, "c": 2.0}, score_threshold=threshold), of("a", "b", "c"))) == kept


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), "high"])
def test_score_threshold_must_be_finite(threshold: object) -> None:
    """A threshold that no score can be compared with is refused by name."""
    with pytest.raises(ValidationError, match="score_threshold"):
        CrossEncoderReranker(model=FakeCrossEncoder(), score_threshold=threshold)


def test_no_candidates_do_not_touch_the_model(rerank: Rerank, tmp_path: Path) -> None:
    """An empty list gives an empty list, even where the model does not exist."""
    assert rerank(CrossEncoderReranker(model=tmp_path / "no-such-model"), []) == []


def test_documents_may_come_from_a_generator(rerank: Rerank) -> None:
    """Any iterable of documents is read once and reranked whole."""
    assert texts(rerank(make({"b": 1.0}), (document for document in of("a", "b", "c")))) == ["b", "a", "c"]


@pytest.mark.parametrize("query", ["", " \n\t", None, 42, b"bytes", ["q"]])
@pytest.mark.parametrize("documents", [[], [Document("a")]], ids=["empty", "one"])
def test_a_blank_query_is_refused(rerank: Rerank, query: object, documents: list[Document]) -> None:
    """A blank query, or one that is not a string, raises with its value, with candidates and without."""
    with pytest.raises(InvalidInputError) as caught:
        rerank(make({}), documents, query=query)
    assert f"query is {query!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("documents", "named"),
    [
        ([Document("a"), "a string"], "documents[1] is 'a string' of type str"),
        ([None], "documents[0] is None of type NoneType"),
        ([{"page_content": "a"}], "documents[0] is {'page_content': 'a'} of type dict"),
        ("a string", "documents is 'a string'"),
        (b"bytes", "documents is b'bytes'"),
        (Document("alone"), "documents is Document("),
        (None, "documents is None"),
        (7, "documents is 7"),
    ],
)
def test_elements_that_are_not_documents_are_refused(rerank: Rerank, documents: object, named: str) -> None:
    """The error names the position and the value of the first element that is not a document."""
    with pytest.raises(InvalidInputError) as caught:
        rerank(make({}), documents)
    assert named in str(caught.value)


@pytest.mark.parametrize("value", ["a query", None, {"query": "q"}, {"documents": []}, ["q", []], ("q", [])])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_runnable_names_an_input_of_another_shape(value: Any, asynchronous: bool) -> None:
    """What is not a dict of query and documents is shown in the error."""
    reranker = make({})
    with pytest.raises(InvalidInputError) as caught:
        asyncio.run(reranker.ainvoke(value)) if asynchronous else reranker.invoke(value)
    assert repr(value) in str(caught.value)
    assert '{"query": ..., "documents": [...]}' in str(caught.value)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_bad_input_does_not_spoil_its_batch(asynchronous: bool) -> None:
    """With `return_exceptions` the other inputs of a batch are reranked."""
    inputs: Any = [{"query": "q", "documents": of("a")}, {"query": " ", "documents": of("a")}]
    reranker = make({"a": 1.0})
    results: list[Any] = (
        asyncio.run(reranker.abatch(inputs, return_exceptions=True))
        if asynchronous
        else reranker.batch(inputs, return_exceptions=True)
    )
    assert texts(results[0]) == ["a"]
    assert isinstance(results[1], InvalidInputError)


@pytest.mark.parametrize("field", ["topn", "batch_size", "score_treshold"])
def test_an_unknown_setting_is_refused(field: str) -> None:
    """A misspelt setting raises and is not ignored."""
    with pytest.raises(ValidationError, match=field):
        CrossEncoderReranker(model=FakeCrossEncoder(), **{field: 1})


@pytest.mark.parametrize(
    ("template", "metadata", "passage"),
    [
        ("{page_content}", {}, "body"),
        ("{title}: {page_content}", {"title": "Head"}, "Head: body"),
        ("{title}: {page_content}", {}, ": body"),
        ("{title}: {page_content}", {"title": None}, ": body"),
        ("p. {page} {page_content} {tags}", {"page": 0, "tags": ["x", 1]}, "p. 0 body ['x', 1]"),
        ("{title} {page_content}", {"title": "{page_content} {x!r}"}, "{page_content} {x!r} body"),
        ("{{{title}}} {page_content}", {"title": "t"}, "{t} body"),
        ("{page_content} {page_content}", {}, "body body"),
        ("{page_content}", {"page_content": "from metadata"}, "body"),
    ],
)
def test_passage_template_fills_text_and_metadata(
    rerank: Rerank, template: str, metadata: dict[str, Any], passage: str
) -> None:
    """The model reads the filled template, a lacking field is empty, and the document keeps its own text."""
    model = FakeCrossEncoder()
    reranker = CrossEncoderReranker(model=model, passage_template=template)
    (result,) = rerank(reranker, [Document("body", metadata=metadata)])
    assert model.batches == [[("q", passage)]]
    assert result.page_content == "body"


@pytest.mark.parametrize(
    "template",
    [
        "{page_content.upper} {page_content}",
        "{title.__class__}: {page_content}",
        "{tags[0]} {page_content}",
        "{page_content:>40}",
        "{page_content!r}",
        "{} {page_content}",
        "{0} {page_content}",
        "{title}",
        "no places",
        "{{page_content}}",
        "",
        "{page_content",
        "page_content}",
    ],
)
def test_a_passage_template_with_more_than_plain_names_is_refused(template: str) -> None:
    """Attributes, indexes, formats, conversions, broken braces and a lacking text are refused at construction."""
    with pytest.raises(ValidationError, match="passage_template") as caught:
        CrossEncoderReranker(model=FakeCrossEncoder(), passage_template=template)
    assert repr(template) in str(caught.value)


def test_a_model_by_name_is_loaded_once_and_at_the_first_use(
    rerank: Rerank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Construction loads nothing; the first rerank loads with the given settings, later ones use that copy."""
    loads: list[tuple[Any, ...]] = []

    def load(settings: ModelSettings) -> CrossEncoder:
        loads.append((settings.model, settings.backend, settings.max_length))
        return FakeCrossEncoder()

    monkeypatch.setattr(loading, "_load", load)
    reranker = CrossEncoderReranker(model=tmp_path, backend="onnx", model_kwargs={"max_length": 64})
    assert loads == []
    for _ in range(2):
        assert len(rerank(reranker, of("a", "b"))) == 2
    assert loads == [(str(tmp_path), "onnx", 64)]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model_kwargs": {"max_lenght": 256}}, "'max_lenght'.*'max_length'"),
        ({"model_kwargs": {"automodel_args": {}}}, "automodel_args"),
        ({"model_kwargs": {"max_length": 0}}, "max_length is 0"),
        ({"model_kwargs": {"device": "gpu"}}, "device is 'gpu'"),
        ({"backend": "torch"}, "bundled model"),
    ],
)
def test_wrong_model_settings_raise_at_construction(settings: dict[str, Any], named: str) -> None:
    """A mistake is reported when it is made, whatever `on_error` says, and not served as degraded results."""
    for on_error in ("raise", "keep_order"):
        with pytest.raises(InvalidInputError, match=named):
            CrossEncoderReranker(model="bundled", on_error=on_error, **settings)
    reranker = CrossEncoderReranker(model="bundled")
    ((name, value),) = settings.items()
    with pytest.raises(InvalidInputError, match=named):
        setattr(reranker, name, value)
    assert reranker == CrossEncoderReranker(model="bundled")


@pytest.mark.parametrize("error", [InvalidInputError("no such precision"), MissingExtraError("no torch")])
def test_a_mistake_that_loading_finds_raises(
    rerank: Rerank, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that only the model's files show to be wrong, and a missing extra, are not degraded to."""

    def load(settings: ModelSettings) -> CrossEncoder:
        raise error

    monkeypatch.setattr(loading, "_load", load)
    with pytest.raises(type(error)):
        rerank(CrossEncoderReranker(model=tmp_path, on_error="keep_order"), of("a"))


def test_settings_may_be_read_before_the_model_exists(tmp_path: Path) -> None:
    """A reranker for a missing model can be made and shown; only using it raises, as no such folder."""
    reranker = CrossEncoderReranker(model=str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in repr(reranker)
    with pytest.raises(OSError, match="nowhere"):
        reranker.invoke({"query": "q", "documents": of("a")})


def test_any_langchain_cross_encoder_can_rerank(rerank: Rerank) -> None:
    """A class with nothing but LangChain's `score` ranks, and its numpy floats become plain ones."""
    result = rerank(CrossEncoderReranker(model=StockCrossEncoder(), top_n=2), of("a", "aaa", "aa"))
    assert texts(result) == ["aaa", "aa"]
    assert [type(document.metadata["relevance_score"]) for document in result] == [float, float]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_raises(rerank: Rerank, score: float) -> None:
    """A broken score never decides an order: the error carries its position."""
    with pytest.raises(ScoringError) as caught:
        rerank(make({"b": score}), of("a", "b"))
    assert caught.value.positions == (1,)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_it_pipes_after_a_retriever(asynchronous: bool) -> None:
    """`{"query": ..., "documents": retriever} | reranker` reranks what the retriever found."""
    retriever: RunnableLambda[str, list[Document]] = RunnableLambda(lambda query: of(f"{query} one", f"{query} two"))
    chain = {"query": RunnablePassthrough(), "documents": retriever} | make({"q two": 1.0}, top_n=1)
    result = asyncio.run(chain.ainvoke("q")) if asynchronous else chain.invoke("q")
    assert texts(result) == ["q two"]


def test_fields_can_be_set_at_run_time() -> None:
    """LangChain's `configurable_fields` reaches `top_n`."""
    reranker = make({}).configurable_fields(top_n=ConfigurableField("top_n"))
    config: RunnableConfig = {"configurable": {"top_n": 1}}
    assert len(reranker.invoke({"query": "q", "documents": of("a", "b")}, config)) == 1
    assert len(reranker.invoke({"query": "q", "documents": of("a", "b")})) == 2


@pytest.mark.parametrize("change", ["copy", "assignment"])
def test_another_model_takes_effect(change: str) -> None:
    """A reranker whose model was exchanged after use scores with the new one."""
    reranker = make({"a": 1.0})
    assert texts(reranker.invoke({"query": "q", "documents": of("a", "b")})) == ["a", "b"]
    other = ScriptedCrossEncoder({"b": 1.0})
    if change == "copy":
        reranker = reranker.model_copy(update={"model": other})
    else:
        reranker.model = other
    assert texts(reranker.invoke({"query": "q", "documents": of("a", "b")})) == ["b", "a"]


def test_a_rerank_is_a_run_of_its_own(rerank: Rerank) -> None:
    """A tracer sees inputs, documents with scores, the model's name, and the scores of all candidates."""
    recorder = Recorder()
    result = rerank(make({"a": 1.0, "b": 2.0}, top_n=1), of("a", "b", "c"), callbacks=[recorder])
    run = recorder.named("CrossEncoderReranker")
    assert run["inputs"] == {"query": "q", "documents": of("a", "b", "c")}
    assert run["outputs"] == result
    assert result[0].metadata["relevance_score"] == 2.0
    assert run["metadata"]["cross_encoder"] == "scripted"
    assert (run["metadata"]["top_n"], run["metadata"]["score_threshold"]) == (1, None)
    data = {
        "model": "scripted",
        "candidates": 3,
        "duplicates_dropped": 0,
        "top_n": 1,
        "score_threshold": None,
        "scores": [1.0, 2.0, 0.0],
    }
    assert recorder.events == [{"name": "rerank_scores", "data": data, "run": run["id"]}]
    child = recorder.named("rerank_scores")
    assert (child["parent"], child["outputs"]) == (run["id"], data)


@pytest.mark.parametrize(
    ("model", "name"),
    [(StockCrossEncoder(), "StockCrossEncoder"), ("bundled", "bundled"), (Path("x/y"), str(Path("x/y")))],
)
def test_the_run_names_the_model_before_it_is_loaded(model: Any, name: str) -> None:
    """The run's metadata has the model's name as a string, whatever it was given as."""
    recorder = Recorder()
    CrossEncoderReranker(model=model).invoke({"query": "q", "documents": []}, {"callbacks": [recorder]})
    assert recorder.named("CrossEncoderReranker")["metadata"]["cross_encoder"] == name


def test_a_failed_rerank_shows_in_the_trace(rerank: Rerank) -> None:
    """A model that fails leaves its error on the run."""
    recorder = Recorder()
    with pytest.raises(ScoringError) as caught:
        rerank(make({"a": float("nan")}), of("a"), callbacks=[recorder])
    assert recorder.named("CrossEncoderReranker")["error"] is caught.value
    assert recorder.events == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_in_a_retriever_the_rerank_is_its_child(asynchronous: bool) -> None:
    """Under a compression retriever the rerank and the first stage are children of the retriever's run."""
    recorder = Recorder()
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda query: of("a", "b"), name="first")
    retriever = create_rerank_retriever(first_stage, reranker=make({"b": 1.0}))
    config: RunnableConfig = {"callbacks": [recorder], "tags": ["mine"]}
    result = asyncio.run(retriever.ainvoke("q", config)) if asynchronous else retriever.invoke("q", config)
    assert texts(result) == ["b", "a"]
    parent = recorder.named("RerankRetriever")
    child = recorder.named("CrossEncoderReranker")
    assert parent["parent"] is None
    assert child["parent"] == recorder.named("first")["parent"] == parent["id"]
    assert child["outputs"] == result
    assert "mine" in child["tags"]
    assert [event["run"] for event in recorder.events] == [child["id"]]


async def test_a_slow_model_does_not_block_the_event_loop() -> None:
    """While the model works, the loop goes on; here it is the loop that lets the model finish."""
    model = HeldCrossEncoder()
    task = asyncio.create_task(CrossEncoderReranker(model=model).ainvoke({"query": "q", "documents": of("a")}))
    assert await asyncio.to_thread(model.started.wait, GIVE_UP)
    assert not task.done()
    model.release.set()
    assert texts(await task) == ["a"]


async def test_loading_a_model_does_not_block_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the model loads for the first rerank, the loop goes on and lets it finish."""
    started, release = threading.Event(), threading.Event()

    def load(settings: ModelSettings) -> CrossEncoder:
        started.set()
        if not release.wait(GIVE_UP):
            raise TimeoutError("nobody let the load go: the event loop was blocked")
        return FakeCrossEncoder()

    monkeypatch.setattr(loading, "_load", load)
    reranker = CrossEncoderReranker(model="slow-to-load")
    task = asyncio.create_task(reranker.ainvoke({"query": "q", "documents": of("a")}))
    assert await asyncio.to_thread(started.wait, GIVE_UP)
    assert not task.done()
    release.set()
    assert texts(await task) == ["a"]


def test_other_settings_take_effect_after_use() -> None:
    """A reranker whose model settings were exchanged after use scores by the new ones."""
    reranker = CrossEncoderReranker(model="bundled")
    arguments: Any = {"query": "what is lora", "documents": of("a", "b")}
    first = reranker.invoke(arguments)[0].metadata["relevance_score"]
    logits = reranker.model_copy(update={"model_kwargs": {"activation": "identity"}})
    assert logits.invoke(arguments)[0].metadata["relevance_score"] == pytest.approx(
        math.log(first / (1 - first)), abs=1e-4
    )


def test_a_field_keeps_its_limits_when_it_is_assigned() -> None:
    """An invalid number of documents is refused on assignment, as at construction."""
    reranker = make({})
    with pytest.raises(ValueError, match="top_n"):
        reranker.top_n = -1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_fields_can_be_set_for_one_call(asynchronous: bool) -> None:
    """`invoke(input, top_n=1)` holds for that call, in the trace as well, and for no other."""
    reranker, recorder = make({"b": 2.0, "c": -1.0}), Recorder()
    value: Any = {"query": "q", "documents": of("a", "b", "c")}
    config: RunnableConfig = {"callbacks": [recorder]}
    fields: dict[str, Any] = {"top_n": 2, "score_threshold": 0.5}
    result = (
        asyncio.run(reranker.ainvoke(value, config, **fields))
        if asynchronous
        else reranker.invoke(value, config, **fields)
    )
    assert texts(result) == ["b"]
    assert recorder.named("CrossEncoderReranker")["metadata"]["top_n"] == 2
    assert texts(reranker.invoke(value)) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"topn": 1}, "'topn'.*'top_n'"),
        ({"filter": {}}, "filter"),
        ({"top_n": 0}, "top_n is 0"),
        ({"top_n": "x"}, "top_n"),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_field_that_cannot_be_set_for_a_call_is_refused(
    fields: dict[str, Any], named: str, asynchronous: bool
) -> None:
    """An unknown name or a bad value raises, naming it, and is not ignored."""
    value: Any = {"query": "q", "documents": of("a")}
    with pytest.raises(InvalidInputError, match=named):
        asyncio.run(make({}).ainvoke(value, **fields)) if asynchronous else make({}).invoke(value, **fields)


def test_the_typed_fields_are_the_fields() -> None:
    """The keyword arguments that type checkers know are the reranker's fields, all of them."""
    assert RerankerOptions.__optional_keys__ | {"model", "top_n"} == set(CrossEncoderReranker.model_fields) - {"name"}


class Working(Document):
    """What LangChain's embedding filters hand on: a document with its vector, which cannot be serialised."""

    state: dict[str, Any] = Field(default_factory=dict)

    def to_document(self) -> Document:
        """Return the plain document."""
        return Document(page_content=self.page_content, metadata=self.metadata)


def test_a_working_copy_comes_out_as_a_plain_document(rerank: Rerank) -> None:
    """Documents of LangChain's embedding filters lose their vector and keep id and metadata."""
    given = Working(page_content="a", id="w-1", metadata={"source": "x"}, state={"embedded_doc": np.ones(3)})
    (result,) = rerank(make({"a": 1.0}), [given])
    assert type(result) is Document
    assert (result.id, result.metadata) == ("w-1", {"source": "x", "relevance_score": 1.0, "initial_rank": 1})


@pytest.mark.parametrize(
    "url", ["http://user:seret-key@127.0.0.1:9/rerank", "http://127.0.0.1:9/rerank?token=seret-key"]
)
def test_a_servers_key_is_not_shown(url: str, rerank: Rerank, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in a URL is neither in the repr, nor in a degraded document, nor in what goes to tracers."""

    def load(settings: ModelSettings) -> CrossEncoder:
        raise ScoringError(f"cannot reach {settings.model}")

    monkeypatch.setattr(loading, "_load", load)
    recorder = Recorder()
    reranker = CrossEncoderReranker(model=url, on_error="keep_order")
    result = rerank(reranker, of("a"), callbacks=[recorder])
    assert "cannot reach" in result[0].metadata["rerank_error"]
    shown = repr((reranker, result, recorder.runs, recorder.events))
    assert "seret-key" not in shown


@pytest.mark.parametrize("how", ["deepcopy", "model_copy", "pickle"])
def test_a_copy_works_and_shares_the_model(how: str) -> None:
    """A deep copy shares the model object; a pickled reranker with a model by name loads it again."""
    model = StockCrossEncoder()
    model.lock = threading.Lock()  # type: ignore[attr-defined]  # what a real model holds
    reranker = CrossEncoderReranker(model="bundled" if how == "pickle" else model, top_n=1)
    value: Any = {"query": "ferry", "documents": of("a ferry", "a bee")}
    before = reranker.invoke(value)
    if how == "pickle":
        copied = pickle.loads(pickle.dumps(reranker))
    else:
        copied = copy.deepcopy(reranker) if how == "deepcopy" else reranker.model_copy(deep=True)
        assert copied.model is model
    assert copied.invoke(value) == before


def test_warm_up_loads_and_scores_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `warm_up` the model is loaded and has done a forward pass, before any query."""
    model = FakeCrossEncoder()
    monkeypatch.setattr(loading, "_load", lambda settings: model)
    reranker = CrossEncoderReranker(model=tmp_path)
    reranker.warm_up()
    assert len(model.batches) == 1
    assert reranker.cross_encoder is model


def test_a_query_that_is_too_long_is_marked(rerank: Rerank) -> None:
    """Documents scored by a query whose middle was left out say so, and a later rerank takes the mark away."""
    reranker = CrossEncoderReranker(model="bundled", top_n=1)
    (result,) = rerank(reranker, of("the ferry leaves at nine"), query="when does the ferry leave " * 300)
    assert result.metadata["query_truncated"] is True
    (again,) = rerank(reranker, [result], query="when does the ferry leave")
    assert "query_truncated" not in again.metadata
