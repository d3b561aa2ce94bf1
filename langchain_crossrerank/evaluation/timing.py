"""A stopwatch in milliseconds, and percentiles of what it measured."""

from __future__ import annotations

import time
from collections.abc import Sequence


class Stopwatch:
    """Measures consecutive laps on the process's performance counter."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def lap_ms(self) -> float:
        """Return the milliseconds since the last lap, or since the start, and begin the next one."""
        now = time.perf_counter()
        lap, self._started = now - self._started, now
        return lap * 1000


def percentile(values: Sequence[float], share: int) -> float:
    """Return a percentile of values by linear interpolation; 0.0 of none.

    Args:
        values: The values, in any order.
        share: The percentile, 0 to 100.
    """
    import numpy as np

    return float(np.percentile(values, share)) if values else 0.0
