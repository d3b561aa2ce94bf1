"""Embeddings on onnxruntime: order, batches, failures, copies, and the graphs that can be used."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_crossrerank.embeddings import onnx as onnx_embeddings
from langchain_crossrerank.embeddings.loading import load_embeddings
from langchain_crossrerank.embeddings.onnx import OnnxEmbeddings
from langchain_crossrerank.errors import InvalidInputError, ScoringError, UnsupportedModelError
from tests.unit.embeddings.conftest import TABLE, WORDS, MakeEmbeddings

TEXTS = ["ferry", "a ferry leaves at nine", "", "nine", "at nine a ferry leaves at nine"]


def load(folder: Path, **settings: Any) -> OnnxEmbeddings:
    """Load embeddings that run on onnxruntime."""
    embeddings = load_embeddings(folder, **settings)
    assert isinstance(embeddings, OnnxEmbeddings)
    return embeddings


def mean_of(text: str) -> Any:
    """The mean of the vectors of a text's words, special tokens included."""
    return TABLE[[WORDS.index(word) for word in ("[CLS]", *text.split(), "[SEP]")]].mean(axis=0)


class Runs:
    """Notes the shape of each forward pass of embeddings."""

    def __init__(self, embeddings: OnnxEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, int]] = []
        run = embeddings._session.run

        def noted(features: Any) -> Any:
            self.shapes.append(features["input_ids"].shape)
            return run(features)

        monkeypatch.setattr(embeddings._session, "run", noted)


def test_each_text_has_its_own_vector(make_embeddings: MakeEmbeddings) -> None:
    """Vectors are plain floats in the order of the texts, whatever batch a text was in."""
    texts = TEXTS * 3
    vectors = load(make_embeddings()).embed_documents(texts)
    assert isinstance(vectors[0][0], float)
    np.testing.assert_allclose(vectors, [mean_of(text) for text in texts], atol=1e-6)


@pytest.mark.parametrize("shape", [("texts", 16), (3, "tokens"), (3, 16)])
def test_a_graph_of_one_size_is_filled_up(make_embeddings: MakeEmbeddings, shape: tuple[Any, Any]) -> None:
    """A graph that takes only so many texts or tokens gets padding, which changes nothing."""
    vectors = load(make_embeddings(shape=shape)).embed_documents(TEXTS)
    np.testing.assert_allclose(vectors, [mean_of(text) for text in TEXTS], atol=1e-6)


