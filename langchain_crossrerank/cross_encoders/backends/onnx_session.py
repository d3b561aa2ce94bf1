"""An open graph that threads and forked processes share safely, and the inputs that it expects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnxruntime

from langchain_crossrerank._process import ForkSafeLock, PerProcess
from langchain_crossrerank.cross_encoders.scheduling import interruptible
from langchain_crossrerank.errors import UnsupportedModelError

LARGE_ATTENTION = 2**21
"""Pairs of tokens in a forward pass from which on its working memory is given back to the system afterwards."""

_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_WHOLE_NUMBERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


@dataclass(frozen=True)
class GraphInput:
    """One input of an open graph.

    Attributes:
        dtype: The numpy type of its numbers.
        shape: Sizes of its axes, `None` for one that varies.
    """

    dtype: Any
    shape: tuple[int | None, ...]


class ProcessSession:
    """A session that belongs to this process: a forked child opens its own, because threads are not inherited.

    Callers take turns, each with all threads; together they would only get in each other's way.

    Args:
        open_session: Opens an onnxruntime session, or an object with the same methods.
        states: Names of further inputs, in float32, that a caller of `run` computes.

    Raises:
        UnsupportedModelError: If the graph has inputs that cannot be computed from a pair of texts.
    """

    def __init__(self, open_session: Callable[[], Any], *, states: Collection[str] = ()) -> None:
        self._session = PerProcess(open_session)
        self._turn = ForkSafeLock()
        session = self._session.get()
        self.inputs = {entry.name: _described(entry, states) for entry in session.get_inputs()}
        self._outputs = [entry.name for entry in session.get_outputs()]
        if "input_ids" not in self.inputs:
            raise UnsupportedModelError(
                f"the graph has the inputs {sorted(self.inputs)}, without input_ids; it is not a text classifier."
            )

    def run(self, features: Mapping[str, Any]) -> Any:
        """Return the graph's first output.

        Args:
            features: Arrays by name; those that the graph does not read are ignored.
        """
        return self._run(features, self._outputs[:1])[0]

    def run_all(self, features: Mapping[str, Any]) -> list[Any]:
        """Return all of the graph's outputs; see `run`."""
        return self._run(features, self._outputs)

    def _run(self, features: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        session = self._session.get()
        inputs = {name: features[name].astype(entry.dtype, copy=False) for name, entry in self.inputs.items()}
        options = _run_options(inputs["input_ids"].shape)
        with self._turn, interruptible(partial(setattr, options, "terminate", True)):
            found: list[Any] = session.run(outputs, inputs, options)
        return found


def _described(entry: Any, states: Collection[str]) -> GraphInput:
    if entry.name in states:
        return GraphInput(np.float32, (None, None, None))
    if entry.name not in _INPUTS or entry.type not in _WHOLE_NUMBERS:
        raise UnsupportedModelError(
            f"the graph has the input {entry.name!r} of type {entry.type}, which cannot be made from a pair of texts; "
            f"the inputs may be {', '.join(_INPUTS)}, as whole numbers."
        )
    shape = tuple(size if isinstance(size, int) else None for size in entry.shape)
    return GraphInput(_WHOLE_NUMBERS[entry.type], shape)


def _run_options(shape: tuple[int, int]) -> Any:
    """Make the options of a run on (pairs, tokens)."""
    options = onnxruntime.RunOptions()
    pairs, tokens = shape
    if pairs * tokens**2 > LARGE_ATTENTION:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options
