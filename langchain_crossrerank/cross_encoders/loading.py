"""From settings to a cross-encoder: chooses the backend, and loads each model once in a process."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import os
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from langchain_crossrerank._process import Guarded, ProcessMark
from langchain_crossrerank._threads import native_work, start_thread
from langchain_crossrerank.cross_encoders.base import DEFAULT_MAX_BATCH_TOKENS, CrossEncoder, LongQuery
from langchain_crossrerank.cross_encoders.finding import find_source, is_hub_name
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.precision import Precision
from langchain_crossrerank.cross_encoders.scores import Activation
from langchain_crossrerank.cross_encoders.settings import DEFAULT_MODEL, Backend, ModelSettings, check_settings
from langchain_crossrerank.errors import (
    CrossRerankError,
    InvalidInputError,
    MissingExtraError,
    ModelError,
    RerankTimeoutError,
)
from langchain_crossrerank.extras import check_extra, missing_modules
from langchain_crossrerank.redaction import show_url

__all__ = [
    "DEFAULT_MODEL",
    "Backend",
    "await_model",
    "load_cross_encoder",
    "model_future",
    "wait_for_model",
]

RETRY_SECONDS = 30.0
"""How long a failed load is remembered before a rerank tries it again, in seconds."""

_QUICK_FAILURE_SECONDS = 1.0

_Key = tuple[ModelSettings, str]


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
    passage_cache: int | str | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    file_name: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    instruction: str | None = None,
    long_query: LongQuery = "cut",
    **server: Any,
) -> CrossEncoder:
    """Load a cross-encoder, or return the copy that this process has already loaded with the same settings.

    `backend="auto"` picks `"remote"` for an http(s) URL. Otherwise it picks `"onnx"` if the model has an ONNX graph
    (`model.onnx` or `onnx/model.onnx`) and neither `device` other than the CPU nor `trust_remote_code` is set, and
    `"torch"` if not, provided that its extra is installed. `repr` of the result shows what was picked.

    Args:
        model: `"bundled"` for the model inside this package, a folder, a name on the Hugging Face hub, or the URL of a
            rerank endpoint (`RemoteCrossEncoder` has more settings for those).
        backend: `"auto"`, `"onnx"`, `"openvino"`, `"torch"` or `"remote"`.
        activation: `"identity"` for logits, `"sigmoid"` for 0..1; `None` follows the model's config, as
            sentence-transformers does.
        max_length: Maximum tokens of a pair that are read; `None` for what the model allows. Longer passages are cut
            at their end, and queries that take more than half of it in their middle.
        max_batch_tokens: Maximum tokens, padding included, in one forward pass; more takes more memory. `None` for
            what suits the backend: onnx and openvino measure it once on each machine.
        precision: `"fp32"`, the default, is exact; LLM rerankers on a GPU default to the type of their weights. The
            onnx backend also supports `"int8"`, openvino `"bf16"`, torch `"bf16"` and `"fp16"`; `"auto"` takes the
            faster one if the machine has instructions for it. `repr` shows which.
        num_threads: Threads of one forward pass on the onnx and openvino backends; `None` for the physical cores that
            this process may use, a container's quota included.
        device: `"cpu"`, or `"cuda"` on the torch backend, and on onnx if onnxruntime-gpu is installed; `None` for a GPU
            if there is one that the backend can use. `repr` shows which.
        passage_cache: Bytes, 1 MB or more, or a text such as `"256MB"`, in which to keep what was read of each
            passage, for models in which query and passage meet late, such as the bundled one, on the onnx backend. A
            passage seen before then takes about half the time; one of 100 tokens takes about 200 KB. `None` keeps
            nothing.
        revision: Branch, tag or commit on the hub.
        subfolder: Folder with the model inside its folder or repository.
        file_name: The ONNX graph to run, for example `"onnx/model_quantized.onnx"`; `None` for the best one, which
            `repr` shows: one in fp32 if there is one. With `"sparse.onnx"` the bundled model is its sparse branch
            alone, a first judge for a `CascadeCrossEncoder` that returns logits by default.
        token: Access token for private and gated repositories; `None` for the one that is logged in, or `HF_TOKEN`.
        local_files_only: Read the hub's local cache only. `HF_HUB_OFFLINE=1` does the same for the whole process.
        trust_remote_code: Run Python code from the model's repository; torch backend only.
        instruction: What relevant means, for LLM rerankers with a place for it in their prompt; the
            torch backend refuses it for other models.
        long_query: `"cut"`, or `"error"` to read a query whole and raise if it leaves no token for the passage.
        **server: For a URL: settings of `RemoteCrossEncoder`, such as `api_key`, `headers` and `timeout`; the name of
            the server's model is `model_name`.

    Returns:
        A cross-encoder, shared by all callers in this process that pass the same arguments.

    Raises:
        InvalidInputError: If an argument is out of range or not supported by the backend.
        ModelNotFoundError: If the model does not exist, cannot be reached, or lacks files.
        UnsupportedModelError: If it cannot be used for reranking.
        MissingExtraError: If the torch backend is needed and not installed.
    """
    settings = check_settings(
        model,
        backend,
        activation=activation,
        max_length=max_length,
        max_batch_tokens=max_batch_tokens,
        precision=precision,
        num_threads=num_threads,
        device=device,
        passage_cache=passage_cache,
        revision=revision,
        subfolder=subfolder,
        file_name=file_name,
        token=token,
        local_files_only=local_files_only,
        trust_remote_code=trust_remote_code,
        instruction=instruction,
        long_query=long_query,
        **server,
    )
    return _join_load(settings, try_again=True).outcome().result()


def model_future(settings: ModelSettings) -> Future[CrossEncoder]:
    """Return the one load of these settings that all callers share, starting it if need be.

    It runs on a thread of its own and cannot be cancelled. A failed load is remembered for `RETRY_SECONDS`, unless it
    failed quickly on local files; until then the future holds the same error, and its `retry_after` says how many
    seconds are left.
    """
    return _join_load(settings, try_again=False).outcome()


def wait_for_model(settings: ModelSettings, *, timeout: float | None = None) -> CrossEncoder:
    """Wait for the shared load of a model; see `model_future`.

    Args:
        settings: Settings from `check_settings`.
        timeout: Seconds, counted from the beginning of the load, so that while a load hangs only its first callers
            wait for it. `None` for no limit.

    Raises:
        RerankTimeoutError: If the model is not loaded in time; the load goes on.
        CrossRerankError: The load's own error.
    """
    load = _join_load(settings, try_again=False)
    try:
        return load.outcome().result(load.patience(timeout))
    except FutureTimeoutError as err:
        if not load.future.done():
            raise load.late(timeout) from err
    # The load has ended since, or its own error is a TimeoutError.
    return load.outcome().result()


async def await_model(
    settings: ModelSettings,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - the argument of `wait_for_model`
) -> CrossEncoder:
    """Wait for the shared load of a model without blocking the event loop or its executor; see `wait_for_model`."""
    load = _join_load(settings, try_again=False)
    outcome = load.outcome()
    if outcome.done():
        return outcome.result()
    try:
        # Shielded by running already: cancelling the awaiting task does not cancel the load.
        return await asyncio.wait_for(asyncio.wrap_future(outcome), load.patience(timeout))
    except TimeoutError as err:
        if not load.future.done():
            raise load.late(timeout) from err
    return load.outcome().result()


class _Load:
    """One attempt to load a model, shared by all who ask for it meanwhile.

    Attributes:
        future: The model, or the error.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self.future: Future[CrossEncoder] = Future()
        # A running future refuses to be cancelled, so that nobody can take the model from the others.
        self.future.set_running_or_notify_cancel()
        self._settings = settings
        self._began = time.monotonic()
        self._ended = self._began
        self._mark = ProcessMark()
        context = contextvars.copy_context()
        start_thread(lambda: context.run(self._run), name=f"crossrerank-load-{show_url(settings.model)}")

    def _run(self) -> None:
        try:
            model = _load(self._settings)
        except BaseException as err:  # noqa: BLE001 - the callers get it, whatever it is
            self._ended = time.monotonic()
            self.future.set_exception(err)
        else:
            self.future.set_result(model)

    @property
    def is_orphaned(self) -> bool:
        """Whether this process is a fork, made while another process was loading."""
        return not self.future.done() and not self._mark.is_current

    @property
    def failed(self) -> bool:
        """Whether the load is over without a model."""
        return self.future.done() and self.future.exception() is not None

    @property
    def retry_after(self) -> float:
        """Seconds until a failed load may be tried again."""
        took = self._ended - self._began
        is_cheap = not is_hub_name(self._settings.model) and took < _QUICK_FAILURE_SECONDS
        if is_cheap or isinstance(self.future.exception(), InvalidInputError | MissingExtraError):
            return 0.0
        return max(0.0, self._ended + RETRY_SECONDS - time.monotonic())

    def outcome(self) -> Future[CrossEncoder]:
        """Return the future, with an error of the caller's own if it has failed."""
        if not self.failed:
            return self.future
        err = self.future.exception()
        if isinstance(err, CrossRerankError):
            # A shared error would gather the tracebacks of all its callers.
            shared, err = err, copy.copy(err)
            err.__cause__ = shared.__cause__
        if isinstance(err, ModelError):
            err.retry_after = self.retry_after
        own: Future[CrossEncoder] = Future()
        own.set_exception(err)
        return own

    def patience(self, timeout: float | None) -> float | None:
        """Return the seconds that a caller with this timeout still waits."""
        return None if timeout is None else max(0.0, self._began + timeout - time.monotonic())

    def late(self, timeout: float | None) -> RerankTimeoutError:
        """Make the error for a caller whose time is over."""
        spent = time.monotonic() - self._began
        return RerankTimeoutError(
            f"the model {show_url(self._settings.model)!r} has been loading for {spent:.1f} s, and "
            f"timeout={timeout}; call warm_up() before the first query, or allow more time. The load goes on."
        )


