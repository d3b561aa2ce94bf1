"""The server's metrics in Prometheus's format, added up over all worker processes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder in which worker processes share their figures."""

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "crossrerank_requests",
            "Requests that were answered, and those whose client went away (status 499).",
            ("dialect", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "crossrerank_request_seconds",
            "Seconds from the first byte of a request to its answer.",
            ("dialect",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._pairs = Counter(
            "crossrerank_pairs", "Pairs of query and document that were scored.", ("model",), registry=self._registry
        )
        self._tokens = Counter(
            "crossrerank_tokens",
            "Tokens that were read, without those of cached scores.",
            ("model",),
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "crossrerank_requests_in_flight",
            "Requests in progress.",
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self._ready = Gauge(
            "crossrerank_ready",
            "Whether all models are loaded; the number of ready workers if there are several.",
            multiprocess_mode="livesum",
            registry=self._registry,
        )

    def answered(self, dialect: str, status: int, seconds: float) -> None:
        """Count a request by its answer."""
        self._requests.labels(dialect, str(status)).inc()
        self._seconds.labels(dialect).observe(seconds)

    def scored(self, model: str, *, pairs: int, tokens: int) -> None:
        """Count the pairs and tokens of a request."""
        self._pairs.labels(model).inc(pairs)
        self._tokens.labels(model).inc(tokens)

    def in_flight(self, requests: int) -> None:
        """Note how many requests are in progress in this process."""
        self._in_flight.set(requests)

    def ready(self) -> None:
        """Note that this process has loaded its models."""
        self._ready.set(1)

    def text(self) -> bytes:
        """Return all figures in Prometheus's text format."""
        registry = self._registry
        if MULTIPROCESS_VARIABLE in os.environ:
            _forget_dead_workers(Path(os.environ[MULTIPROCESS_VARIABLE]))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _forget_dead_workers(folder: Path) -> None:
    """Remove the gauges of processes that have ended; what they counted is kept.

    A worker that was killed cannot do it itself, and the supervisor starts another one without a word.
    """
    for file in folder.glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not _runs(pid):
            # Another worker may be doing the same.
            with suppress(FileNotFoundError):
                mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _runs(pid: int) -> bool:
    if os.name != "posix":
        # There, signal 0 is a real one.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
