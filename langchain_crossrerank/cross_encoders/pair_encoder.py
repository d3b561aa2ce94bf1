"""Makes token ids of (query, passage) pairs from parts that are tokenised once: the query, and each passage."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from cachetools import LRUCache
from tokenizers import Encoding, Tokenizer

from langchain_crossrerank._process import Guarded
from langchain_crossrerank.cross_encoders.languages import TokenSpan
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.truncation import Spans

PASSAGE_CACHE_BYTES = 16 * 1024 * 1024
"""What the token ids of passages seen before may take."""

_QUERIES_KEPT = 64
_LONGEST_QUERY_KEPT = 4096
"""Characters of the longest query whose tokens are kept; 64 such queries take some 30 MB."""

_ENTRY_BYTES = 400
"""What an entry takes in memory beyond its token ids: the key, and the entry's places in an `LRUCache`."""
_PROBES = (
    ("a query", "and a passage"),
    ("", "x"),
    ("[SEP] in the </s> query", " [CLS] in <s> the passage\n"),
    ("naïve café", "東京 🙂 ﬁ  שלום"),
    ("how long?", "word " * 600),
)


@dataclass(frozen=True)
class PairIds:
    """One pair's tokens.

    Attributes:
        ids: Token ids with the special tokens, int32.
        type_ids: Segment of each token, int8.
        truncated: Whether the passage was cut.
    """

    ids: Any
    type_ids: Any
    truncated: bool


