"""Many callers: shared passes, a bounded queue, clients that go away, caches, and an orderly end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from langchain_crossrerank.server import metrics
from langchain_crossrerank.server.config import Limits
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.integration.server.conftest import QUERY, TEXTS, GatedCrossEncoder, Serve
from tests.integration.server.running_server import RunningServer, wait_for

BODY = {"query": "q", "documents": [f"passage {number} of some length" for number in range(30)]}
IN_FLIGHT = "crossrerank_requests_in_flight"
GONE = 'crossrerank_requests_total{dialect="cohere",status="499"}'


def post(server: RunningServer, body: object = BODY) -> httpx.Response:
    """Send one request on a connection of its own."""
    with server.client() as client:
        return client.post("/v1/rerank", json=body)


def test_requests_share_forward_passes(serve_fake: Serve) -> None:
    """Requests that wait together are scored together, and each gets its own scores."""
    model = GatedCrossEncoder()
    single = [{"query": f"q {number:02}", "documents": [f"passage {number:02}"]} for number in range(12)]
    with serve_fake(model) as server, ThreadPoolExecutor(13) as threads:
        first = threads.submit(post, server)
        assert model.began.wait(60)
        waiting = [threads.submit(post, server, body) for body in single]
        wait_for(lambda: server.metric(IN_FLIGHT) == 13)
        model.gate.set()
        assert first.result(60).status_code == httpx.codes.OK
        for body, future in zip(single, waiting, strict=True):
            (result,) = future.result(60).json()["results"]
            expected = FakeCrossEncoder().score([(body["query"], body["documents"][0])])[0]
            assert result["relevance_score"] == pytest.approx(expected)
    assert max(len({query for query, _ in batch}) for batch in model.batches) > 1


def test_a_full_queue_says_when_to_come_back(serve_fake: Serve) -> None:
    """Beyond the queue's size a request gets 429 with `Retry-After` at once, and those in it get their scores."""
    model = GatedCrossEncoder()
    with serve_fake(model, limits=Limits(queue=3)) as server, ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(post, server) for _ in range(3)]
        wait_for(lambda: server.metric(IN_FLIGHT) == 3)
        refused = post(server)
        assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "3 requests" in refused.json()["message"]
        model.gate.set()
        assert [future.result(60).status_code for future in waiting] == [httpx.codes.OK] * 3
        assert post(server).status_code == httpx.codes.OK
        assert server.metric(IN_FLIGHT) == 0


def test_a_client_that_goes_away_stops_its_work(serve_fake: Serve) -> None:
    """Closing the connection gives up the pairs that were not scored, and frees the place in the queue."""
    model = GatedCrossEncoder()
    with serve_fake(model) as server:
        with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=0.5) as client:
            client.post(f"{server.url}/v1/rerank", json=BODY)
        wait_for(lambda: server.metric(GONE) == 1)
        assert server.metric(IN_FLIGHT) == 0
        model.gate.set()
        assert post(server, {"query": "other", "documents": ["a"]}).status_code == httpx.codes.OK
        scored = [query for batch in model.batches for query, _ in batch if query == "q"]
        assert len(scored) < len(BODY["documents"])


def test_a_killed_client_leaks_nothing(serve_fake: Serve) -> None:
    """A client process that is killed in the middle of a request, or of its body, leaves no request behind."""
    model = GatedCrossEncoder()
    program = (
        "import httpx, sys\n"
        'def body():\n    yield b\'{"query": "q", \'\n    sys.stdin.read()\n'
        "whole = sys.argv[2] == 'whole'\n"
        'sent = b\'{"query": "q", "documents": ["a", "b"]}\' if whole else body()\n'
        "httpx.post(sys.argv[1], content=sent, timeout=60)\n"
    )
    with serve_fake(model) as server:
        for number, how in enumerate(("whole", "half"), 1):
            command = [sys.executable, "-c", program, f"{server.url}/v1/rerank", how]
            client = subprocess.Popen(command, stdin=subprocess.PIPE)
            wait_for(lambda: server.metric(IN_FLIGHT) == 1)
            client.kill()
            client.communicate()
            wait_for(lambda number=number: server.metric(GONE) == number)  # type: ignore[misc]
        assert server.metric(IN_FLIGHT) == 0
        model.gate.set()
        assert post(server).status_code == httpx.codes.OK


def test_stopping_finishes_what_runs(serve_fake: Serve) -> None:
    """A request under way when the server is told to stop still gets its answer, and new ones find no server."""
    model = GatedCrossEncoder()
    with serve_fake(model) as server, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(post, server)
        assert model.began.wait(60)
        server.uvicorn.should_exit = True
        wait_for(lambda: _refuses(server))
        model.gate.set()
        assert waiting.result(60).status_code == httpx.codes.OK


