"""From a name or a folder to a cross-encoder: the backends, and the one place that chooses between them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.cross_encoders.base import (
    DEFAULT_MAX_BATCH_TOKENS,
    CrossEncoder,
    ForeignCrossEncoder,
    as_cross_encoder,
)
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, PairScore, TextPair
from langchain_crossrerank.cross_encoders.precision import Precision
from langchain_crossrerank.cross_encoders.scores import Activation
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extras import check_extra, missing_modules

if TYPE_CHECKING:
    from langchain_crossrerank.cross_encoders.model_files import ModelSource

__all__ = [
    "DEFAULT_MODEL",
    "Activation",
    "Backend",
    "CrossEncoder",
    "EncodedPair",
    "ForeignCrossEncoder",
    "PairScore",
    "Precision",
    "TextPair",
    "as_cross_encoder",
    "load_cross_encoder",
]

DEFAULT_MODEL = "cross-encoder/ms-marco-MiniLM-L6-v2"
"""The cross-encoder that the Python API loads from the hub where none is named."""

Backend = Literal["auto", "onnx", "openvino", "torch", "remote"]
"""What computes the scores; `"auto"` is resolved at load time by `load_cross_encoder`."""

_PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "onnx": ("fp32", "int8", "auto"),
    "openvino": ("fp32", "bf16", "auto"),
    "torch": ("fp32", "bf16", "fp16", "auto"),
    "remote": ("fp32",),
}

_LOADED: dict[tuple[Any, ...], CrossEncoder] = {}
_LOCKS: dict[tuple[Any, ...], threading.Lock] = {}
_GUARD = threading.Lock()


def load_cross_encoder(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    backend: Backend = "auto",
    activation: Activation | None = None,
    max_length: int | None = None,
    max_batch_tokens: int | None = None,
    precision: Precision | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    instruction: str | None = None,
) -> CrossEncoder:
    """Load a cross-encoder, or give the copy that this process has loaded already with the same settings.

    `backend="auto"` picks `"remote"` for an http(s) URL. Otherwise it picks `"onnx"` if the model has an ONNX graph
    (`model.onnx` or `onnx/model.onnx`) and neither `device` other than the CPU nor `trust_remote_code` was asked for,
    and `"torch"` where not, if its extra is installed. `repr` of the result shows what was picked.

    Args:
        model: `"bundled"` for the model inside this package, a folder, a name on the Hugging Face hub, or the URL of a
            rerank endpoint (`RemoteCrossEncoder` has more settings for those).
        backend: `"auto"`, `"onnx"`, `"openvino"`, `"torch"` or `"remote"`.
        activation: `"identity"` for logits, `"sigmoid"` for 0..1; `None` follows the model's config, as
            sentence-transformers does.
        max_length: The most tokens of a pair that are read; `None` for what the model allows. Longer passages are
            cut at their end, queries never.
        max_batch_tokens: The most tokens, padding included, in one forward pass; more takes more memory. `None` for
            what suits the backend: onnx and openvino measure it on this machine once.
        precision: `"fp32"`, the default, is exact; LLM rerankers on a GPU default to the type of their weights. The
            onnx backend has `"int8"` too, openvino `"bf16"`, torch `"bf16"` and `"fp16"`; `"auto"` takes the faster
            one where the machine has instructions for it. `repr` shows which.
        num_threads: Threads of one forward pass on the onnx and openvino backends; `None` for the physical cores that
            this process may use, a container's quota included.
        device: `"cpu"`, or `"cuda"` on the torch backend, and on onnx where onnxruntime-gpu is installed.
        revision: Branch, tag or commit on the hub.
        local_files_only: Read the hub's local cache only. `HF_HUB_OFFLINE=1` does the same for the whole process.
        trust_remote_code: Run Python code from the model's repository; torch backend only.
        instruction: What relevant means, for LLM rerankers (causal models such as Qwen3-Reranker); others ignore it.

    Returns:
        A cross-encoder, shared by all callers in this process that pass the same arguments.

    Raises:
        InvalidInputError: If an argument is out of range.
        ModelNotFoundError: If there is no such model, it cannot be reached, or files are missing.
        UnsupportedModelError: If it cannot be used for reranking.
        MissingExtraError: If the torch backend is needed and not installed.
    """
    wanted = _Wanted(
        name=_check_settings(model, backend, activation),
        backend=backend,
        activation=activation,
        max_length=max_length,
        max_batch_tokens=max_batch_tokens,
        precision=precision,
        num_threads=num_threads,
        device=device,
        revision=revision,
        local_files_only=local_files_only,
        trust_remote_code=trust_remote_code,
        instruction=instruction,
    )
    wanted.check()
    place = os.path.realpath(wanted.name) if os.path.isdir(wanted.name) else wanted.name
    return _load_once((wanted, place), wanted.load)


@dataclass(frozen=True)
class _Wanted:
    """What a caller of `load_cross_encoder` asked for."""

    name: str
    backend: Backend
    activation: Activation | None
    max_length: int | None
    max_batch_tokens: int | None
    precision: Precision | None
    num_threads: int | None
    device: str | None
    revision: str | None
    local_files_only: bool
    trust_remote_code: bool
    instruction: str | None

    def check(self) -> None:
        """Raise `InvalidInputError` for what no backend takes, or the one asked for does not."""
        if self.device is not None and not isinstance(self.device, str):
            raise InvalidInputError(f'device is {self.device!r}; pass the name of a device, for example "cuda".')
        if self.backend in ("onnx", "openvino"):
            other_device = None if self.device == "cpu" or self.backend == "onnx" else self.device
            for what, value in (("device", other_device), ("trust_remote_code", self.trust_remote_code)):
                if value:
                    raise InvalidInputError(
                        f'{what} is {value!r}, which the {self.backend} backend has not; use backend="torch".'
                    )
        self._check_precision(self.backend)
        limits: tuple[tuple[str, Any, int], ...] = (
            ("max_length", self.max_length, 8),
            ("max_batch_tokens", self.max_batch_tokens, 1),
            ("num_threads", self.num_threads, 1),
        )
        for name, number, least in limits:
            if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < least):
                raise InvalidInputError(f"{name} is {number!r}; pass a whole number of at least {least}.")

    def load(self) -> CrossEncoder:
        """Find the model's files, choose the backend, and load."""
        from langchain_crossrerank.cross_encoders.model_files import BUNDLED, find_source

        if self.backend == "remote" or (self.backend == "auto" and self.name.startswith(("http://", "https://"))):
            return self._connect()
        if self.backend == "torch":
            return self._load_torch()
        wants_torch = self.trust_remote_code or self.device not in (None, "cpu")
        source = find_source(
            self.name,
            revision=self.revision,
            local_files_only=self.local_files_only,
            weights=self.backend != "auto" or not wants_torch,
        )
        chosen = _pick_backend(source, wants_torch=wants_torch) if self.backend == "auto" else self.backend
        self._check_precision(chosen)
        if chosen != "torch":
            return self._load_graph(source, chosen)
        if self.name == BUNDLED:
            raise _bundled_is_a_graph()
        return self._load_torch(source)

    def _load_graph(self, source: ModelSource, backend: str) -> CrossEncoder:
        settings: dict[str, Any] = {
            "activation": self.activation,
            "max_length": self.max_length,
            "max_batch_tokens": self.max_batch_tokens,
            "num_threads": self.num_threads,
            "precision": self.precision or "fp32",
        }
        if backend == "openvino":
            check_extra("openvino", needed_for=f"the model {self.name!r} on the openvino backend")
            from langchain_crossrerank.cross_encoders.backends.openvino import OpenVinoCrossEncoder

            return OpenVinoCrossEncoder(source, **settings)
        from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder

        return OnnxCrossEncoder(source, **settings, device=self.device or "cpu")

    def _load_torch(self, source: ModelSource | None = None) -> CrossEncoder:
        from langchain_crossrerank.cross_encoders.model_files import BUNDLED, find_source

        if self.name == BUNDLED:
            raise _bundled_is_a_graph()
        check_extra("torch", needed_for=f"the model {self.name!r} on the torch backend")
        where: dict[str, Any] = {"revision": self.revision, "local_files_only": self.local_files_only}
        source = source or find_source(self.name, **where, weights=False)
        settings: dict[str, Any] = {
            "activation": self.activation,
            "max_length": self.max_length,
            "max_batch_tokens": self.max_batch_tokens or DEFAULT_MAX_BATCH_TOKENS,
            "precision": self.precision if source.is_causal else self.precision or "fp32",
            "device": self.device,
            "trust_remote_code": self.trust_remote_code,
        }
        if source.is_causal:
            from langchain_crossrerank.cross_encoders.backends.causal import CausalCrossEncoder

            weights = find_source(self.name, **where, safetensors=True)
            return CausalCrossEncoder(weights, instruction=self.instruction, **settings)
        if not self.trust_remote_code:
            source.check_classifier()
        from langchain_crossrerank.cross_encoders.backends.torch import TorchCrossEncoder

        is_folder = os.path.isdir(os.path.expanduser(self.name))
        return TorchCrossEncoder(str(source.folder) if is_folder else self.name, **settings, **where)

    def _connect(self) -> CrossEncoder:
        check_extra("remote", needed_for=f"the rerank server at {without_credentials(self.name)!r}")
        from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder

        activation, max_length = self.activation or "sigmoid", self.max_length or 512
        return RemoteCrossEncoder(self.name, activation=activation, max_length=max_length)

    def _check_precision(self, backend: Backend) -> None:
        if self.precision is None:
            return
        if self.precision not in get_args(Precision):
            known = ", ".join(map(repr, get_args(Precision)))
            raise InvalidInputError(f"precision is {self.precision!r}; pass one of {known}.")
        if backend in _PRECISIONS and self.precision not in _PRECISIONS[backend]:
            having = [name for name, precisions in _PRECISIONS.items() if self.precision in precisions]
            raise InvalidInputError(
                f"precision is {self.precision!r}, which the {backend} backend has not; pass one of "
                f"{', '.join(map(repr, _PRECISIONS[backend]))}, or backend={' or '.join(map(repr, having))}."
            )


