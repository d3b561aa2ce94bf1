"""Runs the application on a socket: in this process, or in several that share the weights' file pages."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from langchain_crossrerank._machine import usable_cores
from langchain_crossrerank.errors import CrossRerankError, InvalidInputError, ModelError
from langchain_crossrerank.server.application import create_app
from langchain_crossrerank.server.config import ServerConfig
from langchain_crossrerank.server.metrics import MULTIPROCESS_VARIABLE
from langchain_crossrerank.server.models import ServedModels

GRACE_SECONDS = 30
"""How long requests in progress may take to finish when the server is stopped."""

_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Open a socket to listen on; port 0 takes a free one.

    Raises:
        InvalidInputError: If the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as err:
        raise InvalidInputError(f"cannot listen on {host}:{port} ({err}); pass another --host or --port.") from err


def serve(config: ServerConfig, listener: socket.socket, *, workers: int = 1, access_log: bool = False) -> None:
    """Serve until the process gets SIGINT or SIGTERM, then finish the requests in progress.

    Args:
        config: Models, keys and limits.
        listener: The socket from `listen`.
        workers: Number of processes. They share one copy of the weights in memory, the pages of the weights' file;
            everything else is needed once for each. Each process has its own queue and in-memory score cache, and the
            cores are divided among them.
        access_log: Whether to log each request.

    Raises:
        CrossRerankError: If a model cannot be loaded.
    """
    if workers > 1:
        _serve_with_workers(config, listener, workers=workers, access_log=access_log)
        return
    configure_logging(access_log=access_log)
    failures: list[Exception] = []

    def stop(err: Exception) -> None:
        failures.append(err)
        server.should_exit = True

    server = uvicorn.Server(uvicorn_config(create_app(config, on_load_failure=stop), access_log=access_log))
    with suppress(KeyboardInterrupt):
        _exit_when_terminated()
        server.run(sockets=[listener])
    for err in failures:
        if isinstance(err, CrossRerankError):
            raise err
        raise ModelError("a model cannot be loaded; the log above says why.") from err


def uvicorn_config(app: Starlette | Callable[[], Starlette], *, access_log: bool, workers: int = 1) -> uvicorn.Config:
    """Return how uvicorn runs an application, or what makes one in a worker."""
    return uvicorn.Config(
        app,
        factory=not isinstance(app, Starlette),
        workers=workers,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=access_log,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def configure_logging(*, access_log: bool) -> None:
    """Log to standard error: this package's progress, warnings of other packages, and each request if asked for."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s [%(process)d] %(levelname)s %(message)s",
        force=True,
    )
    logging.getLogger("langchain_crossrerank").setLevel(logging.INFO)
    # bm25s sets its own level, the lowest.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO if access_log else logging.WARNING)


def _exit_when_terminated() -> None:
    """Let SIGTERM end the process cleanly; uvicorn raises the signal again once all requests are finished."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what a signal handler is called with
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)


def _serve_with_workers(config: ServerConfig, listener: socket.socket, *, workers: int, access_log: bool) -> None:
    # Reports wrong settings before there are processes to stop.
    ServedModels(config)
    cores = usable_cores()
    config = replace(config, worker_threads=None if cores is None else max(1, cores // workers))
    with tempfile.TemporaryDirectory(prefix="crossrerank-metrics-") as folder:
        os.environ[MULTIPROCESS_VARIABLE] = folder
        make_app = partial(worker_app, config, access_log=access_log)
        supervisor = Multiprocess(uvicorn_config(make_app, access_log=access_log, workers=workers), sockets=[listener])
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise ModelError("a model cannot be loaded; the log above says why.")


def worker_app(config: ServerConfig, *, access_log: bool) -> Starlette:
    """Create the application in a worker process, which ends if a model cannot be loaded."""
    configure_logging(access_log=access_log)
    return create_app(config, on_load_failure=_end_worker)


def _end_worker(_: Exception) -> None:
    logging.shutdown()
    # The exit code tells the supervisor not to start the worker again.
    os._exit(STARTUP_FAILURE)
