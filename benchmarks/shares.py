"""Shares with their intervals, as the benchmarks print them."""

from __future__ import annotations

from typing import Any

import numpy as np


def wilson(values: Any) -> str:
    """Return the mean of values that are 0 or 1, with its 95 % Wilson interval."""
    n, p, z = len(values), float(values.mean()), 1.96
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return f"{p:.3f} ({low:.3f} to {high:.3f})"