def without_credentials(address: str) -> str:
    """Give a URL without the name and password that it may carry, fit to be shown; other text as it is."""
    scheme, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else address


def _bundled_is_a_graph() -> InvalidInputError:
    return InvalidInputError('the bundled model is an ONNX graph; load it with backend="onnx", "openvino" or "auto".')


def _pick_backend(source: ModelSource, *, wants_torch: bool) -> Literal["onnx", "torch"]:
    if wants_torch:
        return "torch"
    if source.onnx_file is not None:
        return "onnx"
    # Without torch, the onnx backend's own error names both ways out.
    return "onnx" if missing_modules("torch") else "torch"


def _load_once(key: tuple[Any, ...], load: Callable[[], CrossEncoder]) -> CrossEncoder:
    with _GUARD:
        lock = _LOCKS.setdefault(key, threading.Lock())
    with lock:
        if key not in _LOADED:
            _LOADED[key] = load()
        return _LOADED[key]


def _forget_locks() -> None:
    # In a forked child a lock may be held by a thread that does not exist there.
    global _GUARD  # noqa: PLW0603
    _GUARD = threading.Lock()
    _LOCKS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def _check_settings(model: object, backend: str, activation: str | None) -> str:
    if not isinstance(model, str | os.PathLike) or not os.fspath(model).strip():
        raise InvalidInputError(
            f'model is {shorten(model)}; pass "bundled", a folder, or a name on the Hugging Face hub.'
        )
    if backend not in get_args(Backend):
        raise InvalidInputError(f"backend is {backend!r}; pass one of {', '.join(map(repr, get_args(Backend)))}.")
    if activation is not None and activation not in get_args(Activation):
        raise InvalidInputError(f'activation is {activation!r}; pass "identity", "sigmoid" or None.')
    return os.fspath(model)