class PairEncoder:
    """Encodes pairs exactly as the tokenizer does, tokenising each text once.

    What the tokenizer puts before, between and behind the two texts is read off an encoding of its own. If pairs put
    together that way ever differed from the tokenizer's, on a handful of probes, its own pair encoding is used instead.
    Passages are remembered (their ids, by a hash of the text), because the same passages come up for many queries.

    Args:
        tokenizer: The model's tokenizer; the encoder owns it from now on.
        max_length: Maximum tokens of a pair.
        truncation_side: `"right"` to cut the end of a passage that is too long, `"left"` to cut its beginning.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, truncation_side: str = "right") -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._plain = tokenizer
        # A long list of candidates is encoded in chunks, all with the same query.
        self._kept_query = lru_cache(_QUERIES_KEPT)(self._tokenise_query)
        self._max_length = max_length
        self._keeps_end = truncation_side == "left"
        truncation: dict[str, Any] = {"strategy": "only_second", "direction": "left" if self._keeps_end else "right"}
        self._special = tokenizer.num_special_tokens_to_add(is_pair=True)
        self._passages = Guarded(_no_passages)
        probes = [pair for pair in _PROBES if self.passage_budget(pair[0]) > 0]
        tokenizer.enable_truncation(max_length, **truncation)
        self._frame = _Frame.of(tokenizer.encode("a", "b"))
        expected = tokenizer.encode_batch(probes)
        tokenizer.no_truncation()
        if self._frame is None or not self._agrees(probes, expected):
            self._frame = None
            self._whole = Tokenizer.from_str(tokenizer.to_str())
            self._whole.enable_truncation(max_length, **truncation)

    @property
    def assembles(self) -> bool:
        """Whether pairs are put together from parts, and not encoded by the tokenizer as a whole."""
        return self._frame is not None

    @property
    def frame_tokens(self) -> int:
        """Number of special tokens around the two texts."""
        return self._special

    def passage_budget(self, query: str) -> int:
        """Return the number of tokens that a query leaves for the passage; it may be negative."""
        return self._max_length - self._special - len(self._query(query)[1])

    def encode(self, text_pairs: Sequence[TextPair]) -> list[PairIds]:
        """Return the tokens of each pair; every query must leave at least one token for its passage."""
        if self._frame is None:
            return [
                PairIds(
                    np.array(first.ids, dtype=np.int32),
                    np.array(first.type_ids, dtype=np.int8),
                    truncated=bool(first.overflowing),
                )
                for first in self._whole.encode_batch(list(text_pairs))
            ]
        queries = {query: self._query_ids(query) for query in dict.fromkeys(query for query, _ in text_pairs)}
        passages = self._passage_ids([passage for _, passage in text_pairs])
        return [
            self._frame.join(queries[query], *passage, self._max_length, keeps_end=self._keeps_end)
            for (query, _), passage in zip(text_pairs, passages, strict=True)
        ]

    def query_spans(self, query: str) -> Spans:
        """Return the first and last-plus-one character of each token of a query, without special tokens."""
        return self._query(query)[1]

    def token_spans(self, text: str) -> list[TokenSpan]:
        """Return where each token of a text is, and which are unknown, without special tokens."""
        encoding = self._plain.encode(text, add_special_tokens=False)
        unknown = {self._plain.token_to_id(token) for token in ("[UNK]", "<unk>")}
        return [
            TokenSpan(*span, is_unknown=number in unknown)
            for span, number in zip(encoding.offsets, encoding.ids, strict=True)
        ]

    def _query_ids(self, query: str) -> Any:
        return self._query(query)[0]

    def _query(self, query: str) -> tuple[Any, Spans]:
        read = self._kept_query if len(query) <= _LONGEST_QUERY_KEPT else self._tokenise_query
        return read(query)

    def _tokenise_query(self, query: str) -> tuple[Any, Spans]:
        encoding = self._plain.encode(query, add_special_tokens=False)
        return np.array(encoding.ids, dtype=np.int32), encoding.offsets

    def _passage_ids(self, passages: Sequence[str]) -> list[tuple[Any, bool]]:
        keys = [hashlib.blake2b(passage.encode(), digest_size=16).digest() for passage in passages]
        with self._passages as passages_seen:
            known = {key: passages_seen[key] for key in keys if key in passages_seen}
        missing = {key: passage for key, passage in zip(keys, passages, strict=True) if key not in known}
        if missing:
            encodings = self._plain.encode_batch(list(missing.values()), add_special_tokens=False)
            for key, encoding in zip(missing, encodings, strict=True):
                ids = encoding.ids
                # No pair takes more, so the rest of a long text is not kept.
                read = ids[-self._max_length :] if self._keeps_end else ids[: self._max_length]
                known[key] = (np.array(read, dtype=np.int32).tobytes(), len(ids) > self._max_length)
            self._remember({key: known[key] for key in missing})
        return [(np.frombuffer(known[key][0], dtype=np.int32), known[key][1]) for key in keys]

    def _remember(self, fresh: dict[bytes, tuple[bytes, bool]]) -> None:
        with self._passages as passages_seen:
            for key, value in fresh.items():
                if _entry_bytes(value) <= passages_seen.maxsize:
                    passages_seen[key] = value

    def _agrees(self, pairs: Sequence[TextPair], expected: Sequence[Encoding]) -> bool:
        for made, encoding in zip(self.encode(pairs), expected, strict=True):
            same = made.ids.tolist() == encoding.ids and made.type_ids.tolist() == encoding.type_ids
            if not same or made.truncated != bool(encoding.overflowing):
                return False
        return True


def _no_passages() -> LRUCache[bytes, tuple[bytes, bool]]:
    return LRUCache(PASSAGE_CACHE_BYTES, getsizeof=_entry_bytes)


def _entry_bytes(value: tuple[bytes, bool]) -> int:
    return len(value[0]) + _ENTRY_BYTES


@dataclass(frozen=True)
class _Frame:
    """What a tokenizer puts around two texts: ids and segments before, between and behind them."""

    before: tuple[Any, Any]
    between: tuple[Any, Any]
    behind: tuple[Any, Any]
    query_type: int
    passage_type: int

    @classmethod
    def of(cls, encoding: Encoding) -> _Frame | None:
        """Read the frame off the encoding of a pair; `None` if it does not have this shape."""
        parts = encoding.sequence_ids
        if 0 not in parts or 1 not in parts:
            return None
        first, second = _run(parts, 0), _run(parts, 1)
        if (
            any(part is not None for i, part in enumerate(parts) if i not in (*first, *second))
            or first.stop > second.start
        ):
            return None
        places = (range(first.start), range(first.stop, second.start), range(second.stop, len(parts)))
        before, between, behind = (
            (
                np.array([encoding.ids[i] for i in place], dtype=np.int32),
                np.array([encoding.type_ids[i] for i in place], dtype=np.int8),
            )
            for place in places
        )
        return cls(before, between, behind, encoding.type_ids[first.start], encoding.type_ids[second.start])

    def join(self, query: Any, passage: Any, longer: bool, max_length: int, *, keeps_end: bool = False) -> PairIds:
        """Put one pair together, cutting the end of the passage if it does not fit, or its beginning."""
        fixed = len(self.before[0]) + len(query) + len(self.between[0]) + len(self.behind[0])
        budget = max(0, max_length - fixed)
        kept = passage[max(0, len(passage) - budget) :] if keeps_end else passage[:budget]
        ids = np.concatenate((self.before[0], query, self.between[0], kept, self.behind[0]))
        types = np.concatenate(
            (
                self.before[1],
                np.full(len(query), self.query_type, dtype=np.int8),
                self.between[1],
                np.full(len(kept), self.passage_type, dtype=np.int8),
                self.behind[1],
            )
        )
        return PairIds(ids, types, truncated=longer or len(kept) < len(passage))


def _run(parts: Sequence[int | None], part: int) -> range:
    start = parts.index(part)
    stop = start
    while stop < len(parts) and parts[stop] == part:
        stop += 1
    return range(start, stop)
