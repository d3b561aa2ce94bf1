"""Runs a graph in which query and passage meet late, and keeps what it has read of each text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from cachetools import LRUCache

from langchain_crossrerank._process import Guarded
from langchain_crossrerank.cross_encoders.backends.onnx_session import GraphInput, ProcessSession

READING_TOKENS = 4096
"""Maximum tokens, padding included, of texts that are read in one forward pass."""

_ENTRY_BYTES = 400

_States = tuple[Any, ...]
"""The states of one text's tokens: arrays of shape (tokens, width), float32."""


class PassageSession:
    """Scores pairs from the states of their texts, which are computed once and kept in memory.

    Below the layer in which query and passage meet, a text's states depend on its own tokens alone (as in PreTTR,
    MacAvaney et al., SIGIR 2020). They are kept by token ids, the least recently used ones being dropped, so a passage
    that is cut at another place is another text. Has the interface of `ProcessSession`.

    Args:
        open_reading: Opens the graph that computes states.
        open_scoring: Opens the graph that computes logits from tokens and states.
        states: Names of the states.
        max_bytes: Bytes of states that are kept.
    """

    def __init__(
        self,
        open_reading: Callable[[], Any],
        open_scoring: Callable[[], Any],
        states: Sequence[str],
        max_bytes: int,
    ) -> None:
        self._reading = ProcessSession(open_reading)
        self._scoring = ProcessSession(open_scoring, states=states)
        self._names = tuple(states)
        self._max_bytes = max_bytes
        self._kept = Guarded(self._nothing_kept)
        self.found = 0
        self.read = 0

    @property
    def inputs(self) -> Mapping[str, GraphInput]:
        """The inputs that come from tokens."""
        return {name: entry for name, entry in self._scoring.inputs.items() if name not in self._names}

    def run(self, features: Mapping[str, Any]) -> Any:
        """Return the logits of a batch.

        Args:
            features: Arrays of shape (pairs, tokens) by name: `input_ids`, `attention_mask` and `token_type_ids`, the
                query's tokens of a row before the passage's.
        """
        ids, types = features["input_ids"], features["token_type_ids"]
        present = features["attention_mask"].astype(bool)
        ends = present.sum(axis=1)
        splits = (present & (types == 0)).sum(axis=1)
        rows = [
            (_key(ids[row, :split], 0), _key(ids[row, split:end], 1))
            for row, (split, end) in enumerate(zip(splits, ends, strict=True))
        ]
        states = self._states_of(dict.fromkeys(key for row in rows for key in row))
        joined = {name: np.zeros((*ids.shape, width), dtype=np.float32) for name, width in self._widths(states)}
        for row, (query, passage) in enumerate(rows):
            for place, array in enumerate(joined.values()):
                array[row, : splits[row]] = states[query][place]
                array[row, splits[row] : ends[row]] = states[passage][place]
        return self._scoring.run({**features, **joined})

    def _widths(self, states: Mapping[bytes, _States]) -> Iterator[tuple[str, int]]:
        one = next(iter(states.values()))
        return ((name, array.shape[1]) for name, array in zip(self._names, one, strict=True))

    def _states_of(self, keys: Iterable[bytes]) -> dict[bytes, _States]:
        with self._kept as kept:
            states = {key: kept.get(key) for key in keys}
        missing = [key for key, value in states.items() if value is None]
        self.found += len(states) - len(missing)
        self.read += len(missing)
        for batch in _batches(missing):
            fresh = dict(zip(batch, self._read(batch), strict=True))
            states.update(fresh)
            with self._kept as kept:
                for key, value in fresh.items():
                    if _entry_bytes(value) <= kept.maxsize:
                        kept[key] = value
        return {key: value for key, value in states.items() if value is not None}

    def _read(self, keys: Sequence[bytes]) -> list[_States]:
        texts = [np.frombuffer(key[:-1], dtype=np.int32) for key in keys]
        ids = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for row, (key, text) in enumerate(zip(keys, texts, strict=True)):
            ids[row, : len(text)] = text
            types[row, : len(text)] = key[-1]
            mask[row, : len(text)] = 1
        outputs = self._reading.run_all({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
        # Copies, because a view of a row would keep the whole batch in memory.
        return [tuple(output[row, : len(text)].copy() for output in outputs) for row, text in enumerate(texts)]

    def _nothing_kept(self) -> LRUCache[bytes, _States]:
        return LRUCache(self._max_bytes, getsizeof=_entry_bytes)


def _key(ids: Any, segment: int) -> bytes:
    return bytes(ids.astype(np.int32).tobytes() + bytes([segment]))


def _entry_bytes(states: _States) -> int:
    return _ENTRY_BYTES + sum(int(array.nbytes) for array in states)


def _batches(keys: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield texts of similar length, as many as fit into a pass; the long ones first."""
    batch: list[bytes] = []
    for key in sorted(keys, key=len, reverse=True):
        longest = len(batch[0]) if batch else len(key)
        if batch and (len(batch) + 1) * (longest // 4) > READING_TOKENS:
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch
