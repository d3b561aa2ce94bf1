"""A rerank server on a free port of the loopback address, run by uvicorn on a thread of the test."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import uvicorn

from langchain_crossrerank.server.application import create_app
from langchain_crossrerank.server.config import ServerConfig, local_hosts
from langchain_crossrerank.server.running import listen, uvicorn_config


@dataclass
class RunningServer:
    """A server that runs.

    Attributes:
        port: Its port.
        uvicorn: What runs it.
        failures: Why models could not be loaded.
    """

    port: int
    uvicorn: uvicorn.Server
    failures: list[Exception]

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, **settings: object) -> httpx.Client:
        """A client of the server."""
        return httpx.Client(base_url=self.url, timeout=60, **settings)  # type: ignore[arg-type]

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def wait_until_ready(self) -> None:
        """Wait until the models are loaded."""
        wait_for(lambda: httpx.get(f"{self.url}/health").status_code == httpx.codes.OK)


def wait_for(condition: object, seconds: float = 60) -> None:
    """Wait until a condition holds, and fail if it does not in time."""
    limit = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < limit, "the condition did not hold in time"
        time.sleep(0.01)


@contextlib.contextmanager
def running(config: ServerConfig, *, wait: bool = True) -> Iterator[RunningServer]:
    """Run a server for the time of the block."""
    failures: list[Exception] = []
    app = create_app(config, on_load_failure=failures.append)
    server = uvicorn.Server(uvicorn_config(app, access_log=False))
    listener = listen("127.0.0.1", 0)
    found = RunningServer(listener.getsockname()[1], server, failures)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        if wait:
            found.wait_until_ready()
        yield found
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def local_config(*models: str, **settings: object) -> ServerConfig:
    """A configuration as `crossrerank serve` makes it for the loopback address."""
    named = dict(model.split("=") if "=" in model else (model, model) for model in models or ("bundled",))
    settings = {"allowed_hosts": local_hosts("127.0.0.1"), **settings}
    return ServerConfig(models=named, **settings)  # type: ignore[arg-type]
