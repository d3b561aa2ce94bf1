"""Digests of contents, by which a checkpoint or a kept index knows what it is of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any


def digest_of(parts: Iterable[Any]) -> str:
    """Hash plain data, part by part, with BLAKE2b.

    Args:
        parts: Anything that JSON can hold.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        digest.update(b"\n")
    return digest.hexdigest()