def test_no_texts_have_no_vectors(make_embeddings: MakeEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list is answered without the model."""
    embeddings = load(make_embeddings())
    runs = Runs(embeddings, monkeypatch)
    assert embeddings.embed_documents([]) == []
    assert asyncio.run(embeddings.aembed_documents([])) == []
    assert runs.shapes == []


def test_equal_texts_are_embedded_once(make_embeddings: MakeEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that occurs again is not computed again, and gets a vector of its own."""
    embeddings = load(make_embeddings())
    runs = Runs(embeddings, monkeypatch)
    first, _, second = embeddings.embed_documents(["nine", "ferry", "nine"])
    assert [texts for texts, _ in runs.shapes] == [2]
    assert first == second
    assert first is not second


def test_a_batch_has_no_more_tokens_than_allowed(
    make_embeddings: MakeEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward passes stay within the token budget, padding included, for any number of texts."""
    embeddings = load(make_embeddings(), max_batch_tokens=40)
    runs = Runs(embeddings, monkeypatch)
    texts = [" ".join(["nine"] * (number % 12) + ["a"] * (number // 12)) for number in range(60)]
    embeddings.embed_documents(texts)
    assert sum(count for count, _ in runs.shapes) == len(set(texts))
    assert max(count * tokens for count, tokens in runs.shapes) <= 40


def test_many_texts_go_part_by_part(make_embeddings: MakeEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts beyond one part are embedded like those of the first."""
    monkeypatch.setattr(onnx_embeddings, "_PLANNED_TEXTS", 2)
    vectors = load(make_embeddings()).embed_documents(TEXTS)
    np.testing.assert_allclose(vectors, [mean_of(text) for text in TEXTS], atol=1e-6)


@pytest.mark.parametrize(
    ("texts", "said"), [("nine", "texts is 'nine'"), (["a", None], r"texts\[1\] is None"), (3, "texts is 3")]
)
def test_what_is_not_a_text_is_refused(make_embeddings: MakeEmbeddings, texts: Any, said: str) -> None:
    """The error names the first text that is none, and nothing is computed."""
    with pytest.raises(InvalidInputError, match=said):
        load(make_embeddings()).embed_documents(texts)


def test_lone_surrogates_are_replaced(make_embeddings: MakeEmbeddings) -> None:
    """A text that no tokenizer takes is embedded with the replacement character."""
    embeddings = load(make_embeddings())
    assert embeddings.embed_query("nine \udcff") == embeddings.embed_query("nine \ufffd")


def test_numbers_that_are_not_finite_raise(make_embeddings: MakeEmbeddings) -> None:
    """A vector with NaN is an error with the positions of its texts, never a result."""
    table = TABLE.copy()
    table[WORDS.index("ferry")] = np.nan
    with pytest.raises(ScoringError, match="not finite") as caught:
        load(make_embeddings(table=table)).embed_documents(["nine", "a ferry", "at", "ferry", "a ferry"])
    assert caught.value.positions == (1, 3, 4)


def test_a_failing_graph_raises_an_error_of_this_package(
    make_embeddings: MakeEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What onnxruntime raises is wrapped and named, and kept as the cause."""
    embeddings = load(make_embeddings())

    def fail(features: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(embeddings._session, "run", fail)
    with pytest.raises(ScoringError, match="RuntimeError: out of memory") as caught:
        embeddings.embed_query("nine")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_long_texts_are_cut_and_reported_once(
    make_embeddings: MakeEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    """What is beyond the limit is not read; the first call with such a text says so."""
    embeddings = load(make_embeddings())
    with caplog.at_level(logging.WARNING):
        long, longer = embeddings.embed_documents(["nine " * 14 + "ferry", "nine " * 14 + "at " * 5000])
        embeddings.embed_query("nine " * 50)
    assert long == longer
    assert len([record for record in caplog.records if "reads 16 tokens" in record.message]) == 1


@pytest.mark.parametrize(("asked", "read"), [(None, 16), (8, 8), (500, 16)])
def test_the_length_is_what_was_asked_for_within_the_positions(
    make_embeddings: MakeEmbeddings, asked: int | None, read: int
) -> None:
    """`max_length` lowers the model's own limit, and cannot raise it beyond its positions."""
    embeddings = load(make_embeddings(), max_length=asked)
    assert embeddings.max_length == read
    assert embeddings.embed_query("nine " * 30) == embeddings.embed_query("nine " * (read - 2))


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_of_a_first_token_model_only_that_is_computed(make_embeddings: MakeEmbeddings, opset: int) -> None:
    """With pooling `cls` the graph ends at the first token, for graphs of any age."""
    embeddings = load(make_embeddings({"Pooling": {"pooling_mode": "cls"}}, opset=opset))
    output = embeddings._session._session.get().get_outputs()[0]
    assert len(output.shape) == 2
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), [TABLE[2]] * len(TEXTS), atol=1e-6)


def test_a_graph_that_returns_vectors_of_texts_is_used(make_embeddings: MakeEmbeddings) -> None:
    """A graph with pooling inside is not pooled again."""
    embeddings = load(make_embeddings({"Pooling": {}, "Normalize": {}}, pooled=True))
    expected = TABLE[2] / np.linalg.norm(TABLE[2])
    np.testing.assert_allclose(embeddings.embed_documents(["nine", "ferry"]), [expected] * 2, atol=1e-6)


def test_a_graph_that_does_too_much_is_refused(make_embeddings: MakeEmbeddings) -> None:
    """Where modules follow the pooling, a graph with pooling inside may have done these, too."""
    from safetensors.numpy import save_file

    folder = make_embeddings({"Pooling": {}, "Dense": {"activation_function": "torch.nn.Identity"}}, pooled=True)
    save_file({"linear.weight": np.eye(4, dtype=np.float32)}, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="'sentence_embedding'"):
        load(folder)


def test_copies_work(make_embeddings: MakeEmbeddings) -> None:
    """A pickled copy loads the same files with the same settings; a deep copy is the same object."""
    embeddings = load(make_embeddings(), max_length=9, query_prompt="query: ")
    copied = pickle.loads(pickle.dumps(embeddings))
    assert copied.embed_query("ferry " * 30) == embeddings.embed_query("ferry " * 30)
    assert copied.max_length == 9
    assert copy.deepcopy(embeddings) is embeddings


def test_the_fingerprint_is_that_of_the_vectors(
    make_embeddings: MakeEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever changes a vector changes the fingerprint; the folder's name, batches and threads do not."""
    folder, same, other = make_embeddings(), make_embeddings(), make_embeddings(table=TABLE + 1)
    found = load(folder, max_batch_tokens=64).fingerprint
    assert found == load(same, num_threads=1).fingerprint
    settings: list[dict[str, Any]] = [{"max_length": 8}, {"query_prompt": "query: "}, {"document_prompt": "passage: "}]
    assert len({found, load(other).fingerprint, *(load(folder, **each).fingerprint for each in settings)}) == 5
    embeddings = load(make_embeddings())
    monkeypatch.setattr(onnx_embeddings, "WORTH_CALIBRATING", 1)
    monkeypatch.setattr(onnx_embeddings, "measure_batch_tokens", lambda *_: 32)
    embeddings.embed_documents(["nine " * 40])
    assert embeddings.max_batch_tokens == 32
    assert embeddings.fingerprint == found


async def test_calls_run_at_the_same_time(make_embeddings: MakeEmbeddings) -> None:
    """Asynchronous calls take turns, and each gets its own vectors."""
    embeddings = load(make_embeddings(), max_batch_tokens=8)
    found = await asyncio.gather(*(embeddings.aembed_documents([text] * 3) for text in TEXTS * 4))
    assert found == [[embeddings.embed_query(text)] * 3 for text in TEXTS * 4]


def test_eight_bits_are_close(make_embeddings: MakeEmbeddings) -> None:
    """The bundled embeddings in eight bits point nearly the same way, and say what they are."""
    exact, rough = load_embeddings("bundled"), load_embeddings("bundled", precision="int8")
    assert isinstance(rough, OnnxEmbeddings)
    assert rough.precision == "int8"
    cosines = np.sum(np.multiply(exact.embed_documents(TEXTS[:2]), rough.embed_documents(TEXTS[:2])), axis=1)
    assert cosines.min() > 0.9


@pytest.mark.parametrize(("texts", "shown"), [(5, False), (300, True)])
def test_a_progress_bar_is_shown_for_many_texts(
    make_embeddings: MakeEmbeddings, capsys: pytest.CaptureFixture[str], texts: int, shown: bool
) -> None:
    """If one is asked for, many texts show on standard error how many are done; a few do not."""
    embeddings = load(make_embeddings(), show_progress=True)
    embeddings.embed_documents([f"a text {number}" for number in range(texts)])
    assert ("Embedding" in capsys.readouterr().err) is shown
