"""A wrapper for timing: every passage is new to the backend, so that nothing it keeps of texts saves time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.wrappers.base import WrapperCrossEncoder

# Of the process, because a backend may be timed more than once.
_numbers = itertools.count()


class UnseenCrossEncoder(WrapperCrossEncoder):
    """Puts a number in front of each passage, another one in each call.

    A backend may keep the tokens of a passage, and with `passage_cache` what its lower layers made of them; neither
    is found for a passage that begins differently. A backend that plans its calls itself, such as a server's client,
    gets the passages as they are.
    """

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        unseen = _unseen(text_pairs)
        return _as_given(self.inner._encode(list(unseen)), unseen)

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:
        unseen = _unseen(text_pairs)
        return _as_given(self.inner._encode_windows(list(unseen), overlap), unseen)


def _unseen(text_pairs: Sequence[TextPair]) -> dict[TextPair, TextPair]:
    number = next(_numbers)
    return {(query, f"{number} {passage}"): (query, passage) for query, passage in text_pairs}


def _as_given(encoded: Sequence[EncodedPair], unseen: dict[TextPair, TextPair]) -> list[EncodedPair]:
    return [replace(item, text_pair=unseen[item.text_pair]) for item in encoded]
