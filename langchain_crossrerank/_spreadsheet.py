"""Makes text safe to open in a spreadsheet."""

from __future__ import annotations

import math
from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def as_cell(value: Any) -> Any:
    """Put an apostrophe before text that a spreadsheet would run as a formula; text that is a number stays."""
    if not isinstance(value, str) or not value.startswith(_FORMULA_STARTS):
        return value
    try:
        return value if math.isfinite(float(value)) else f"'{value}"
    except ValueError:
        return f"'{value}"