# One entry for each model and settings that were asked for.
_LOADS: Guarded[dict[_Key, _Load]] = Guarded(dict)


def _join_load(settings: ModelSettings, *, try_again: bool) -> _Load:
    place = os.path.realpath(settings.model) if os.path.isdir(settings.model) else settings.model
    key = (settings, place)
    with _LOADS as loads:
        load = loads.get(key)
        over = load is not None and load.failed and (try_again or load.retry_after == 0)
        if load is None or load.is_orphaned or over:
            load = loads[key] = _Load(settings)
        return load


def _load(settings: ModelSettings) -> CrossEncoder:
    """Find the model's files, choose the backend, and make the cross-encoder."""
    backend = settings.known_backend
    if backend == "remote":
        return _connect(settings)
    if backend == "torch":
        check_extra("torch", needed_for=f"the model {settings.model!r} on the torch backend")
    where: dict[str, Any] = {
        "revision": settings.revision,
        "local_files_only": settings.local_files_only,
        "subfolder": settings.subfolder,
        "token": settings.token,
    }
    source = find_source(settings.model, **where, file_name=settings.file_name, weights=backend != "torch")
    if backend == "auto":
        # Without torch, the onnx backend's own error names both ways out.
        has_graph = source.prefers_graph and not source.has_chat_template
        backend = "onnx" if has_graph or missing_modules("torch") else "torch"
        settings.check_backend(backend)
    with native_work():
        model = _load_weights(settings, source, where) if backend == "torch" else _load_graph(settings, source, backend)
    model.long_query = settings.long_query
    return model


