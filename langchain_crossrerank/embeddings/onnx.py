"""Embeddings computed by onnxruntime and tokenizers, without torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from langchain_core.embeddings import Embeddings

from langchain_crossrerank._machine import machine_key, usable_cores
from langchain_crossrerank.checks import shorten
from langchain_crossrerank.cross_encoders.backends.onnx_devices import choose_device, providers
from langchain_crossrerank.cross_encoders.backends.onnx_inputs import pad_rows
from langchain_crossrerank.cross_encoders.backends.onnx_session import ProcessSession
from langchain_crossrerank.cross_encoders.calibration import (
    DEFAULT_BATCH_TOKENS,
    WORTH_CALIBRATING,
    faster_precision,
    known_batch_tokens,
    measure_batch_tokens,
)
from langchain_crossrerank.cross_encoders.fingerprints import ReadFiles, fingerprint
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.pairs import encodable, plan_batches
from langchain_crossrerank.cross_encoders.scheduling import Steps, StepScheduler, drain
from langchain_crossrerank.cross_encoders.tokenizer_files import load_tokenizer
from langchain_crossrerank.cross_encoders.truncation import beginning
from langchain_crossrerank.embeddings.settings import DOCUMENT_PROMPTS, QUERY_PROMPTS, EmbeddingPrecision
from langchain_crossrerank.embeddings.vectors import read_text_vectors
from langchain_crossrerank.errors import (
    InvalidInputError,
    ModelNotFoundError,
    ScoringError,
    UnsupportedModelError,
)
from langchain_crossrerank.onnx_graphs.cache import (
    GraphPrecision,
    PreparedGraph,
    own_graph,
    prepare_graph,
    trusted_graph,
)
from langchain_crossrerank.onnx_graphs.head_layers import Layer, Pool
from langchain_crossrerank.onnx_graphs.sessions import Graph, open_session

MANY_TEXTS = 256
"""The most texts of one call for which no progress bar is shown, even if one is asked for."""

_PLANNED_TEXTS = 2048
_ENCODED_TEXTS = 128
_TEST_TEXT = "a text of the usual length " * 20

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _EncodedText:
    """One text prepared for the graph: its place in the call, and its token ids and segments."""

    place: int
    tokens: int
    features: tuple[Any, Any]
    truncated: bool


class OnnxEmbeddings(Embeddings):
    """A bi-encoder saved by sentence-transformers, computed by onnxruntime.

    The vectors are those that sentence-transformers computes for the same files. Work is done in batches of texts of
    similar length within a token budget, so that memory does not grow with the number of texts beyond that of their
    vectors. Equal texts are embedded once.

    Args:
        source: Where the model's files are.
        max_length: Maximum tokens of a text that are read, as far as the model has positions; `None` for what the model
            says.
        max_batch_tokens: Maximum tokens, padding included, in one forward pass; `None` for what was measured to be
            fastest on this machine, or 512 before anything was measured.
        num_threads: Threads of one forward pass; `None` for the physical cores that this process may use.
        precision: See `EmbeddingPrecision`.
        device: `"cpu"`, or `"cuda"` if onnxruntime-gpu is installed; `None` for a GPU if it can be used.
        query_prompt: Text put before a query; `None` for the prompt that the model has saved as `query`.
        document_prompt: Text put before a document; `None` for the one saved as `document`, `passage` or `corpus`.
        show_progress: Whether to show a progress bar on standard error for more than `MANY_TEXTS` texts.

    Raises:
        InvalidInputError: If this onnxruntime cannot use the device.
        ModelNotFoundError: If the ONNX graph, the config or the tokenizer is missing.
        UnsupportedModelError: If the graph cannot be loaded, or a module that follows it is not supported.
    """

    def __init__(
        self,
        source: ModelSource,
        *,
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
        num_threads: int | None = None,
        precision: EmbeddingPrecision = "fp32",
        device: str | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        show_progress: bool = False,
    ) -> None:
        self._source = source
        self._settings: dict[str, Any] = {
            "max_length": max_length,
            "max_batch_tokens": max_batch_tokens,
            "num_threads": num_threads,
            "precision": precision,
            "device": device,
            "query_prompt": query_prompt,
            "document_prompt": document_prompt,
        }
        self.model_name = source.name
        self.show_progress = show_progress
        self.query_prompt = source.saved_prompt(*QUERY_PROMPTS) if query_prompt is None else query_prompt
        self.document_prompt = source.saved_prompt(*DOCUMENT_PROMPTS) if document_prompt is None else document_prompt
        own_files = [self.onnx_file] if source.is_bundled else []
        self._files = ReadFiles(source.folder, [*source.description_files, *own_files])
        self._rest = read_text_vectors(source)
        self._device = choose_device(device)
        self._num_threads = num_threads or usable_cores()
        # Where only the first token is read, the rest of the last layer need not be computed.
        self._head: tuple[Layer, ...] = (Pool("cls"),) if self._rest.reads_first_token else ()
        self._graph = self._prepare("fp32")
        self._session = ProcessSession(self._open_session)
        self._shape = self._session.inputs["input_ids"].shape
        self.max_length = min(source.usable_length(max_length), self._shape[1] or source.usable_length(max_length))
        self._cuts_beginning = source.tokenizer_settings.truncation_side == "left"
        self._tokenizer = load_tokenizer(source)
        self._tokenizer.enable_truncation(self.max_length, direction="left" if self._cuts_beginning else "right")
        self._warned_truncated = False
        if precision != "fp32":
            self._choose_precision(measure=precision == "auto")
        settled = max_batch_tokens or known_batch_tokens(self._machine_key)
        self.max_batch_tokens = settled or DEFAULT_BATCH_TOKENS
        self._may_calibrate = settled is None

    @property
    def precision(self) -> GraphPrecision:
        """What the graph computes in; it may differ from what was asked for."""
        return self._graph.precision

    @property
    def fingerprint(self) -> str:
        """A text that differs whenever the same text could get another vector; see `fingerprints`."""
        return fingerprint(
            "onnx embeddings",
            f"{self._files.digest}-{self._graph.content_hash}",
            max_length=self.max_length,
            precision=self.precision,
            query_prompt=self.query_prompt,
            document_prompt=self.document_prompt,
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents.

        Args:
            texts: The documents; any iterable of strings.

        Returns:
            One vector for each text, in the same order.

        Raises:
            InvalidInputError: If a text is not a string.
            ScoringError: If the model fails, or a vector is not finite.
        """
        return drain(self._steps(texts, self.document_prompt))

    def embed_query(self, text: str) -> list[float]:
        """Embed a query; see `embed_documents`."""
        return drain(self._steps([text], self.query_prompt))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents without blocking the event loop; see `embed_documents`.

        The work runs on a thread of its own and takes turns, batch by batch, with that of other calls. Cancelling the
        awaiting task stops it.
        """
        return await self.scheduler.run(self._steps(texts, self.document_prompt))

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a query without blocking the event loop; see `aembed_documents`."""
        return (await self.scheduler.run(self._steps([text], self.query_prompt)))[0]

    @cached_property
    def scheduler(self) -> StepScheduler:
        """Two workers, so that one call is tokenised while another one's forward pass has its turn."""
        return StepScheduler(name=self.model_name, workers=2)

    @cached_property
    def onnx_file(self) -> Path:
        """The model's own graph."""
        path = self._source.onnx_file
        if path is None:
            raise ModelNotFoundError(
                f"the embeddings {self.model_name!r} have no ONNX graph (model.onnx or onnx/model.onnx in "
                f'{self._source.folder}); run them on torch: `pip install "langchain-crossrerank[torch]"` and '
                'backend="torch".'
            )
        self._source.warn_if_rough(path)
        return path

    def _prepare(self, precision: GraphPrecision) -> PreparedGraph:
        if precision == "fp32" and self._source.is_bundled:
            return trusted_graph(self.onnx_file)
        if self._head:
            try:
                return prepare_graph(self.onnx_file, precision, self._head)
            except UnsupportedModelError as err:
                _logger.info("The last layer of %s is computed for all tokens: %s", self.onnx_file, err)
                self._head = ()
        return prepare_graph(self.onnx_file, precision)

    def _open_session(self) -> Any:
        try:
            session = self._open_graph(self._graph.graph)
        except Exception as err:  # onnxruntime's errors have no common public class
            if not self._graph.rewritten:
                raise UnsupportedModelError(f"onnxruntime cannot load {self.onnx_file}: {err}") from err
            _logger.warning(
                "The prepared graph of %s cannot be opened (%s: %s); the model's own graph is used.",
                self.onnx_file,
                type(err).__name__,
                err,
            )
            self._graph = own_graph(self.onnx_file, self._head)
            return self._open_session()
        output = session.get_outputs()[0]
        if len(output.shape) == 2 and not self._head and not self._rest.allows_pooled:
            raise UnsupportedModelError(
                f"the graph {self.onnx_file} returns {output.name!r}, one vector for each text, so {self._rest} "
                "cannot be applied to the vectors of tokens; export the model with an output for each token."
            )
        return session

    def _open_graph(self, graph: Graph) -> Any:
        options = onnxruntime.SessionOptions()
        if self._num_threads is not None:
            options.intra_op_num_threads = self._num_threads
        # onnxruntime would keep a pattern for every shape of a batch, and there are many.
        options.enable_mem_pattern = False
        return open_session(graph, options, providers=providers(self._device))

    def _choose_precision(self, *, measure: bool) -> None:
        """Run the graph in eight bits, with `measure` only if that is clearly faster on this machine."""
        quantised = self._prepare("int8")
        if quantised.precision != "int8":
            return
        exact, self._graph = self._graph, quantised
        try:
            session = ProcessSession(self._open_session)
        except UnsupportedModelError as err:
            _logger.warning("The quantised graph of %s cannot be opened (%s).", self.model_name, err)
            self._graph = exact
            return
        features = self._features(self._encode([_TEST_TEXT] * (self._shape[0] or 4), 0, ""))
        runs: dict[GraphPrecision, Callable[[], object]] = {
            "fp32": partial(self._session.run, features),
            "int8": partial(session.run, features),
        }
        if measure and faster_precision(runs, self._machine_key) != "int8":
            self._graph = exact
        else:
            self._session = session

    @property
    def _machine_key(self) -> str:
        size = self.onnx_file.stat().st_size
        return machine_key("embeddings", self.model_name, size, self._num_threads, self._device, self.precision)

    def _steps(self, texts: Iterable[str], prompt: str) -> Steps[list[list[float]]]:
        """Embed texts in small steps, each of which yields the share of the work done."""
        given = _check_texts(texts)
        unique = list(dict.fromkeys(given))
        vectors: Any = np.empty((0, 0), np.float32)
        with _progress_bar(len(unique), self.show_progress) as advance:
            # Part by part, so that the tokens of many thousands of texts are not all in memory at once.
            for start in range(0, len(unique), _PLANNED_TEXTS):
                part = unique[start : start + _PLANNED_TEXTS]
                encoded: list[_EncodedText] = []
                for first in range(0, len(part), _ENCODED_TEXTS):
                    encoded += self._encode(part[first : first + _ENCODED_TEXTS], start + first, prompt)
                    yield start / len(unique)
                self._warn_truncated(encoded)
                done = start
                for batch in self._plan(encoded):
                    made = self._embed_batch(batch, prompt)
                    self._check_finite(made, [unique[item.place] for item in batch], given)
                    if not vectors.size:
                        vectors = np.empty((len(unique), made.shape[1]), np.float32)
                    vectors[[item.place for item in batch]] = made
                    done += len(batch)
                    advance(len(batch))
                    yield done / len(unique)
        places = {text: place for place, text in enumerate(unique)}
        found: list[list[float]] = vectors[[places[text] for text in given]].tolist()
        return found

    def _encode(self, texts: Sequence[str], first_place: int, prompt: str) -> list[_EncodedText]:
        read = [prompt + text for text in texts]
        if not self._cuts_beginning:
            read = [beginning(text, self.max_length) for text in read]
        return [
            _EncodedText(
                first_place + number,
                len(encoding.ids),
                (np.array(encoding.ids, dtype=np.int32), np.array(encoding.type_ids, dtype=np.int8)),
                truncated=bool(encoding.overflowing),
            )
            for number, encoding in enumerate(self._tokenizer.encode_batch(read))
        ]

    def _plan(self, encoded: Sequence[_EncodedText]) -> list[list[_EncodedText]]:
        if self._may_calibrate and sum(item.tokens for item in encoded) >= WORTH_CALIBRATING:
            self._may_calibrate = False
            typical = sorted(encoded, key=lambda item: item.tokens)[len(encoded) // 2]
            try:
                self.max_batch_tokens = measure_batch_tokens(
                    lambda texts: self._embed_batch([typical] * texts, ""), typical.tokens, self._machine_key
                )
            except ScoringError as err:
                # If the model fails, embedding itself says so and on which texts.
                _logger.info("The fastest batch size could not be measured: %s", err)
        return plan_batches(encoded, self.max_batch_tokens, self._shape[0])

    def _features(self, batch: Sequence[_EncodedText]) -> dict[str, Any]:
        return pad_rows([item.features for item in batch], self._source, self._shape)

    def _embed_batch(self, batch: Sequence[_EncodedText], prompt: str) -> Any:
        """Return the vectors of texts, float32 of shape (texts, dimension)."""
        features = self._features(batch)
        try:
            output = np.asarray(self._session.run(features), dtype=np.float32)[: len(batch)]
        except CancelledError:
            raise
        except Exception as err:
            raise ScoringError(
                f"the embeddings {self.model_name!r} failed on {len(batch)} texts of up to {batch[0].tokens} tokens "
                f"({type(err).__name__}: {err}); check the model."
            ) from err
        if output.ndim == 2:
            return self._rest.of_pooled(output)
        return self._rest.of_tokens(output, features["attention_mask"][: len(batch)], self._prompt_tokens(prompt))

    def _prompt_tokens(self, prompt: str) -> int:
        """Count the tokens at the beginning of a text that are those of the prompt, if these are left out."""
        if self._rest.include_prompt or not prompt:
            return 0
        encoding = self._tokenizer.encode(prompt)
        return len(encoding.ids) - encoding.special_tokens_mask[-1]

    def _check_finite(self, vectors: Any, texts: Sequence[str], given: Sequence[str]) -> None:
        wrong = {text for text, is_finite in zip(texts, np.isfinite(vectors).all(axis=1), strict=True) if not is_finite}
        if wrong:
            positions = [position for position, text in enumerate(given) if text in wrong]
            raise ScoringError(
                f"the embeddings {self.model_name!r} returned numbers that are not finite for the texts at positions "
                f"{shorten(positions)}; the model's files are damaged, or it needs more than fp32.",
                positions=positions,
            )

    def _warn_truncated(self, encoded: Sequence[_EncodedText]) -> None:
        cut = sum(item.truncated for item in encoded)
        if cut and not self._warned_truncated:
            self._warned_truncated = True
            _logger.warning(
                "%r reads %d tokens of a text; %d of %d texts were longer, and the rest of them was not read. Split "
                "the documents into smaller chunks. This warning is logged once.",
                self.model_name,
                self.max_length,
                cut,
                len(encoded),
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickled copy loads the files again where it is unpickled; a session cannot travel.
        return _rebuild, (type(self), self._source, {**self._settings, "show_progress": self.show_progress})

    def __copy__(self) -> Self:
        # For another `show_progress`; everything else is shared, also the workers, which are made on first use.
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), scheduler=self.scheduler)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A model never changes, and may hold gigabytes and threads: copies share it.
        return self

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.model_name!r}, graph={self._source.relative(self.onnx_file)!r}, "
            f"precision={self.precision!r}, max_length={self.max_length}, max_batch_tokens={self.max_batch_tokens}, "
            f"device={self._device!r}, num_threads={self._num_threads})"
        )


def _check_texts(texts: Iterable[str]) -> list[str]:
    """Return texts in a form that every tokenizer accepts.

    Raises:
        InvalidInputError: If one is not a string; the message names the first one.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise InvalidInputError(f"texts is {shorten(texts)}; pass a list of strings.")
    checked = list(texts)
    for position, text in enumerate(checked):
        if not isinstance(text, str):
            raise InvalidInputError(
                f"texts[{position}] is {shorten(text)} of type {type(text).__name__}; pass a string."
            )
    return [encodable(text) for text in checked]


@contextmanager
def _progress_bar(total: int, show: bool) -> Iterator[Callable[[int], object]]:
    if not show or total <= MANY_TEXTS:
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc="Embedding", unit="text", leave=False) as bar:
        yield bar.update


def _rebuild(kind: type[OnnxEmbeddings], source: ModelSource, settings: dict[str, Any]) -> OnnxEmbeddings:
    return kind(source, **settings)
