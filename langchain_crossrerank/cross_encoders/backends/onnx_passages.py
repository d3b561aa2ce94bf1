"""Runs a graph in which query and passage meet late, and keeps what it has read of each text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cachetools import LRUCache

from langchain_crossrerank._process import Guarded
from langchain_crossrerank.cross_encoders.backends.onnx_inputs import pad_rows
from langchain_crossrerank.cross_encoders.backends.onnx_session import GraphInput, ProcessSession
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.pairs import plan_batches
from langchain_crossrerank.onnx_graphs.tensor_names import QUERY_TERMS

READING_TOKENS = 4096
"""Maximum tokens, padding included, of texts that are read in one forward pass."""

_ENTRY_BYTES = 400


@dataclass(frozen=True)
class _States:
    """What is kept of one text, in float32.

    Attributes:
        tokens: The states of its tokens, arrays of shape (tokens, width).
        terms: A query's terms, shape (terms, width), if the graph has any.
    """

    tokens: tuple[Any, ...]
    terms: Any = None

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (*self.tokens, *([] if self.terms is None else [self.terms])))


@dataclass(frozen=True)
class _Text:
    """The tokens of one text of a pair.

    Attributes:
        content: Token ids, int32, as bytes.
        segment: 0 for a query, 1 for a passage.
    """

    content: bytes
    segment: int

    @property
    def tokens(self) -> int:
        return len(self.content) // 4

    @property
    def row(self) -> tuple[Any, int]:
        return np.frombuffer(self.content, dtype=np.int32), self.segment


class PassageSession:
    """Scores pairs from the states of their texts, which are computed once and kept in memory.

    Below the layer in which query and passage meet, a text's states depend on its own tokens alone (as in PreTTR,
    MacAvaney et al., SIGIR 2020). They are kept by token ids, the least recently used ones being dropped, so a passage
    that is cut at another place is another text. Has the interface of `ProcessSession`.

    Args:
        open_reading: Opens the graph that computes states.
        open_scoring: Opens the graph that computes logits from tokens, states and terms.
        open_terms: Opens the graph that computes a query's terms from tokens and states, if there is one.
        states: Names of the states.
        source: The model.
        max_bytes: Bytes of states that are kept.

    Attributes:
        found: Passages whose states were kept, each counted once a batch; a query's are kept too, and not counted.
        read: Passages that were read.
    """

    def __init__(
        self,
        open_reading: Callable[[], Any],
        open_scoring: Callable[[], Any],
        *,
        open_terms: Callable[[], Any] | None,
        states: Sequence[str],
        source: ModelSource,
        max_bytes: int,
    ) -> None:
        self._source = source
        self._reading = ProcessSession(open_reading)
        self._terms = None if open_terms is None else ProcessSession(open_terms, states=states)
        self._scoring = ProcessSession(open_scoring, states=(*states, QUERY_TERMS))
        self._names = tuple(states)
        self._max_bytes = max_bytes
        self._kept = Guarded(self._nothing_kept)
        self.found = 0
        self.read = 0

    @property
    def inputs(self) -> Mapping[str, GraphInput]:
        """The inputs that come from tokens."""
        return {name: entry for name, entry in self._scoring.inputs.items() if name not in (*self._names, QUERY_TERMS)}

    def run(self, features: Mapping[str, Any]) -> Any:
        """Return the logits of a batch.

        Args:
            features: Arrays of shape (pairs, tokens) by name: `input_ids`, `attention_mask` and `token_type_ids`, the
                query's tokens of a row before the passage's.
        """
        ids, types = features["input_ids"].astype(np.int32), features["token_type_ids"]
        present = features["attention_mask"].astype(bool)
        ends = present.sum(axis=1)
        splits = (present & (types == 0)).sum(axis=1)
        rows = [
            (_Text(ids[row, :split].tobytes(), 0), _Text(ids[row, split:end].tobytes(), 1))
            for row, (split, end) in enumerate(zip(splits, ends, strict=True))
        ]
        states = self._states_of(dict.fromkeys(text for row in rows for text in row))
        widths = [array.shape[1] for array in next(iter(states.values())).tokens]
        joined = [np.zeros((*ids.shape, width), dtype=np.float32) for width in widths]
        for row, (query, passage) in enumerate(rows):
            for array, asked, told in zip(joined, states[query].tokens, states[passage].tokens, strict=True):
                array[row, : splits[row]] = asked
                array[row, splits[row] : ends[row]] = told
        inputs = {**features, **dict(zip(self._names, joined, strict=True))}
        if self._terms is not None:
            inputs[QUERY_TERMS] = np.stack([states[query].terms for query, _ in rows])
        return self._scoring.run(inputs)

    def _states_of(self, texts: Collection[_Text]) -> dict[_Text, _States]:
        with self._kept as kept:
            states = {text: kept[text] for text in texts if text in kept}
        missing = [text for text in texts if text not in states]
        self.found += sum(text.segment for text in states)
        self.read += sum(text.segment for text in missing)
        for batch in plan_batches(missing, READING_TOKENS):
            fresh = dict(zip(batch, self._read(batch), strict=True))
            states.update(fresh)
            with self._kept as kept:
                kept.update((text, value) for text, value in fresh.items() if _entry_bytes(value) <= kept.maxsize)
        return states

    def _read(self, texts: Sequence[_Text]) -> list[_States]:
        outputs = self._reading.run_all(pad_rows([text.row for text in texts], self._source))
        # Copies, because a view of a row would keep the whole batch in memory.
        tokens = [tuple(output[row, : text.tokens].copy() for output in outputs) for row, text in enumerate(texts)]
        return [_States(found, self._terms_of(text, found)) for text, found in zip(texts, tokens, strict=True)]

    def _terms_of(self, text: _Text, tokens: Sequence[Any]) -> Any:
        if self._terms is None or text.segment != 0:
            return None
        states = {name: array[None] for name, array in zip(self._names, tokens, strict=True)}
        return self._terms.run({**pad_rows([text.row], self._source), **states})[0]

    def _nothing_kept(self) -> LRUCache[_Text, _States]:
        return LRUCache(self._max_bytes, getsizeof=_entry_bytes)


def _entry_bytes(states: _States) -> int:
    return _ENTRY_BYTES + states.nbytes
