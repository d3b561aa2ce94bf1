"""The settings of a model to load, and every check of them that needs no file, network or model library."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from langchain_crossrerank.checks import check_names, shorten
from langchain_crossrerank.cross_encoders.base import LongQuery
from langchain_crossrerank.cross_encoders.model_files import BUNDLED, bundled_name
from langchain_crossrerank.cross_encoders.precision import Precision
from langchain_crossrerank.cross_encoders.scores import Activation
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.redaction import show_url

DEFAULT_MODEL = "cross-encoder/ms-marco-MiniLM-L6-v2"
"""The cross-encoder that the Python API loads from the hub if none is named."""

Backend = Literal["auto", "onnx", "openvino", "torch", "remote"]
"""What computes the scores; `"auto"` is resolved at load time by `load_cross_encoder`."""

_PRECISIONS: dict[Backend, tuple[Precision, ...]] = {
    "onnx": ("fp32", "int8", "auto"),
    "openvino": ("fp32", "bf16", "auto"),
    "torch": ("fp32", "bf16", "fp16", "auto"),
    "remote": ("fp32",),
}

# What torch calls its devices; the last few are those of vendors' plug-ins.
_DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla", "npu", "mlu", "musa", "privateuseone")

_URL = re.compile("https?://", re.IGNORECASE)

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}

_NOT_SUPPORTED: dict[Backend, tuple[str, ...]] = {
    "onnx": ("trust_remote_code", "instruction"),
    "openvino": ("trust_remote_code", "instruction", "passage_cache"),
    "torch": ("num_threads", "file_name", "passage_cache"),
    "remote": (
        *("max_batch_tokens", "num_threads", "device", "revision", "local_files_only", "trust_remote_code"),
        *("subfolder", "file_name", "token", "instruction", "passage_cache"),
    ),
}


SERVER_SETTINGS = (
    "fallback_urls",
    "model_name",
    "request_shape",
    "api_key",
    "api_key_header",
    "headers",
    "extra_body",
    "make_request",
    "read_answer",
    "allow_insecure_key",
    "max_documents",
    "timeout",
    "attempt_timeout",
    "max_retries",
    "max_retry_wait",
    "max_response_bytes",
)
"""Arguments of `RemoteCrossEncoder` that are taken for a URL; `model_name` is its `model`."""


class ServerSettings:
    """Arguments of `RemoteCrossEncoder`, by name: comparable, and never shown, because keys are among them.

    Args:
        **arguments: The arguments.
    """

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServerSettings) and self.arguments == other.arguments

    def __hash__(self) -> int:
        # Values such as headers have no hash.
        return hash(tuple(sorted(self.arguments)))

    def __repr__(self) -> str:
        return f"ServerSettings({', '.join(f'{name}=...' for name in sorted(self.arguments))})"


def is_url(model: object) -> bool:
    """Return whether a model is given by the address of a rerank server."""
    return isinstance(model, str) and _URL.match(model) is not None


def check_one(model: object) -> None:
    """Raise `InvalidInputError` for a list, which `RemoteCrossEncoder` alone takes as the addresses of servers."""
    if isinstance(model, list | tuple):
        shown = [show_url(one) if isinstance(one, str) else one for one in model]
        raise InvalidInputError(
            f"model is {shorten(shown)}; pass the first one, and the addresses of further servers as fallback_urls, "
            "which a reranker takes in model_kwargs."
        )


def _as_text(model: object) -> object:
    return os.fspath(model) if isinstance(model, os.PathLike) else model


def _as_bytes(size: object) -> object:
    """Read a text such as "256MB" as a number of bytes; leave anything else as it is."""
    found = (
        re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB)", size.strip(), re.IGNORECASE) if isinstance(size, str) else None
    )
    return int(float(found[1]) * _UNITS[found[2].upper()]) if found else size


@dataclass(frozen=True, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
class ModelSettings:
    """What `load_cross_encoder` takes; its docstring explains each of them.

    Made by `check_settings`, which also checks how settings go together. The descriptions here complete the sentence
    "pass ..." of an error message.
    """

    model: Annotated[str, BeforeValidator(_as_text)] = Field(
        default=DEFAULT_MODEL, pattern=r"\S", description='"bundled", a folder, a URL, or a name on the hub'
    )
    backend: Backend = Field(default="auto", description='"auto", "onnx", "openvino", "torch" or "remote"')
    activation: Activation | None = Field(default=None, description='"identity", "sigmoid" or None')
    max_length: int | None = Field(default=None, ge=8, description="a whole number of at least 8")
    max_batch_tokens: int | None = Field(default=None, ge=1, description="a whole number of at least 1")
    precision: Precision | None = Field(default=None, description='"fp32", "bf16", "fp16", "int8", "auto" or None')
    num_threads: int | None = Field(default=None, ge=1, description="a whole number of at least 1")
    device: str | None = Field(
        default=None,
        pattern=rf"^({'|'.join(_DEVICES)})(:\d+)?$",
        description='the name of a device, for example "cpu", "cuda", "cuda:0" or "mps"',
    )
    revision: str | None = Field(default=None, description="a branch, tag or commit, or None")
    subfolder: str | None = Field(default=None, pattern=r"\S", description="a folder inside the model's, or None")
    file_name: str | None = Field(default=None, pattern=r"\.onnx$", description="the name of an .onnx file, or None")
    token: str | None = Field(default=None, repr=False, description="an access token of the hub, or None")
    passage_cache: Annotated[int | None, BeforeValidator(_as_bytes)] = Field(
        default=None, ge=10**6, description='at least 1 MB, as a number of bytes or a text such as "256MB", or None'
    )
    local_files_only: bool = Field(default=False, description="True or False")
    trust_remote_code: bool = Field(default=False, description="True or False")
    instruction: str | None = Field(default=None, description="a sentence, or None")
    long_query: LongQuery = Field(default="cut", description='"cut" or "error"')
    server: ServerSettings = Field(default=ServerSettings(), description="arguments of RemoteCrossEncoder")

    @property
    def name(self) -> str:
        """The name of the model once it is loaded."""
        return bundled_name(self.file_name) if self.model == BUNDLED else self.model

    @property
    def is_url(self) -> bool:
        """Whether the model is the address of a rerank server."""
        return is_url(self.model)

    @property
    def needs_torch(self) -> bool:
        """Whether only the torch backend can do what is asked, whatever files the model has."""
        return self.trust_remote_code or self.device not in (None, "cpu")

    @property
    def known_backend(self) -> Backend:
        """The backend as far as it is known before the model's files are; otherwise `"auto"`."""
        if self.backend != "auto":
            return self.backend
        if self.is_url:
            return "remote"
        return "torch" if self.needs_torch else "auto"

    def check_backend(self, backend: Backend) -> None:
        """Raise `InvalidInputError` for a setting that a backend does not support."""
        if backend == "auto":
            return
        for name in _NOT_SUPPORTED[backend]:
            self._check_supported(name, backend, supported=not getattr(self, name))
        on_cpu = self.device in (None, "cpu")
        has_device = on_cpu or backend == "torch" or (backend == "onnx" and str(self.device).startswith("cuda"))
        self._check_supported("device", backend, supported=has_device)
        precisions = (None, *_PRECISIONS[backend])
        self._check_supported("precision", backend, supported=self.precision in precisions)
        if self.model == BUNDLED and backend in ("torch", "remote"):
            raise InvalidInputError(
                f"the bundled model is an ONNX graph and does not run on the {backend} backend; load it with "
                'backend="onnx", "openvino" or "auto", and without device or trust_remote_code.'
            )

    def _check_supported(self, name: str, backend: Backend, *, supported: bool) -> None:
        if supported:
            return
        value = getattr(self, name)
        if name == "precision":
            others = [other for other, precisions in _PRECISIONS.items() if value in precisions]
        elif name == "device":
            others = ["torch"]
        else:
            others = [other for other, missing in _NOT_SUPPORTED.items() if name not in missing]
        raise InvalidInputError(
            f"{name} is {value!r}, which is not supported by the {backend} backend; leave it out, or pass "
            f"backend={' or '.join(map(repr, others))}."
        )


