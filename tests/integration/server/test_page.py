"""The page in a real browser: both lists, moves, sliders and code, at every width, by keyboard, and safe."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from threading import Event
from typing import Any, cast

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

pytest.importorskip("websockets", reason="needs websockets")

from langchain_crossrerank import cli, load_cross_encoder
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.server import page
from langchain_crossrerank.server import running as server_running
from langchain_crossrerank.server.config import Limits, PagePassage, ServerConfig
from langchain_crossrerank.server.models import ServedModels
from langchain_crossrerank.server.page import cut_into_passages
from langchain_crossrerank.server.scoring import ClientGoneError, while_connected
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.integration.server.browser import CHROMIUM, Tab, open_tab
from tests.integration.server.conftest import GatedCrossEncoder, Serve
from tests.integration.server.running_server import RunningServer, local_config, running, wait_for

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

DONE = "!document.getElementById('results').hidden && !document.getElementById('go').hasAttribute('aria-busy')"
ROWS = """[...document.querySelectorAll('#after > li')].map(row => ({
  before: Number(row.dataset.before), score: Number(row.querySelector('.score').textContent),
  move: row.querySelector('.move').textContent, kept: !row.classList.contains('dropped'),
  text: row.querySelector('.passage').textContent,
  marked: [...row.querySelectorAll('.passage mark')].map(mark => mark.textContent),
}))"""
HOSTILE = [
    "<img src=x onerror=\"document.title='broken in'\"> is a passage",
    "</script><script>document.title='broken in'</script> another passage",
    "right to left \u202e passage \u2066 marks, 🙂🙂 and more. A sentence after them about a passage.",
    "{{ 7 * 7 }} ${document.title='broken in'} passage `x`",
]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A tab of a real browser."""
    with open_tab(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_complaints(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test in the browser: its console said nothing, and nothing was blocked."""
    yield
    if "tab" in request.fixturenames:
        tab: Tab = request.getfixturevalue("tab")
        tab.value("0")
        complaints, tab.complaints[:] = list(tab.complaints), []
        assert complaints == []


def search(tab: Tab, url: str, query: str, passages: list[str]) -> list[dict[str, Any]]:
    """Open the page, paste passages, and return the reranked rows."""
    tab.show(width=1280)
    tab.go(url)
    tab.wait_for(DONE)
    tab.value("[...document.querySelectorAll('#examples button')].at(-1).click()")
    tab.value(
        f"document.getElementById('passages').value = {json.dumps(chr(10).join(f'{p}{chr(10)}' for p in passages))}"
    )
    tab.value(f"document.getElementById('query').value = {json.dumps(query)}")
    tab.value("document.getElementById('search').requestSubmit()")
    tab.wait_for(f"{DONE} && document.querySelectorAll('#after > li').length === {len(passages)}")
    return list(tab.value(ROWS))


@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_an_example_is_shown_at_once(server: RunningServer, tab: Tab, width: int, dark: bool) -> None:
    """The first example is reranked on opening: it fits the window, with bars, moves, lines and marked sentences."""
    tab.show(width=width, dark=dark)
    tab.go(server.url)
    tab.wait_for(f"{DONE} && document.querySelector('#after mark') !== null")
    assert tab.value("document.documentElement.scrollWidth") == width
    rows = tab.value(ROWS)
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert sorted(row["before"] for row in rows) == list(range(1, len(rows) + 1))
    assert [row["kept"] for row in rows] == [place < 3 for place in range(len(rows))]
    assert any(row["move"].startswith("+") for row in rows)
    bars = tab.value("[...document.querySelectorAll('#after .bar > i')].map(bar => bar.getBoundingClientRect().width)")
    assert bars == sorted(bars, reverse=True)
    assert bars[0] > bars[-1]
    lines = tab.value("[...document.querySelectorAll('#ribbons path')].map(path => path.getAttribute('d'))")
    assert len(lines) == len(rows)
    assert all(re.fullmatch(r"M0 [\d.]+C50 [\d.]+ 50 [\d.]+ 100 [\d.]+", line) for line in lines)
    assert re.search(
        r"BM25 .*ms · reranked \d+ passages in .* ms", tab.value("document.getElementById('facts').textContent")
    )
    background, colour = tab.value("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    levels = [sum(map(int, re.findall(r"\d+", text)[:3])) for text in (background, colour)]
    assert (levels[0] < levels[1]) == dark
    assert abs(levels[0] - levels[1]) > 300


@needs_browser
def test_the_sliders_choose_what_is_kept(server: RunningServer, tab: Tab) -> None:
    """`top_n` and the threshold change what is kept at once, and the code says both."""
    tab.show(width=1280)
    tab.go(server.url)
    tab.wait_for(f"{DONE} && document.querySelector('#after mark') !== null")
    rows = tab.value(ROWS)
    between = round((rows[0]["score"] + rows[1]["score"]) / 2, 3)
    for slider, value in (("top-n", len(rows)), ("threshold", round(1000 * between))):
        element = f"document.getElementById('{slider}')"
        tab.value(f"{element}.value = {value}; {element}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    assert [row["kept"] for row in tab.value(ROWS)] == [True] + [False] * (len(rows) - 1)
    assert tab.value("document.querySelectorAll('#ribbons path.dropped').length") == len(rows) - 1
    code = tab.value("document.getElementById('code').textContent")
    assert f"top_n={len(rows)}" in code
    assert "score_threshold=0." in code
    assert "Keeps 1 of" in tab.value("document.getElementById('kept').textContent")


@needs_browser
def test_everything_works_by_keyboard(server: RunningServer, tab: Tab) -> None:
    """Tab reaches the query, a passage, a slider and the copy button; Enter and arrows use them; focus is visible."""
    tab.show(width=1280)
    tab.go(server.url)
    tab.wait_for(f"{DONE} && document.querySelector('#after mark') !== null")
    before = tab.value("document.getElementById('asked').textContent")
    tab.tab_to("query")
    assert tab.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.value("document.activeElement.select()")
    tab.type("Which command copies a repository?")
    tab.press("Enter")
    tab.wait_for(f"{DONE} && document.getElementById('asked').textContent !== {json.dumps(before)}")
    tab.wait_for("document.querySelector('#after mark') !== null")
    tab.tab_to("top-n")
    tab.press("ArrowRight")
    assert tab.value("document.querySelectorAll('#after > li:not(.dropped)').length") == 4
    tab.tab_to("threshold")
    tab.press("Tab")
    assert tab.value("document.activeElement.tagName") == "SUMMARY"
    assert tab.value("document.querySelectorAll('.lit').length") >= 2
    tab.press("Enter")
    assert tab.value("document.activeElement.parentElement.open")
    tab.tab_to("copy")
    tab.press("Enter")
    tab.wait_for("/Copied|Selected/.test(document.getElementById('copy').textContent)")


@needs_browser
def test_texts_are_never_markup(server: RunningServer, tab: Tab) -> None:
    """Markup in a query or a passage is shown as typed, and marks that turn its direction as escapes."""
    rows = search(tab, server.url, "<b>which</b> passage", HOSTILE)
    assert tab.value("document.title") == "crossrerank"
    assert tab.value("document.querySelectorAll('main img, main script, main b').length") == 0
    assert {row["text"] for row in rows} == {
        text.replace("\u202e", "\\u202e").replace("\u2066", "\\u2066") for text in HOSTILE
    }
    assert tab.value("document.getElementById('asked').textContent") == "<b>which</b> passage"


@needs_browser
def test_the_code_gives_what_is_on_the_screen(server: RunningServer, tab: Tab, tmp_path: Path) -> None:
    """The copied program prints the same passages in the same order with the same scores."""
    rows = search(
        tab, server.url, 'Which "passage"?', [*HOSTILE, "A \\ backslash, 'quotes' and \"quotes\" in a passage."]
    )
    script = tmp_path / "copied.py"
    script.write_text(tab.value("document.getElementById('code').textContent"), encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, encoding="utf-8", timeout=120, check=True)
    printed = [line.split("  ", 1) for line in done.stdout.splitlines()]
    kept = [row for row in rows if row["kept"]]
    assert [f"{row['score']:.3f}" for row in kept] == [score for score, _ in printed]
    shown = [text.replace("\u202e", "\\u202e").replace("\u2066", "\\u2066") for _, text in printed]
    assert shown == [row["text"] for row in kept]


@needs_browser
def test_the_best_sentence_is_marked(server: RunningServer, tab: Tab) -> None:
    """In a passage of several sentences the one that answers is marked, also after characters beyond 16 bits."""
    text = "🙂🙂 The weather is fine today. The ferry leaves the harbour at nine. Bring a coat."
    (row,) = search(tab, server.url, "When does the ferry leave the harbour?", [text])
    assert row["marked"] == ["The ferry leaves the harbour at nine."]


@needs_browser
def test_files_are_searched(tab: Tab) -> None:
    """Opened on files, the page searches their passages and names where each is from."""
    passages = tuple(PagePassage(f"passage {number} about {word}", f"notes.md, line {number}", "notes.md")
                     for number, word in enumerate(("ferries", "models", "ferries and models")))  # fmt: skip
    with running(local_config("bundled", passages=passages)) as server:
        tab.show(width=1280)
        tab.go(server.url)
        tab.wait_for("document.activeElement.id === 'query'")
        assert "3 passages of notes.md" in tab.value("document.getElementById('files').textContent")
        tab.wait_for("document.getElementById('status').textContent === ''")
        tab.type("ferries")
        tab.press("Enter")
        tab.wait_for(DONE)
        assert len(tab.value(ROWS)) == 2
        assert "line" in tab.value("document.querySelector('.source').textContent")


@needs_browser
def test_the_page_asks_for_a_key(serve_fake: Serve, tab: Tab) -> None:
    """Where a key is needed, a field for it appears, and the page works with it."""
    with serve_fake(FakeCrossEncoder(), api_keys=("the-key",)) as server:
        tab.show(width=1280)
        tab.go(server.url)
        tab.wait_for("document.activeElement.id === 'key'")
        # The browser reports the answer 401 itself.
        assert [text for text in tab.complaints if "401" not in text] == []
        tab.complaints.clear()
        tab.type("the-key")
        tab.press("Tab")
        tab.wait_for(DONE)


@needs_browser
def test_a_key_in_the_address_opens_the_page(serve_fake: Serve, tab: Tab) -> None:
    """`crossrerank ui` opens the page with its key, so that nothing is asked and nothing is refused."""
    with serve_fake(FakeCrossEncoder(), api_keys=("the-key",)) as server:
        tab.show(width=1280)
        tab.go(f"{server.url}/#key=the-key")
        tab.wait_for(DONE)
        assert tab.value("document.getElementById('key-row').hidden")


@needs_browser
def test_a_wrong_search_is_said(server: RunningServer, tab: Tab) -> None:
    """Without passages, the page says what to do."""
    tab.go(server.url)
    tab.wait_for(DONE)
    tab.value("[...document.querySelectorAll('#examples button')].at(-1).click()")
    tab.value("document.getElementById('query').value = 'a query'")
    tab.value("document.getElementById('search').requestSubmit()")
    tab.wait_for("document.getElementById('status').textContent.includes('Paste some passages')")


def test_the_page_is_confined(client: httpx.Client) -> None:
    """Its policy allows nothing but its own files, and they name no other address."""
    for path in ("/", "/page/try.js", "/page/try.css", "/page/style.css", "/page/page.css", "/page/examples.json"):
        answer = client.get(path).raise_for_status()
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", answer.text) == []


def test_the_first_stage_orders_and_drops_copies(client: httpx.Client) -> None:
    """BM25 puts passages with the query's words first and the others after them; as given keeps the order."""
    passages = ["about nothing", "a ferry", "a  ferry", "a ferry and a ferry boat", " ", "about  nothing"]
    body = {"query": "ferry", "passages": passages, "order": "bm25"}
    found = client.post("/try/search", json=body).json()
    assert {passage["text"] for passage in found["passages"][:2]} == {"a ferry", "a ferry and a ferry boat"}
    assert found["passages"][2]["text"] == "about nothing"
    given = client.post("/try/search", json={**body, "order": "given", "k": 2}).json()
    assert [passage["text"] for passage in given["passages"]] == ["about nothing", "a ferry"]
    model = load_cross_encoder("bundled", activation="sigmoid")
    expected = model.score([("ferry", passage["text"]) for passage in found["passages"]])
    assert [passage["score"] for passage in found["passages"]] == pytest.approx(expected, abs=1e-6)
    assert client.post("/try/search", json={**body, "order": "random"}).status_code == httpx.codes.BAD_REQUEST


def test_the_given_order_of_files_is_kept(serve_fake: Serve) -> None:
    """Passages of files in the given order are the first ones, whether or not they have the query's words."""
    passages = tuple(PagePassage(f"passage {number}") for number in range(5))
    with serve_fake(FakeCrossEncoder(), passages=passages) as server, server.client() as client:
        given = client.post("/try/search", json={"query": "ferry", "order": "given", "k": 3}).json()
    assert [passage["text"] for passage in given["passages"]] == ["passage 0", "passage 1", "passage 2"]


def test_sentences_are_scored_within_the_limits(serve_fake: Serve) -> None:
    """The sentences of a request are no more than its documents may be, have its tokens, and the model's errors."""
    model = GatedCrossEncoder()
    model.gate.set()
    text = " ".join(f"Ferry number {number} leaves the harbour." for number in range(20))
    with serve_fake(model, limits=Limits(documents=6, tokens=400)) as server, server.client() as client:
        found = client.post("/try/sentences", json={"query": "q", "passages": [text, text]}).json()
        assert len(found["spans"]) == 2
        assert sum(query == "q" for batch in model.batches for query, _ in batch) <= 6
        long = client.post("/try/sentences", json={"query": "q " * 400, "passages": [text]})
        assert long.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
        broken = client.post("/try/sentences", json={"query": "q", "passages": ["This ferry is broken down today."]})
        assert "the model broke" in broken.json()["message"]


@pytest.mark.parametrize("path", ["/try/search", "/try/sentences"])
def test_the_page_has_the_limits_of_other_requests(
    serve_fake: Serve, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Too many passages, or too long ones, are refused before they are indexed or divided into sentences."""
    for name in ("LexicalIndex", "find_quotes"):
        monkeypatch.setattr(page, name, lambda _: pytest.fail("the texts were read"))
    with serve_fake(FakeCrossEncoder(), limits=Limits(documents=6, tokens=50)) as server, server.client() as client:
        for body, message in (
            ({"query": "q", "passages": ["a"] * 7}, "7 documents"),
            ({"query": "q", "passages": ["a" * 100] * 2}, "201 characters"),
            ({"query": "q" * 201, "passages": []}, "201 characters"),
        ):
            answer = client.post(path, json=body)
            assert answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
            assert message in answer.json()["message"]


async def test_a_place_in_the_queue_is_held_until_the_thread_is_free() -> None:
    """A client that goes away leaves its place when the work for it has ended, so that the queue bounds the work."""
    began, gate = Event(), Event()
    ended: list[str] = []

    def work(_: None) -> None:
        began.set()
        assert gate.wait(60)
        ended.append("thread")

    async def gone() -> Message:
        assert await asyncio.to_thread(began.wait, 60)
        return {"type": "http.disconnect"}

    config = local_config()
    own = page.Page(config, ServedModels(config), cast("Any", None), cast("Any", None))
    request = Request({"type": "http"}, gone)
    place = asyncio.ensure_future(while_connected(request, own._in_thread(work, None)))
    place.add_done_callback(lambda _: ended.append("place"))
    assert await asyncio.to_thread(began.wait, 60)
    for _ in range(100):
        await asyncio.sleep(0)
    gate.set()
    with pytest.raises(ClientGoneError):
        await place
    assert ended == ["thread", "place"]


def test_sentences_are_given_up_with_their_client(serve_fake: Serve) -> None:
    """Closing the page stops the scoring of its sentences."""
    model = GatedCrossEncoder()
    text = " ".join(f"Ferry number {number} leaves the harbour." for number in range(60))
    with serve_fake(model) as server:
        with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=1) as client:
            client.post(f"{server.url}/try/sentences", json={"query": "q", "passages": [text]})
        wait_for(lambda: server.metric('crossrerank_requests_total{dialect="page",status="499"}') == 1)
        model.gate.set()
        with server.client() as client:
            assert client.post("/v1/rerank", json={"query": "other", "documents": ["a"]}).status_code == httpx.codes.OK
        assert sum(query == "q" for batch in model.batches for query, _ in batch) < 60


def test_examples_show_a_change(client: httpx.Client) -> None:
    """Each shipped example can be searched, and in the first the reranker finds what BM25 had further down."""
    examples = json.loads(files("langchain_crossrerank.server").joinpath("static/examples.json").read_text("utf-8"))
    assert len(examples) >= 3
    places = []
    for example in examples:
        body = {"query": example["query"], "passages": example["passages"]}
        passages = client.post("/try/search", json=body).json()["passages"]
        places.append(max(range(len(passages)), key=lambda place: passages[place]["score"]))
    assert places[0] > 2


def test_other_users_cannot_search_the_files_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each start of `crossrerank ui` has a key of its own, which is only in the address that it opens."""
    (tmp_path / "notes.md").write_text("The ferry leaves at nine.\n", encoding="utf-8")
    opened: list[str] = []
    keys: list[tuple[str, ...]] = []

    def serve(config: ServerConfig, listener: socket.socket) -> None:
        keys.append(config.api_keys)
        listener.close()

    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(server_running, "serve", serve)
    for environment in ("", "a-key-of-the-user"):
        monkeypatch.setenv("CROSSRERANK_API_KEY", environment)
        assert cli.main(["ui", str(tmp_path), "--port", "0"]) == 0
    (first,), (second, *others) = keys
    assert [url.partition("/#key=")[2] for url in opened] == [first, second]
    assert first != second
    assert others == ["a-key-of-the-user"]


def test_files_are_cut_into_passages(tmp_path: Path) -> None:
    """Folders and files become passages that say where they are from; what cannot be read is reported."""
    (tmp_path / "notes.md").write_text("# Ferries\n\nThe ferry leaves at nine.\n", encoding="utf-8")
    (tmp_path / "broken.pdf").write_bytes(b"not a PDF")
    passages, failures = cut_into_passages([str(tmp_path)])
    assert [passage.file for passage in passages] == ["notes.md"]
    assert "The ferry leaves at nine." in passages[0].text
    assert len(failures) == 1
    with pytest.raises(InvalidInputError, match=r"broken\.pdf"):
        cut_into_passages([str(tmp_path / "broken.pdf")])