def _refuses(server: RunningServer) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", server.port)) != 0


@pytest.mark.parametrize("where", ["memory", "scores.sqlite"])
def test_scores_are_kept_when_wanted(serve_fake: Serve, where: str, tmp_path: Path) -> None:
    """With a cache, the second request of the same texts reads no token, and gets the same scores."""
    model = FakeCrossEncoder()
    cache = where if where == "memory" else str(tmp_path / where)
    with serve_fake(model, cache=cache) as server:
        first, second = post(server).json(), post(server).json()
        assert first["results"] == second["results"]
        assert (first["usage"]["total_tokens"] > 0, second["usage"]["total_tokens"]) == (True, 0)
    assert sum(len(batch) for batch in model.batches) == 1 + len(BODY["documents"])


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start `crossrerank serve` in a process of its own."""
    command = [sys.executable, "-m", "langchain_crossrerank.cli", "serve", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def url_of(process: subprocess.Popen[str]) -> str:
    """Read the address from what the command says."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "serving" in line, line + process.stderr.read()
    return next(word.rstrip(",") for word in line.split() if word.startswith("http://"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_stopped(number: signal.Signals) -> None:
    """One command serves the bundled model, and a signal ends it with exit code 0 and without a traceback."""
    process = start("bundled", "--port", "0")
    url = url_of(process)
    wait_for(lambda: httpx.get(f"{url}/health").status_code == httpx.codes.OK)
    results = httpx.post(f"{url}/v1/rerank", json={"query": QUERY, "documents": TEXTS}, timeout=60).json()["results"]
    assert len(results) == len(TEXTS)
    process.send_signal(number)
    output, log = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    assert "Traceback" not in log
    assert "Loaded 'bundled'" in log


@pytest.mark.slow
def test_workers_share_a_socket_and_their_figures() -> None:
    """Several processes answer on one port, their figures are added up, and all end with the command."""
    process = start("bundled", "--port", "0", "--workers", "2")
    url = url_of(process)
    wait_for(lambda: _ready_workers(url) == 2)
    with ThreadPoolExecutor(8) as threads:
        body = {"query": QUERY, "documents": TEXTS}
        answers = list(threads.map(lambda _: httpx.post(f"{url}/v1/rerank", json=body, timeout=60), range(24)))
    assert {answer.status_code for answer in answers} == {httpx.codes.OK}
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    assert 'crossrerank_requests_total{dialect="cohere",status="200"} 24.0' in lines
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "MiB of its own" in log
    wait_for(lambda: not any(os.path.exists(f"/proc/{child}") for child in children))


def test_dead_workers_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gauges are those of the processes that run; what a dead one counted is kept."""
    program = (
        "import sys\nfrom langchain_crossrerank.server.metrics import Metrics\n"
        "metrics = Metrics()\nmetrics.ready()\nmetrics.scored('m', pairs=3, tokens=0)\n"
        "print('counted', flush=True)\nsys.stdin.read()\n"
    )
    monkeypatch.setenv(metrics.MULTIPROCESS_VARIABLE, str(tmp_path))
    workers = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "counted\n"
        workers[0].kill()
        workers[0].communicate()
        lines = metrics.Metrics().text().decode().splitlines()
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert "crossrerank_ready 1.0" in lines
    assert 'crossrerank_pairs_total{model="m"} 6.0' in lines


def _ready_workers(url: str) -> float:
    try:
        lines = httpx.get(f"{url}/metrics", timeout=5).text.splitlines()
    except httpx.TransportError:
        time.sleep(0.1)
        return 0
    return sum(float(line.split()[-1]) for line in lines if line.startswith("crossrerank_ready"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "crossrerank serve bundled"),
        (["bundled", "--host", "0.0.0.0", "--port", "0"], "--no-auth"),
        (["no-such-folder/model", "--port", "0"], "no-such-folder"),
        (["bundled", "--max-queue", "0"], "max_queue"),
        (["bundled", "--precision", "fp16", "--backend", "onnx", "--port", "0"], "precision"),
    ],
)
def test_what_cannot_be_served_is_said_at_once(arguments: list[str], message: str) -> None:
    """A command that cannot work ends with 1 and says why."""
    process = start(*arguments)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 1
    assert message in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_workers_end_when_no_model_can_be_loaded() -> None:
    """If a worker cannot load a model, the command ends with 1 instead of starting it again and again."""
    process = start("no-such-folder/model", "--port", "0", "--workers", "2")
    _, log = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "no-such-folder" in log


def test_a_taken_port_is_said() -> None:
    """The error names the address."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        process = start("bundled", "--port", str(other.getsockname()[1]))
        _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "pass another --host or --port" in log
