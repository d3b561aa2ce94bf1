"""From a name or a folder to a cross-encoder: the backends, and the one place that chooses between them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

from langchain_crossrerank.cross_encoders.base import (
    DEFAULT_MAX_BATCH_TOKENS,
    Activation,
    CrossEncoder,
    EncodedPair,
    ForeignCrossEncoder,
    PairScore,
    TextPair,
    as_cross_encoder,
    shorten,
)
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extras import check_extra, missing_modules

if TYPE_CHECKING:
    from langchain_crossrerank.cross_encoders.source import ModelSource

__all__ = [
    "DEFAULT_MODEL",
    "Activation",
    "Backend",
    "CrossEncoder",
    "EncodedPair",
    "ForeignCrossEncoder",
    "PairScore",
    "TextPair",
    "as_cross_encoder",
    "load_cross_encoder",
]

DEFAULT_MODEL = "cross-encoder/ms-marco-MiniLM-L6-v2"
"""The cross-encoder that the Python API loads from the hub where none is named."""

Backend = Literal["auto", "onnx", "torch", "remote"]
"""What computes the scores; `"auto"` is resolved at load time by `load_cross_encoder`."""

_LOADED: dict[tuple[Any, ...], CrossEncoder] = {}
_LOCKS: dict[tuple[Any, ...], threading.Lock] = {}
_GUARD = threading.Lock()


def load_cross_encoder(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    backend: Backend = "auto",
    activation: Activation | None = None,
    max_length: int | None = None,
    max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS,
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
        backend: `"auto"`, `"onnx"`, `"torch"` or `"remote"`.
        activation: `"identity"` for logits, `"sigmoid"` for 0..1; `None` follows the model's config, as
            sentence-transformers does.
        max_length: The most tokens of a pair that are read; `None` for what the model allows. Longer passages are
            cut at their end, queries never.
        max_batch_tokens: The most tokens, padding included, in one forward pass; more takes more memory.
        num_threads: Threads of one forward pass on the onnx backend; `None` for physical cores.
        device: torch device, for example `"cuda"`; torch backend only.
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
    name = _check_settings(model, backend, activation)
    if device is not None and not isinstance(device, str):
        raise InvalidInputError(f'device is {device!r}; pass the name of a torch device, for example "cuda".')
    if backend == "onnx":
        for what, value in (("device", device if device != "cpu" else None), ("trust_remote_code", trust_remote_code)):
            if value:
                raise InvalidInputError(f'{what} is {value!r}, which the onnx backend has not; use backend="torch".')
    _check_limits(max_length=max_length, max_batch_tokens=max_batch_tokens, num_threads=num_threads)
    settings = (activation, max_length, max_batch_tokens, revision, local_files_only)
    place = os.path.realpath(name) if os.path.isdir(name) else name
    key = (name, place, backend, *settings, num_threads, device, trust_remote_code, instruction)

    def load() -> CrossEncoder:
        from langchain_crossrerank.cross_encoders.source import BUNDLED, find_source

        if backend == "remote" or (backend == "auto" and name.startswith(("http://", "https://"))):
            return _connect(name, activation, max_length)
        chosen = backend
        source = None
        if chosen != "torch":
            wants_torch = trust_remote_code or device not in (None, "cpu")
            fetch_graph = chosen == "onnx" or not wants_torch
            source = find_source(name, revision=revision, local_files_only=local_files_only, weights=fetch_graph)
            if chosen == "auto":
                chosen = _pick_backend(source, wants_torch=wants_torch)
        if chosen == "onnx" and source is not None:
            from langchain_crossrerank.cross_encoders.onnx import OnnxCrossEncoder

            return OnnxCrossEncoder(
                source,
                activation=activation,
                max_length=max_length,
                max_batch_tokens=max_batch_tokens,
                num_threads=num_threads,
            )
        if name == BUNDLED:
            raise InvalidInputError('the bundled model is an ONNX graph; load it with backend="onnx" or "auto".')
        check_extra("torch", needed_for=f"the model {name!r} on the torch backend")
        if source is None:
            source = find_source(name, revision=revision, local_files_only=local_files_only, weights=False)
        if source.is_causal:
            from langchain_crossrerank.cross_encoders.causal import CausalCrossEncoder

            return CausalCrossEncoder(
                find_source(name, revision=revision, local_files_only=local_files_only, safetensors=True),
                instruction=instruction,
                activation=activation,
                max_length=max_length,
                max_batch_tokens=max_batch_tokens,
                device=device,
                trust_remote_code=trust_remote_code,
            )
        if not trust_remote_code:
            source.check_classifier()
        from langchain_crossrerank.cross_encoders.torch import TorchCrossEncoder

        is_folder = os.path.isdir(os.path.expanduser(name))
        return TorchCrossEncoder(
            str(source.folder) if is_folder else name,
            activation=activation,
            max_length=max_length,
            max_batch_tokens=max_batch_tokens,
            device=device,
            revision=revision,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
        )

    return _load_once(key, load)


def _connect(url: str, activation: Activation | None, max_length: int | None) -> CrossEncoder:
    check_extra("remote", needed_for=f"the rerank server at {url!r}")
    from langchain_crossrerank.cross_encoders.remote import RemoteCrossEncoder

    return RemoteCrossEncoder(url, activation=activation or "sigmoid", max_length=max_length or 512)


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


def _check_limits(*, max_length: int | None, max_batch_tokens: int, num_threads: int | None) -> None:
    limits = (("max_length", max_length, 8), ("max_batch_tokens", max_batch_tokens, 1), ("num_threads", num_threads, 1))
    for what, value, least in limits:
        if value is None and what != "max_batch_tokens":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InvalidInputError(f"{what} is {value!r}; pass a whole number of at least {least}.")
