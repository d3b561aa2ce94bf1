"""Decodes and cleans text, so that every store, tokenizer and terminal can take it."""

from __future__ import annotations

import re

_LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ft", "ﬆ": "st", "\u00ad": "", "\ufeff": ""}
_REPLACED = str.maketrans({**_LIGATURES, "\x00": "", "\xa0": " ", "\u200b": "", "\u2028": "\n", "\u2029": "\n"})
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Return a text without what cannot be stored or searched.

    Ligatures become letters; soft hyphens, zero-width spaces and NUL are dropped; a no-break space becomes a space;
    half of a surrogate pair becomes U+FFFD.
    """
    text = text.translate(_REPLACED)
    if _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def decode_text(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 and UTF-32 with a byte order mark.

    Raises:
        UnicodeDecodeError: If it is neither.
    """
    if data.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return data.decode("utf-32")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")