def _load_graph(settings: ModelSettings, source: ModelSource, backend: Backend) -> CrossEncoder:
    arguments: dict[str, Any] = {
        "activation": settings.activation,
        "max_length": settings.max_length,
        "max_batch_tokens": settings.max_batch_tokens,
        "num_threads": settings.num_threads,
        "precision": settings.precision or "fp32",
    }
    if backend == "openvino":
        check_extra("openvino", needed_for=f"the model {settings.model!r} on the openvino backend")
        from langchain_crossrerank.cross_encoders.backends.openvino import OpenVinoCrossEncoder

        return OpenVinoCrossEncoder(source, **arguments)
    from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder

    return OnnxCrossEncoder(source, **arguments, device=settings.device, passage_cache=settings.passage_cache)


def _load_weights(settings: ModelSettings, source: ModelSource, where: dict[str, Any]) -> CrossEncoder:
    arguments: dict[str, Any] = {
        "activation": settings.activation,
        "max_length": settings.max_length,
        "max_batch_tokens": settings.max_batch_tokens or DEFAULT_MAX_BATCH_TOKENS,
        "precision": settings.precision,
        "device": settings.device,
        "instruction": settings.instruction,
        "trust_remote_code": settings.trust_remote_code,
    }
    # The commit that was looked at, in case the branch has moved since.
    where = {**where, "revision": source.commit or settings.revision}
    weights = find_source(settings.model, **where, safetensors=True, code=settings.trust_remote_code)
    if source.is_causal:
        from langchain_crossrerank.cross_encoders.backends.causal import load_causal

        return load_causal(weights, **arguments)
    from langchain_crossrerank.cross_encoders.backends.torch import TorchCrossEncoder

    return TorchCrossEncoder(weights, **arguments)


def _connect(settings: ModelSettings) -> CrossEncoder:
    check_extra("remote", needed_for=f"the rerank server at {show_url(settings.model)!r}")
    from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder

    arguments = {"model" if name == "model_name" else name: value for name, value in settings.server.arguments.items()}
    return RemoteCrossEncoder(
        settings.model, activation=settings.activation, max_length=settings.max_length, **arguments
    )
