"""Objects of other packages as models: sentence-transformers works, others get an error that says what to pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoder, CrossEncoderReranker, load_cross_encoder
from langchain_crossrerank.cross_encoders.other_objects import adapt_model
from langchain_crossrerank.errors import InvalidInputError, UnsupportedModelError
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.conftest import make_tiny_model


class TextCrossEncoder:
    """Like fastembed's."""

    def rerank(self, query: str, documents: list[str]) -> list[float]:
        return [0.5 for _ in documents]


class Ranker:
    """Like FlashRank's."""

    def rerank(self, request: Any) -> list[dict[str, Any]]:
        return []


@pytest.mark.parametrize("model", [TextCrossEncoder(), Ranker()], ids=lambda model: type(model).__name__)
def test_objects_of_other_packages_are_refused_helpfully(model: object) -> None:
    """A model object that cannot be used raises one line that says what works, when it is passed and when it is set."""
    with pytest.raises(InvalidInputError, match=rf"{type(model).__name__}.*folder") as raised:
        CrossEncoderReranker(model=model)  # type: ignore[arg-type]  # what the test is about
    assert len(str(raised.value).splitlines()) == 1
    reranker = CrossEncoderReranker(model=FakeCrossEncoder())
    with pytest.raises(InvalidInputError, match="folder"):
        reranker.model = model  # type: ignore[assignment]


@pytest.mark.parametrize("model", ["bundled", Path("folder"), FakeCrossEncoder(), None, 3, Ranker], ids=repr)
def test_everything_else_is_left_to_the_field(model: object) -> None:
    """Names, folders, LangChain's cross-encoders, and what is not a model at all are not changed."""
    assert adapt_model(model) is model


def test_a_sentence_transformers_model_works(tiny_model_folder: Path) -> None:
    """A CrossEncoder that the caller has loaded returns its own scores."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    client = sentence_transformers.CrossEncoder(str(tiny_model_folder), device="cpu")
    texts = ["low-rank adaptation", "the weather today"]
    reranker = CrossEncoderReranker(model=client, top_n=None)
    found = reranker.compress_documents([Document(text) for text in texts], "what is lora")
    expected = client.predict([("what is lora", document.page_content) for document in found], show_progress_bar=False)
    assert [document.metadata["relevance_score"] for document in found] == pytest.approx(expected.tolist(), abs=1e-5)
    assert reranker.cross_encoder.activation == "sigmoid"


@pytest.mark.parametrize("labels", [("irrelevant", "relevant"), ("relevant", "irrelevant")], ids=" ".join)
def test_the_relevant_one_of_two_labels_counts(tmp_path: Path, labels: tuple[str, str]) -> None:
    """A loaded model with two labels returns what the torch backend returns for its folder, whichever is relevant."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    folder = make_tiny_model(tmp_path / "two-labels", num_labels=2)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["id2label"] = dict(enumerate(labels))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = adapt_model(sentence_transformers.CrossEncoder(str(folder), device="cpu"))
    assert isinstance(model, CrossEncoder)
    pairs = [("what is lora", text) for text in ("low-rank adaptation", "the weather today")]
    expected = load_cross_encoder(folder, backend="torch", device="cpu")
    assert model.score(pairs) == pytest.approx(expected.score(pairs), abs=1e-5)
    assert model.activation == expected.activation


def test_a_loaded_classifier_is_refused(tmp_path: Path) -> None:
    """A loaded model with three labels, such as an NLI model, is not a reranker, and is refused when it is passed."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    client = sentence_transformers.CrossEncoder(str(make_tiny_model(tmp_path / "nli", num_labels=3)), device="cpu")
    with pytest.raises(UnsupportedModelError, match="3 outputs"):
        CrossEncoderReranker(model=client)
