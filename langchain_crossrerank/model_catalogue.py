"""The cross-encoders that are worth a look, with the facts to choose by; the site and `crossrerank models` print it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Unit = Literal["logit", "probability", "by its config"]

_TREC = "TREC DL 2019, nDCG@10 of BM25's top 100, by the model's card"
_MTEB = "MTEB(eng, v2) retrieval, nDCG@10 of six retrievers' top 100, by the Hugging Face blog"
_BEIR = "BEIR, mean nDCG@10, by the model's card"
_QWEN = "MTEB-R, nDCG@10 of Qwen3-Embedding-0.6B's top 100, by the card of Qwen3-Reranker"
_OURS = "TREC DL 2019, nDCG@10 of BM25's top 100, by benchmarks/quality.py"
_SPEED = "AMD EPYC with AVX-512, two cores, fp32, by benchmarks/speed.py"


@dataclass(frozen=True)
class ModelFacts:
    """What helps to choose a cross-encoder.

    Attributes:
        name: What to pass as `model=`.
        parameters: Size in millions of parameters.
        languages: The languages it was trained for.
        licence: SPDX identifier of the weights' licence.
        unit: Unit of its scores with `activation=None`.
        max_length: Maximum tokens of query and passage together.
        backends: What runs it, the default first.
        quality: Published figures between 0 and 1, by collection, measure and who published it. Only figures with the
            same source can be compared.
        milliseconds: Median time to rerank 20 passages of 500 characters, in milliseconds; `None` if it was not
            measured here.
        note: What else to know.
    """

    name: str
    parameters: float
    languages: str
    licence: str
    unit: Unit
    max_length: int
    backends: tuple[str, ...]
    quality: Mapping[str, float] = field(default_factory=dict)
    milliseconds: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the facts by name, for JSON."""
        return asdict(self)


_GRAPH = ("onnx", "openvino", "torch")
_EN, _MANY = "English", "100 and more"
_APACHE = "Apache-2.0"


def _ms_marco(size: str, parameters: float, quality: Mapping[str, float], **facts: Any) -> ModelFacts:
    name = f"cross-encoder/ms-marco-{size}-v2"
    return ModelFacts(name, parameters, _EN, _APACHE, "logit", 512, _GRAPH, quality, **facts)


def _ettin(parameters: float, quality: float) -> ModelFacts:
    name = f"cross-encoder/ettin-reranker-{parameters:g}m-v1"
    return ModelFacts(name, parameters, _EN, _APACHE, "by its config", 8192, _GRAPH, {_MTEB: quality})


MODELS = (
    ModelFacts(
        *("bundled", 27.5, _EN, _APACHE, "probability", 256, ("onnx", "openvino"), {_OURS: 0.684}),
        note="Inside the package: no download.",
    ),
    _ms_marco("TinyBERT-L2", 4.4, {_TREC: 0.698}),
    _ms_marco("MiniLM-L2", 15.6, {_TREC: 0.710}),
    _ms_marco("MiniLM-L4", 19.2, {_TREC: 0.730}),
    _ms_marco("MiniLM-L6", 22.7, {_TREC: 0.743, _MTEB: 0.508}, milliseconds=168, note="The default."),
    _ms_marco("MiniLM-L12", 33.4, {_TREC: 0.743}),
    _ettin(17, 0.558),
    _ettin(32, 0.578),
    _ettin(68, 0.592),
    ModelFacts(
        *("Alibaba-NLP/gte-reranker-modernbert-base", 149, _EN, _APACHE, "probability", 8192, _GRAPH, {_BEIR: 0.562})
    ),
    ModelFacts(
        *("cross-encoder/mmarco-mMiniLMv2-L12-H384-v1", 118, "14 languages", _APACHE, "by its config", 512, _GRAPH),
        note="The smallest here for several languages.",
    ),
    ModelFacts("BAAI/bge-reranker-base", 278, "Chinese, English", "MIT", "probability", 512, _GRAPH),
    ModelFacts(
        *("BAAI/bge-reranker-v2-m3", 568, _MANY, _APACHE, "probability", 8192, ("torch", "onnx", "openvino")),
        {_MTEB: 0.553, _QWEN: 0.635},
        note="Export it first to run it without torch.",
    ),
    ModelFacts(
        *("jinaai/jina-reranker-v2-base-multilingual", 278, _MANY, "CC-BY-NC-4.0", "probability", 1024, _GRAPH),
        {_QWEN: 0.621},
        note="Not for commercial use.",
    ),
    ModelFacts(
        *("Qwen/Qwen3-Reranker-0.6B", 596, _MANY, _APACHE, "by its config", 32768, ("torch",), {_QWEN: 0.658}),
        note="An LLM reranker: it takes an instruction, and is slow without a GPU.",
    ),
    ModelFacts(
        *("mixedbread-ai/mxbai-rerank-base-v2", 494, _MANY, _APACHE, "logit", 8192, ("torch",), {_BEIR: 0.556}),
        note="An LLM reranker: it takes an instruction, and is slow without a GPU.",
    ),
)
"""The catalogue: English models by size, then multilingual ones."""

HEADINGS = ("Model", "M", "Languages", "Licence", "Unit", "Tokens", "Quality", "ms", "Backends")
"""Headings of `table_rows`; M is millions of parameters, ms the time of 20 passages of 500 characters."""


def table_rows() -> list[tuple[str, ...]]:
    """Return the catalogue as cells of text, one row per model; a figure of quality has the letter of its source."""
    letters = {source: letter for letter, source in _sources().items()}
    return [
        (
            model.name,
            f"{model.parameters:g}",
            model.languages,
            model.licence,
            model.unit,
            str(model.max_length),
            ", ".join(f"{figure:.3f} {letters[source]}" for source, figure in model.quality.items()),
            "" if model.milliseconds is None else f"{model.milliseconds:.0f}",
            ", ".join(model.backends),
        )
        for model in MODELS
    ]


def table_notes() -> list[str]:
    """Return what to read below the table: the sources of its figures, and notes on models."""
    return [
        *(f"{letter}: {source}." for letter, source in _sources().items()),
        "Only figures with the same letter can be compared, except that a and b can also be compared with each other. "
        "Where no figure is shown, we know of none.",
        f"M: millions of parameters. ms: median to rerank 20 passages of 500 characters; {_SPEED}.",
        *(f"{model.name}: {model.note}" for model in MODELS if model.note),
    ]


def _sources() -> dict[str, str]:
    """The sources of the figures of quality, by letter."""
    return dict(zip("abcdefgh", dict.fromkeys(source for model in MODELS for source in model.quality), strict=False))
