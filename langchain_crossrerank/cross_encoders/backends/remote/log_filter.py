"""Hides keys in the logs of the HTTP libraries, which write down headers and addresses."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from langchain_crossrerank.redaction import MIN_SECRET, hide

_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks")


class _SecretFilter(logging.Filter):
    """Rewrites records that contain a secret."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without secrets."""
        message = record.getMessage()
        hidden = hide(message, list(self.secrets))
        if hidden != message:
            record.msg, record.args = hidden, ()
        return True


_FILTER = _SecretFilter()


def hide_in_logs(secrets: Iterable[str]) -> None:
    """Have secrets hidden in everything that the HTTP libraries log in this process from now on."""
    _FILTER.secrets |= {secret for secret in secrets if len(secret) >= MIN_SECRET}
    for name in _LOGGERS:
        # A filter that is there already is not added again.
        logging.getLogger(name).addFilter(_FILTER)
