"""Fixtures that every test can use; models are loaded once a run and kept local."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.documents import Document

pytest_plugins = ["tests.fault_tally"]

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"
os.environ.pop("OPENAI_API_KEY", None)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of this run's own for graphs and calibrations, for child processes too."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSRERANK_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT classifier with one logit and random weights: safetensors, no ONNX graph."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny-bert", num_labels=1)


@pytest.fixture(scope="session")
def tiny_onnx_folder(tiny_model_folder: Path) -> Path:
    """The same model, exported."""
    export = pytest.importorskip("langchain_crossrerank.cross_encoders.export", reason="needs the export extra")
    folder = tiny_model_folder.parent / "tiny-bert-onnx"
    export.export_onnx(str(tiny_model_folder), folder)
    return folder


@pytest.fixture
def documents() -> list[Document]:
    """Five documents on two subjects, with ids and metadata."""
    texts = [
        "The weather today is sunny with a high of 75 degrees.",
        "LoRA adds small trainable matrices to a frozen model.",
        "Fine-tuning large models takes much memory.",
        "A tokenizer splits text into pieces.",
        "LoRA is short for low-rank adaptation of large language models.",
    ]
    return [Document(text, id=f"d{i}", metadata={"source": "notes.txt", "page": i}) for i, text in enumerate(texts)]


def make_tiny_model(folder: Path, *, num_labels: int, seed: int = 0) -> Path:
    """Save a tiny random BERT classifier with the bundled model's vocabulary and BERT's own pair template."""
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    transformers = pytest.importorskip("transformers", reason="needs the torch extra")
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER

    torch.manual_seed(seed)
    tokenizer = Tokenizer.from_file(str(BUNDLED_FOLDER / "tokenizer.json"))
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    config = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        num_labels=num_labels,
        # Large enough weights for scores that differ.
        initializer_range=0.3,
    )
    transformers.BertForSequenceClassification(config).eval().save_pretrained(folder)
    transformers.BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=128).save_pretrained(folder)
    return folder
