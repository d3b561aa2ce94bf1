"""Agreement with a rerank server: Infinity's scores through `RemoteCrossEncoder`, beside the same weights in torch.

    python -m venv infinity
    infinity/bin/pip install "infinity-emb[server,torch]==0.0.78" "torch==2.13.0"
    python benchmarks/infinity_server.py --infinity infinity/bin/infinity_emb --model FOLDER [--pairs 200]

Infinity needs an environment of its own, because it pins old versions of numpy, typer and sentence-transformers; the
first two commands were tried with Python 3.11. This package needs its `remote` and `torch` extras. The folder contains
a sequence-classification model with one label.

The server is started on a free port of the loopback address, first with one model, then with two names and a key to
see what errors look like. It is stopped even if this program fails, is interrupted or terminated. The exit code is 1
if a score differs by more than 0.001.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import math
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import httpx

from langchain_crossrerank import CrossEncoder, RemoteCrossEncoder, load_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.errors import CrossRerankError, RemoteError

TOLERANCE = 1e-3
START_SECONDS = 180.0
PACKAGES = ("infinity-emb", "torch", "transformers", "sentence-transformers")
KEY = "the-key"

FACTS = (
    ("When does the ferry to the island leave?", "The ferry to the island leaves at nine and comes back at six."),
    ("Who wrote the first program?", "Ada Lovelace published the first program for the Analytical Engine in 1843."),
    ("What is the capital of Australia?", "Canberra has been the capital of Australia since 1913."),
    ("How tall is Mont Blanc?", "Mont Blanc rises 4,806 metres above the sea, which makes it the highest of the Alps."),
    ("What do bees make?", "Bees gather nectar and turn it into honey, which feeds the hive through the winter."),
    ("Wo liegt Zürich?", "Zürich liegt am Ausfluss der Limmat aus dem Zürichsee; 🚢 fahren im Sommer bis Rapperswil."),
    ("Which gas do plants take up?", "Plants take up carbon dioxide and give off oxygen while the sun shines."),
    ("What does a reranker read?", "A cross-encoder reads the query and the passage together and gives one score."),
)


def make_pairs(count: int) -> list[TextPair]:
    """Make different pairs of many lengths, with right and wrong answers."""
    facts = [fact for _, fact in FACTS]
    passages = itertools.chain(
        facts,
        *(map(" ".join, itertools.permutations(facts, several)) for several in (2, 3, 4)),
    )
    pairs = ((query, passage) for passage in passages for query, _ in FACTS)
    return list(itertools.islice(pairs, count))


@contextlib.contextmanager
def serve(executable: Path, model: str, *, names: Sequence[str] = (), key: str | None = None) -> Iterator[str]:
    """Run Infinity with one model, or with the same model under several names, and yield its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(executable.absolute()), "v2", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--engine", "torch", "--device", "cpu", "--dtype", "float32"]
    command += ["--no-bettertransformer", "--no-compile", "--no-model-warmup", "--no-vector-disk-cache"]
    command += ["--no-trust-remote-code"]
    for name in names:
        command += ["--model-id", model, "--served-model-name", name]
    if not names:
        command += ["--model-id", model]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_HOME": folder}
        if key is not None:
            environment["INFINITY_API_KEY"] = key
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when the server answers; end this program with the end of the server's log if it does not."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health").status_code == httpx.codes.OK:
                return
        time.sleep(0.25)
    ended = process.poll()
    how = f"did not answer within {START_SECONDS:.0f} s" if ended is None else f"ended with exit code {ended}"
    tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-30:])
    raise SystemExit(f"Infinity {how}; the end of its log:\n{tail}")


def requests_served(url: str) -> int:
    """Read from the server's own metrics how many rerank requests it has answered."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith("http_requests_total{") and 'handler="/rerank"' in line]
    return sum(int(float(line.split()[-1])) for line in counts)


def largest_difference(ours: Sequence[float], others: Sequence[float]) -> float:
    """Return the largest difference of two scores at the same place."""
    return max(abs(one - other) for one, other in zip(ours, others, strict=True))


def same_order(pairs: Sequence[TextPair], ours: Sequence[float], others: Sequence[float]) -> str:
    """Return for how many queries both put the passages in the same order."""
    queries = dict.fromkeys(query for query, _ in pairs)
    same = 0
    for query in queries:
        places = [place for place, pair in enumerate(pairs) if pair[0] == query]
        same += sorted(places, key=lambda at: -ours[at]) == sorted(places, key=lambda at: -others[at])
    return f"{same} of {len(queries)} queries"


def outcome(model: CrossEncoder, pair: TextPair) -> str:
    """Score one pair, and return the score or the error in words."""
    try:
        return f"score {model.score([pair])[0]:.6f}"
    except RemoteError as err:
        return f"`RemoteError` (status_code {err.status_code}): {err}"
    except CrossRerankError as err:
        return f"`{type(err).__name__}`: {err}"


def versions(executable: Path) -> tuple[str, str]:
    """Return the versions of the server's packages and of ours."""
    python = executable.resolve().parent / "python"
    program = f"from importlib.metadata import version\nfor name in {PACKAGES}: print(name, version(name))"
    answer = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    ours = ("langchain-crossrerank", "httpx", *PACKAGES[1:])
    return ", ".join(answer.stdout.splitlines()), ", ".join(f"{name} {version(name)}" for name in ours)


