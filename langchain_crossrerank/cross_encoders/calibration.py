"""Short measurements of what is fastest on this machine, saved for later processes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

from langchain_crossrerank._machine import recall, remember
from langchain_crossrerank.onnx_graphs.cache import GraphPrecision

DEFAULT_BATCH_TOKENS = 512
"""Tokens of one forward pass before anything was measured: they fit the caches of most processors."""

WORTH_CALIBRATING = 50_000
"""Tokens of work of which a calibration is only a small part."""

BATCH_TOKENS = (256, 512, 1024)
"""Sizes to try; larger ones would raise the peak of memory, and none was faster."""

_ROUNDS = 3
_NEARLY_BEST = 1.03
_CLEARLY_FASTER = 1.1


def known_batch_tokens(key: str) -> int | None:
    """Return what `measure_batch_tokens` found earlier under this key, if anything."""
    found = (recall(f"batch-tokens-{key}") or {}).get("max_batch_tokens")
    return found if found in BATCH_TOKENS else None


def measure_batch_tokens(run: Callable[[int], object], tokens: int, key: str) -> int:
    """Find the batch size at which forward passes take the least time per token, and save it.

    Args:
        run: Does one forward pass on the given number of copies of a typical pair.
        tokens: Tokens of that pair.
        key: Name of this machine, model and settings.

    Returns:
        The smallest of `BATCH_TOKENS` within 3 % of the fastest: smaller batches take less memory and let calls
        interleave more finely.
    """
    seconds: dict[int, list[float]] = {size: [] for size in BATCH_TOKENS}
    for _ in range(_ROUNDS):
        for size, spent in seconds.items():
            pairs = max(1, size // tokens)
            spent.append(_seconds(partial(run, pairs)) / (pairs * tokens))
    best = {size: min(spent) for size, spent in seconds.items()}
    chosen = next(size for size, spent in best.items() if spent <= _NEARLY_BEST * min(best.values()))
    remember(f"batch-tokens-{key}", {"max_batch_tokens": chosen, "microseconds_per_token": _microseconds(best)})
    return chosen


def faster_precision(runs: Mapping[GraphPrecision, Callable[[], object]], key: str) -> GraphPrecision:
    """Find whether eight bits are clearly faster than fp32 here, and save the finding.

    Args:
        runs: For `"fp32"` and, if available, `"int8"`, a function that does the same forward pass.
        key: Name of this machine and model.

    Returns:
        `"int8"` if it takes at most 1/1.1 of the time, otherwise `"fp32"`.
    """
    if "int8" not in runs:
        return "fp32"
    found = (recall(f"precision-{key}") or {}).get("precision")
    if found in list(runs):
        return "int8" if found == "int8" else "fp32"
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_ROUNDS + 1):
        for name, run in runs.items():
            seconds[name].append(_seconds(run))
    median = {name: statistics.median(spent[1:]) for name, spent in seconds.items()}
    chosen: GraphPrecision = "int8" if median["int8"] * _CLEARLY_FASTER <= median["fp32"] else "fp32"
    remember(f"precision-{key}", {"precision": chosen, "seconds": median})
    return chosen


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _microseconds(seconds: Mapping[int, float]) -> dict[str, float]:
    return {str(size): round(1e6 * spent, 2) for size, spent in seconds.items()}
