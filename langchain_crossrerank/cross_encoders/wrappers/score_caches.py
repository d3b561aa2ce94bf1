"""Where scores can be kept: the interface, memory, and any LangChain byte store."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from cachetools import LRUCache
from langchain_core.stores import BaseStore

from langchain_crossrerank._process import Guarded
from langchain_crossrerank.checks import check_whole_numbers

_ENTRY_BYTES = 330
"""What an entry takes in memory beyond the bytes of its value: the key, and the entry's places in an `LRUCache`."""

_logger = logging.getLogger(__name__)


class ScoreCache(ABC):
    """Keeps small values by key.

    Losing a value only costs time, so an implementation reports its failures in the log and never raises them.
    """

    @abstractmethod
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are known."""

    @abstractmethod
    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, as far as possible."""

    def __deepcopy__(self, memo: dict[int, Any]) -> ScoreCache:
        # What is cached is valid for every copy of a model, so they share it.
        return self


class MemoryScoreCache(ScoreCache):
    """Keeps scores in memory and drops the least recently used first.

    A forked child starts with the parent's scores. A pickled copy starts empty.

    Args:
        max_bytes: Bytes of memory to use at most, Python's own overhead included by estimate.

    Raises:
        InvalidInputError: If `max_bytes` is not positive.
    """

    def __init__(self, max_bytes: int = 64 * 1024 * 1024) -> None:
        check_whole_numbers(max_bytes=(max_bytes, 1))
        self.max_bytes = max_bytes
        self._values: Guarded[LRUCache[bytes, bytes]] = Guarded(self._no_values)

    @property
    def size_bytes(self) -> int:
        """Estimated bytes in use."""
        with self._values as values:
            return int(values.currsize)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are known, and count them as used."""
        with self._values as values:
            return {key: values[key] for key in keys if key in values}

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values; the least recently used make way for them."""
        with self._values as kept:
            for key, value in values.items():
                if entry_bytes(value) <= self.max_bytes:
                    kept[key] = value
                else:
                    kept.pop(key, None)

    def _no_values(self) -> LRUCache[bytes, bytes]:
        return LRUCache(self.max_bytes, getsizeof=entry_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.max_bytes,)


def entry_bytes(value: bytes) -> int:
    """Return the estimated bytes of memory that an entry takes, its key included."""
    return len(value) + _ENTRY_BYTES


class StoreScoreCache(ScoreCache):
    """Keeps scores in any LangChain byte store, for example `LocalFileStore` or `RedisStore`.

    Args:
        store: The store; keys are hexadecimal text after `prefix`.
        prefix: What keys start with.
    """

    def __init__(self, store: BaseStore[str, bytes], *, prefix: str = "crossrerank-") -> None:
        self._store = store
        self._prefix = prefix
        self._warned = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self._store).__name__}, prefix={self._prefix!r})"

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are known; none if the store fails."""
        try:
            values = self._store.mget([self._prefix + key.hex() for key in keys])
            return {key: value for key, value in zip(keys, values, strict=True) if value is not None}
        except Exception as err:  # noqa: BLE001 - stores are other people's code over any medium
            self._warn(err)
            return {}

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, unless the store fails."""
        try:
            self._store.mset([(self._prefix + key.hex(), value) for key, value in values.items()])
        except Exception as err:  # noqa: BLE001 - as above
            self._warn(err)

    def _warn(self, err: Exception) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(
                "The score cache in %s failed (%s: %s), so scores are computed without it. Further failures are not "
                "logged.",
                type(self._store).__name__,
                type(err).__name__,
                err,
            )
