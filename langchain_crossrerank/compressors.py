"""Document compressors that stay document compressors whatever LangChain's Runnable methods make of them.

`with_config`, `with_retry`, `with_fallbacks`, `configurable_fields` and their like wrap a Runnable in a class that is
not a document compressor, so that no retriever takes the result. The classes here are the same wrappers, and document
compressors as well.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun, Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.utils import AnyConfigurableField, ConfigurableField
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError


class RerankInput(TypedDict):
    """Input of a reranker used as a Runnable."""

    query: str
    documents: Iterable[Document]


class RunnableCompressor(BaseDocumentCompressor, RunnableSerializable[RerankInput, list[Document]]):
    """Base of document compressors that are Runnables from a query and documents to documents."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Rerank documents for a query; see `invoke`."""
        return self.invoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Rerank documents for a query without blocking the event loop; see `invoke`."""
        return await self.ainvoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    def bind(self, **kwargs: Any) -> Runnable[RerankInput, list[Document]]:
        """Bind settings, such as `top_n`, to every call."""
        return _as_compressor(super().bind(**kwargs))

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Runnable[RerankInput, list[Document]]:
        """Bind a run configuration."""
        return _as_compressor(super().with_config(config, **kwargs))

    def with_listeners(self, **kwargs: Any) -> Runnable[RerankInput, list[Document]]:
        """Bind functions that are called when a run starts, ends or fails."""
        return _as_compressor(super().with_listeners(**kwargs))

    def with_alisteners(self, **kwargs: Any) -> Runnable[RerankInput, list[Document]]:
        """Bind asynchronous functions that are called when a run starts, ends or fails."""
        return _as_compressor(super().with_alisteners(**kwargs))

    def with_types(
        self,
        input_type: type[RerankInput] | BaseModel | None = None,
        output_type: type[list[Document]] | BaseModel | None = None,
    ) -> Runnable[RerankInput, list[Document]]:
        """Bind input and output types."""
        return _as_compressor(super().with_types(input_type=input_type, output_type=output_type))  # type: ignore[arg-type]

    def with_retry(self, **kwargs: Any) -> Runnable[RerankInput, list[Document]]:
        """Call again when it raises."""
        return _as_compressor(super().with_retry(**kwargs))

    def with_fallbacks(  # type: ignore[override]
        self,
        fallbacks: Sequence[Runnable[RerankInput, list[Document]] | BaseDocumentCompressor],
        **kwargs: Any,
    ) -> RunnableCompressor:
        """Add rerankers to try in order when this one raises.

        Args:
            fallbacks: Rerankers, or any other document compressors.
            **kwargs: Arguments of LangChain's `with_fallbacks`, for example `exceptions_to_handle`.
        """
        others = [as_runnable_compressor(fallback) for fallback in fallbacks]
        return _as_compressor(super().with_fallbacks(others, **kwargs))

    def configurable_fields(self, **kwargs: AnyConfigurableField) -> RunnableSerializable[RerankInput, list[Document]]:
        """Let the run configuration set fields."""
        wrapped = super().configurable_fields(**kwargs)
        return cast("RunnableSerializable[RerankInput, list[Document]]", _as_compressor(wrapped))

    def configurable_alternatives(
        self, which: ConfigurableField, *, default_key: str = "default", prefix_keys: bool = False, **kwargs: Any
    ) -> RunnableSerializable[RerankInput, list[Document]]:
        """Let the run configuration choose between this reranker and others."""
        alternatives = {
            key: as_runnable_compressor(value) if isinstance(value, BaseDocumentCompressor) else value
            for key, value in kwargs.items()
        }
        wrapped = super().configurable_alternatives(
            which, default_key=default_key, prefix_keys=prefix_keys, **alternatives
        )
        return cast("RunnableSerializable[RerankInput, list[Document]]", _as_compressor(wrapped))


class AdaptedCompressor(RunnableCompressor):
    """Any document compressor as a Runnable, and any Runnable as a document compressor.

    What it wraps decides what the documents' metadata contain.
    """

    adapted: BaseDocumentCompressor | Runnable[Any, Any]
    """The compressor or Runnable."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def invoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Compress `input["documents"]` for `input["query"]`.

        Args:
            input: The query and the documents.
            config: LangChain run configuration.
            **kwargs: Settings for this call.

        Raises:
            InvalidInputError: If the compressor has no such setting.
        """
        if isinstance(self.adapted, Runnable):
            return list(self.adapted.invoke(input, config, **kwargs))
        return self._call_with_config(self._compress, input, config, **kwargs)

    async def ainvoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Compress without blocking the event loop; see `invoke`."""
        if isinstance(self.adapted, Runnable):
            return list(await self.adapted.ainvoke(input, config, **kwargs))
        return await self._acall_with_config(self._acompress, input, config, **kwargs)

    def _compress(self, input: RerankInput, run_manager: CallbackManagerForChainRun, **settings: Any) -> list[Document]:
        compressor = with_settings(cast("BaseDocumentCompressor", self.adapted), settings)
        return list(compressor.compress_documents(list(input["documents"]), input["query"], run_manager.get_child()))

    async def _acompress(
        self, input: RerankInput, run_manager: AsyncCallbackManagerForChainRun, **settings: Any
    ) -> list[Document]:
        compressor = with_settings(cast("BaseDocumentCompressor", self.adapted), settings)
        documents = list(input["documents"])
        return list(await compressor.acompress_documents(documents, input["query"], run_manager.get_child()))


def as_runnable_compressor(
    compressor: BaseDocumentCompressor | Runnable[Any, Any],
) -> RunnableCompressor:
    """Return a compressor or a Runnable as both; unchanged if it is both already."""
    if isinstance(compressor, RunnableCompressor):
        return compressor
    return AdaptedCompressor(adapted=compressor)


def with_settings(compressor: BaseDocumentCompressor, settings: Mapping[str, Any]) -> BaseDocumentCompressor:
    """Return a compressor with other settings for one call.

    In a `DocumentCompressorPipeline` the settings go to the rerankers of this package.

    Args:
        compressor: Any document compressor; not changed.
        settings: Values of its fields by name.

    Raises:
        InvalidInputError: If it has no such field.
    """
    if not settings:
        return compressor
    if isinstance(compressor, RunnableCompressor):
        return cast("BaseDocumentCompressor", compressor.bind(**settings))
    parts = getattr(compressor, "transformers", None)
    if isinstance(parts, list) and any(isinstance(part, RunnableCompressor) for part in parts):
        changed = [with_settings(part, settings) if isinstance(part, RunnableCompressor) else part for part in parts]
        return compressor.model_copy(update={"transformers": changed})
    for name, value in settings.items():
        if name not in type(compressor).model_fields:
            raise InvalidInputError(
                f"{name}={shorten(value)} cannot be set on {type(compressor).__name__}, which has no such field; "
                "leave it out, or use CrossEncoderReranker."
            )
    return compressor.model_copy(update=dict(settings))


def _as_compressor(wrapped: Runnable[Any, Any]) -> RunnableCompressor:
    """Return one of LangChain's wrappers as one that is a document compressor; unchanged if it is already."""
    if isinstance(wrapped, RunnableCompressor):
        return wrapped
    fields = cast("BaseModel", wrapped)
    return _kind_of(type(wrapped)).model_construct(_fields_set=set(fields.model_fields_set), **dict(fields))


@cache
def _kind_of(wrapper: type[Runnable[Any, Any]]) -> type[RunnableCompressor]:
    """Return the class of one of LangChain's wrappers that are document compressors.

    It is built at its first use, because importing the package would take noticeably longer with all of them.
    """
    namespace = {"__module__": __name__, "__doc__": wrapper.__doc__, "__reduce__": _reduce}
    name = f"{wrapper.__name__.removeprefix('Runnable')}Compressor"
    kind = types.new_class(name, (RunnableCompressor, wrapper), exec_body=lambda body: body.update(namespace))
    return cast("type[RunnableCompressor]", kind)


def _reduce(wrapped: RunnableCompressor) -> tuple[Any, ...]:
    # The class has no name in this module, so LangChain's is what is pickled.
    return _restore, (type(wrapped).__bases__[1], wrapped.__getstate__())


def _restore(wrapper: type[Runnable[Any, Any]], state: dict[Any, Any]) -> RunnableCompressor:
    kind = _kind_of(wrapper)
    restored = kind.__new__(kind)
    restored.__setstate__(state)
    return restored
