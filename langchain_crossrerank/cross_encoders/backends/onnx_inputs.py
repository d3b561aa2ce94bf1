"""The arrays that a graph reads, from the token ids of texts of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.errors import UnsupportedModelError


def pad_rows(
    rows: Sequence[tuple[Any, Any]],
    source: ModelSource,
    shape: tuple[int | None, ...] = (None, None),
    *,
    pads_left: bool = False,
) -> dict[str, Any]:
    """Return the inputs of a graph: ids, segments, mask and positions of shape (rows, tokens), int64.

    Args:
        rows: Token ids and segments of each text or pair.
        source: The model.
        shape: Rows and tokens of a graph that takes one size only; `None` for a size that varies.
        pads_left: Whether padding goes before the tokens and not behind them.

    Raises:
        UnsupportedModelError: If the tokenizer makes ids that the model has no embedding for.
    """
    fixed_rows, fixed_tokens = shape
    size = fixed_rows or len(rows), fixed_tokens or max(len(ids) for ids, _ in rows)
    padded = np.full(size, source.pad_token_id, dtype=np.int64)
    types, mask = np.zeros_like(padded), np.zeros_like(padded)
    for row, (ids, segments) in enumerate(rows):
        start = size[1] - len(ids) if pads_left else 0
        place = slice(start, start + len(ids))
        padded[row, place] = ids
        if source.sends_segments:
            types[row, place] = segments
        mask[row, place] = 1
    _check_ids(padded, source)
    first = source.first_position
    places = np.where(mask, np.cumsum(mask, axis=1) - 1 + first, max(0, first - 1))
    return {"input_ids": padded, "token_type_ids": types, "attention_mask": mask, "position_ids": places}


def _check_ids(ids: Any, source: ModelSource) -> None:
    words = source.settings.vocab_size
    if words is not None and ids.size and ids.max() >= words:
        raise UnsupportedModelError(
            f"the tokenizer of {source.name!r} makes the token id {ids.max()}, and the model's vocabulary has "
            f"{words} entries; {source.tokenizer_file} belongs to other weights. Fetch the model again."
        )