def compare(url: str, local: CrossEncoder, pairs: Sequence[TextPair]) -> float:
    """Print the rows of a server with one model, and return the largest difference among them."""
    remote = RemoteCrossEncoder(f"{url}/rerank", request_shape="documents", max_length=local.max_length)
    expected, answered = local.score(pairs), remote.score(pairs)
    awaited = asyncio.run(remote.ascore(pairs))
    print(f"| pairs | {len(pairs)}, probabilities from {min(expected):.4f} to {max(expected):.4f} |")
    differences = []
    for way, scores in (("sync", answered), ("async", awaited)):
        differences.append(largest_difference(expected, scores))
        print(f"| {way}: largest difference of probability | {differences[-1]:.1e} |")
        print(f"| {way}: order identical | {same_order(pairs, expected, scores)} |")

    one_query = list(dict.fromkeys((FACTS[0][0], passage) for _, passage in pairs))
    few = RemoteCrossEncoder(f"{url}/rerank", request_shape="documents", max_documents=4)
    before = requests_served(url)
    divided = few.score(one_query)
    sent = requests_served(url) - before
    differences.append(largest_difference(local.score(one_query), divided))
    print(
        f"| one query, {len(one_query)} passages, max_documents=4 "
        f"| {sent} requests (expected {math.ceil(len(one_query) / 4)}), largest difference {differences[-1]:.1e} |"
    )

    long = " ".join(fact for _, fact in FACTS * 20)
    overlong = [(query, long) for query, _ in FACTS]
    differences.append(largest_difference(local.score(overlong), remote.score(overlong)))
    print(f"| passage of {len(long):,} characters, cut by both | largest difference {differences[-1]:.1e} |")
    # Not counted: Infinity cuts the longer of the two, this package cuts long queries in their middle.
    both = (long[:1500], long)
    print(f"| query of 1,500 characters with it | server: {outcome(remote, both)}; torch: {outcome(local, both)} |")
    print(f"| passage of 130,000 characters | {outcome(remote, (FACTS[0][0], 'word ' * 26_000))} |")
    few.close()
    remote.close()
    named = RemoteCrossEncoder(f"{url}/rerank", model="no-such-model")
    print(f"| wrong model name, server with one model | {outcome(named, pairs[0])}; torch: {expected[0]:.6f} |")
    named.close()
    return max(differences)


def show_errors(url: str, pair: TextPair) -> None:
    """Print the rows of a server with two names and a key."""
    cases: tuple[tuple[str, str | None, str], ...] = (
        ("right model name and key, server with two models", "second", KEY),
        ("wrong model name, server with two models", "no-such-model", KEY),
        ("no model name, server with two models", None, KEY),
        ("wrong key", "second", "another-key"),
    )
    for what, name, key in cases:
        remote = RemoteCrossEncoder(f"{url}/rerank", model=name, api_key=key)
        print(f"| {what} | {outcome(remote, pair)} |")
        remote.close()


def main() -> int:
    """Compare, print a Markdown table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infinity", type=Path, required=True, help="the executable infinity_emb")
    parser.add_argument("--model", required=True, help="folder of a sequence-classification model with one label")
    parser.add_argument("--pairs", type=int, default=200)
    options = parser.parse_args()
    if options.pairs < 1:
        parser.error("--pairs takes 1 or more")
    if not options.infinity.is_file():
        parser.error(f"--infinity is {str(options.infinity)!r}, which is not a file; see --help for how to install it")
    # A terminated process would leave the server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    pairs = make_pairs(options.pairs)
    local = load_cross_encoder(options.model, backend="torch", activation="sigmoid", device="cpu")
    server, ours = versions(options.infinity)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(f"| what | measured |\n|---|---|\n| server | {server} |\n| here | {ours} |")
    with serve(options.infinity, options.model) as url:
        difference = compare(url, local, pairs)
    with serve(options.infinity, options.model, names=("first", "second"), key=KEY) as url:
        show_errors(url, pairs[0])
    if difference > TOLERANCE:
        print(f"\nScores differ by {difference:.1e}, more than {TOLERANCE}.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