def check_settings(model: object = DEFAULT_MODEL, backend: object = "auto", /, **model_kwargs: Any) -> ModelSettings:
    """Check the arguments of `load_cross_encoder` without loading anything.

    Args:
        model: `"bundled"`, a folder, a name on the hub, or a URL.
        backend: The backend's name.
        **model_kwargs: The other arguments of `load_cross_encoder`; for a URL, `model` means `model_name`.

    Returns:
        The settings.

    Raises:
        InvalidInputError: If an argument is unknown or out of range, or is not supported by the backend.
    """
    check_one(model)
    is_remote = backend == "remote" or is_url(model)
    if is_remote and "model" in model_kwargs:
        model_kwargs["model_name"] = model_kwargs.pop("model")
    server = {name: model_kwargs.pop(name) for name in SERVER_SETTINGS if name in model_kwargs}
    if server and not is_remote:
        raise InvalidInputError(
            f"{next(iter(server))} is a setting of rerank servers, and model is {shorten(model)}; leave it out, or "
            "pass the URL of a server."
        )
    known = [field.name for field in fields(ModelSettings) if field.name != "server"]
    if is_remote:
        known += SERVER_SETTINGS
    check_names("load_cross_encoder has no argument", model_kwargs, known)
    arguments: dict[str, Any] = {"model": model, "backend": backend, **model_kwargs}
    arguments["server"] = ServerSettings(**server)
    try:
        settings = ModelSettings(**arguments)
    except ValidationError as err:
        name = str(err.errors()[0]["loc"][0])
        expected = vars(ModelSettings)["__pydantic_fields__"][name].description
        raise InvalidInputError(f"{name} is {shorten(arguments[name])}; pass {expected}.") from err
    settings.check_backend(settings.known_backend)
    return settings
