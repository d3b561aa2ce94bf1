"""Hides keys in the logs of the HTTP libraries, which write down headers and addresses."""

from __future__ import annotations

import logging
import weakref

from langchain_crossrerank._process import ForkSafeLock
from langchain_crossrerank.cross_encoders.backends.remote.settings import Credentials
from langchain_crossrerank.redaction import hide

_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks")


class _SecretFilter(logging.Filter):
    """Rewrites records that contain a secret of credentials in use."""

    def __init__(self) -> None:
        super().__init__()
        # Replaced as a whole, so that a record can be filtered while credentials come and go.
        self._known: tuple[weakref.ref[Credentials], ...] = ()
        self._adding = ForkSafeLock()

    def add(self, credentials: Credentials) -> None:
        """Hide the secrets of credentials for as long as these exist."""
        with self._adding:
            self._known = (*(known for known in self._known if known() is not None), weakref.ref(credentials))

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without secrets."""
        message = record.getMessage()
        secrets = {secret for known in self._known if (kept := known()) is not None for secret in kept.secrets}
        hidden = hide(message, secrets)
        if hidden != message:
            record.msg, record.args = hidden, ()
        return True


_FILTER = _SecretFilter()


def hide_in_logs(credentials: Credentials) -> None:
    """Have secrets hidden in everything that the HTTP libraries log in this process.

    Args:
        credentials: Whose secrets to hide; once nobody holds these, they are no longer searched for.
    """
    _FILTER.add(credentials)
    for name in _LOGGERS:
        # A filter that is there already is not added again.
        logging.getLogger(name).addFilter(_FILTER)
