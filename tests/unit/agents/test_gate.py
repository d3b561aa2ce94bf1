"""The gate that decides whether documents answer the query."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import ConfigurableField

from langchain_crossrerank import RelevanceGate
from langchain_crossrerank.agents.gate import GateResult
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder
from tests.unit.agents.passages import BREAD, LORA, MEMORY

DOCUMENTS = [Document(BREAD, id="bread"), Document(MEMORY, id="memory"), Document(LORA, id="lora")]


async def grade(gate: Any, state: Any, *, is_async: bool) -> GateResult:
    """Invoke a gate in one of the two ways."""
    result: GateResult = await gate.ainvoke(state) if is_async else gate.invoke(state)
    return result


@pytest.mark.parametrize("is_async", [False, True])
async def test_relevant_documents_come_best_first(model: ScriptedCrossEncoder, *, is_async: bool) -> None:
    """Documents at or above the threshold stay, with the best probability and the answer yes."""
    gate = RelevanceGate(model=model, min_probability=0.5)
    result = await grade(gate, {"query": "What is LoRA?", "documents": DOCUMENTS}, is_async=is_async)
    assert [document.id for document in result["documents"]] == ["lora", "memory"]
    assert result["relevant"]
    assert result["best_score"] == pytest.approx(0.9526, abs=1e-4)
    assert "relevance_score" not in DOCUMENTS[0].metadata


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_threshold_itself_is_relevant(model: ScriptedCrossEncoder, *, is_async: bool) -> None:
    """A probability equal to the threshold passes."""
    gate = RelevanceGate(model=FakeCrossEncoder(), min_probability=0.0)
    result = await grade(gate, {"query": "xyz", "documents": DOCUMENTS}, is_async=is_async)
    assert len(result["documents"]) == 3


@pytest.mark.parametrize("is_async", [False, True])
async def test_nothing_relevant_leaves_no_documents(model: ScriptedCrossEncoder, *, is_async: bool) -> None:
    """Below the threshold the documents are gone, and the best score says how far below."""
    gate = RelevanceGate(model=model, min_probability=0.99)
    result = await grade(gate, {"query": "Who won?", "documents": DOCUMENTS}, is_async=is_async)
    assert result["documents"] == []
    assert not result["relevant"]
    assert result["best_score"] == pytest.approx(0.9526, abs=1e-4)


@pytest.mark.parametrize("is_async", [False, True])
async def test_no_documents_are_not_relevant(*, is_async: bool) -> None:
    """An empty list is irrelevant without a score, and the model is not loaded."""
    gate = RelevanceGate(model="/no/such/folder", min_probability=0.5)
    result = await grade(gate, {"query": "What is LoRA?", "documents": []}, is_async=is_async)
    assert result == {"documents": [], "relevant": False, "best_score": None}
    with pytest.raises(ModelNotFoundError):
        gate.invoke({"query": "What is LoRA?", "documents": DOCUMENTS})


@pytest.mark.parametrize(
    ("state", "query_key"),
    [
        ({"query": "LoRA"}, None),
        ({"question": "LoRA"}, None),
        ({"input": "LoRA", "messages": [HumanMessage("bread")]}, None),
        ({"messages": [HumanMessage("bread"), HumanMessage("LoRA"), AIMessage("bread?")]}, None),
        ({"rewritten": "LoRA", "question": "bread"}, "rewritten"),
    ],
)
def test_the_query_is_found_in_the_state(state: dict[str, Any], query_key: str | None) -> None:
    """The usual keys are looked up in order, then the last human message; `query_key` names another."""
    fake = FakeCrossEncoder()
    RelevanceGate(model=fake, min_probability=0.5, query_key=query_key).invoke({**state, "documents": DOCUMENTS})
    assert {query for batch in fake.batches for query, _ in batch} == {"LoRA"}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("LoRA", "the gate got 'LoRA'"),
        ({"documents": []}, "no query under 'query' or 'question' or 'input' or 'messages'"),
        ({"query": "LoRA"}, "no documents under 'documents'"),
        ({"query": " ", "documents": DOCUMENTS}, "blank"),
        ({"query": "LoRA", "documents": ["text"]}, r"documents\[0\]"),
    ],
)
def test_a_state_that_cannot_be_graded_is_an_error(state: Any, message: str) -> None:
    """The message says which key was looked for."""
    with pytest.raises(InvalidInputError, match=message):
        RelevanceGate(model=FakeCrossEncoder(), min_probability=0.5).invoke(state)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_probability": 1.1}, "min_probability is 1.1"),
        ({"model": "org/unknown"}, "no threshold was measured for the model 'org/unknown'"),
    ],
)
def test_a_threshold_is_not_guessed(fields: dict[str, Any], message: str) -> None:
    """A model without a measured threshold needs one from the caller, when the gate is made."""
    with pytest.raises(InvalidInputError, match=message):
        RelevanceGate(**fields)


def test_the_bundled_model_has_a_threshold() -> None:
    """The default gate needs no settings and tells a definition from a recipe."""
    state = {"query": "What is a knead of dough?", "documents": [Document(LORA)]}
    assert RelevanceGate().invoke(state)["relevant"] is False


@pytest.mark.parametrize(("relevant", "edge"), [(True, "relevant"), (False, "irrelevant")])
def test_the_route_names_the_edge(*, relevant: bool, edge: str) -> None:
    """Conditional edges go by the gate's answer."""
    assert RelevanceGate.route({"relevant": relevant, "documents": []}) == edge


def test_the_rerank_is_a_child_run(model: ScriptedCrossEncoder) -> None:
    """Traces show the gate and, below it, the scores of all documents."""
    names: list[str] = []
    gate = RelevanceGate(model=model, min_probability=0.5).with_listeners(
        on_end=lambda run: names.extend([run.name, *(child.name for child in run.child_runs)])
    )
    gate.invoke({"query": "What is LoRA?", "documents": DOCUMENTS})
    assert names == ["RelevanceGate", "CrossEncoderReranker"]


def test_the_threshold_is_configurable(model: ScriptedCrossEncoder) -> None:
    """The run configuration can set fields, as on any Runnable."""
    gate = RelevanceGate(model=model, min_probability=0.5).configurable_fields(
        min_probability=ConfigurableField(id="min_probability")
    )
    state = {"query": "What is LoRA?", "documents": DOCUMENTS}
    assert gate.invoke(state)["relevant"]
    assert not gate.invoke(state, {"configurable": {"min_probability": 0.99}})["relevant"]


def test_a_gate_survives_pickling() -> None:
    """A gate with a model by name can be sent to another process."""
    gate = RelevanceGate(model="bundled", min_probability=0.5)
    assert pickle.loads(pickle.dumps(gate)) == gate


def test_arguments_at_call_time_are_refused(model: ScriptedCrossEncoder) -> None:
    """An argument that would have no effect is an error."""
    with pytest.raises(InvalidInputError, match="no argument 'top_n'"):
        RelevanceGate(model=model, min_probability=0.5).invoke({"query": "LoRA", "documents": []}, top_n=1)
