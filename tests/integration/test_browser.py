"""Results in a real browser: pages and notebook cells, narrow and wide, light and dark, and what moves on them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

pytest.importorskip("ir_measures", reason="needs the eval extra")
pytest.importorskip("matplotlib", reason="needs the eval extra")

from matplotlib.image import imread

from langchain_crossrerank import compare, create_rerank_retriever
from langchain_crossrerank.evaluation import evaluate, profile, sweep
from langchain_crossrerank.testing import ScriptedCrossEncoder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

SCHEMES = {"light": ("#ffffff", "#111111"), "dark": ("#111111", "#eeeeee")}

UNBROKEN = "AWordWithoutAnySpaceToBreakAt" * 8
TEXTS = [
    "LoRA trains two thin matrices beside a frozen model.",
    f"A passage with <b>markup</b>, $dollar signs$ and a word: {UNBROKEN}",
    "A passage that goes on and on about rank, adaptation and memory. " * 12,
    "A ferry leaves the harbour at nine.",
    "The rank of a LoRA matrix is what its thin factors span.",
    *(f"Passage number {number} on something else." for number in range(6, 21)),
]
QUERIES = {
    "q1": "What is the rank of a LoRA matrix?",
    "q2": f"What is {UNBROKEN}?",
    "q3": "When does the ferry leave?",
}
QRELS = {"q1": {"d4": 2, "d0": 1}, "q2": {"d0": 1}, "q3": {"d3": 1}}

MEASURE_PAGE = """
window.addEventListener("load", async () => {
  const luminance = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map(Number).map(c => c / 255)
      .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const measured = await Promise.all([...document.querySelectorAll("iframe")].map(async frame => {
    const inside = frame.contentDocument, view = frame.contentWindow, root = inside.documentElement;
    const style = element => view.getComputedStyle(element);
    const background = style(inside.body).backgroundColor;
    const behind = element => {
      const own = style(element).backgroundColor;
      return element === inside.body || own.startsWith("rgb(") ? own : behind(element.parentElement);
    };
    const lines = element => {
      const text = inside.createRange();
      text.selectNodeContents(element);
      return new Set([...text.getClientRects()].map(r => Math.round(r.top))).size;
    };
    const shown = element => element.checkVisibility() && element.textContent.trim();
    const name = element => element.outerHTML.slice(0, 90);
    const closed = { scroll: root.scrollWidth, height: root.scrollHeight };
    const texts = [...inside.querySelectorAll(".crossrerank :is(h1, h2, h3, p, td, th, li, span, label)")]
      .filter(shown);
    const first = inside.querySelector("details > summary");
    if (first) first.click();
    const act = frame.dataset.act;
    if (act) new Function("inside", act)(inside);
    // Opening and resizing are reported later.
    await new Promise(done => setTimeout(done, 200));
    const read = frame.dataset.read;
    return {
      name: frame.dataset.name,
      inner: view.innerWidth,
      ...closed,
      opened: { scroll: root.scrollWidth, text: first ? first.parentElement.innerText : "" },
      broken: [...inside.querySelectorAll(".crossrerank :is(.figure, td:not(.text))")].filter(shown)
        .filter(e => lines(e) > 1).map(name),
      outside: texts.filter(e => e.getBoundingClientRect().right > view.innerWidth + 1).map(name),
      faint: texts.filter(e => contrast(style(e).color, behind(e)) < 3).map(name),
      centred: texts.filter(e => style(e).textAlign === "center" || style(e).textAlign === "-webkit-center").map(name),
      background,
      read: read ? new Function("inside", "view", read)(inside, view) : null,
    };
  }));
  const output = document.createElement("pre");
  output.id = "measured";
  output.style.display = "none";
  output.textContent = JSON.stringify(measured);
  document.body.append(output);
});
"""


def results() -> dict[str, Any]:
    """Run all four on a small first stage whose passages are hard to lay out."""
    candidates = [Document(text, id=f"d{number}") for number, text in enumerate(TEXTS)]
    scores = {TEXTS[4]: 11.125, TEXTS[0]: 4.5, TEXTS[2]: -2.25, TEXTS[1]: -11.25}
    retriever = create_rerank_retriever(
        RunnableLambda(lambda _: candidates), model=ScriptedCrossEncoder(scores, default=-12.5), top_n=8
    )
    return {
        "compare": compare(retriever, QUERIES["q2"]),
        "evaluate": evaluate(retriever, QUERIES, QRELS, show_progress=False),
        "profile": profile(retriever, list(QUERIES.values()), repeats=1),
        "sweep": sweep(retriever, QUERIES, QRELS, ks=(2, 5, 10, 20), timed_queries=2, show_progress=False),
    }


PAGES = {
    "compare": (".after > li", ".ribbons path"),
    "evaluate": (".query", ".differences rect"),
    "profile": ("tbody tr", ".stages i"),
    "sweep": ("tbody tr", ".plot .dot"),
}
"""What to count on each page: rows, and pieces of the chart."""


class Browser:
    """Shows HTML in frames of a given width, and returns what is measured in each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def measure(self, frames: list[dict[str, str]], *, width: int, dark: bool = False) -> list[dict[str, Any]]:
        """Load each frame's `html`; `act` is run once it is loaded, and `read` returns what else is asked for."""
        shown = "".join(
            f'<iframe style="width:{width}px;height:1200px;border:0" '
            + " ".join(f'data-{key}="{escape(value)}"' for key, value in frame.items() if key != "html")
            + f' srcdoc="{escape(frame["html"])}"></iframe>'
            for frame in frames
        )
        file = self.folder / f"{width}-{dark}.html"
        file.write_text(
            f'<!doctype html><meta charset="utf-8"><body>{shown}<script>{MEASURE_PAGE}</script></body>', "utf-8"
        )
        command = [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
            "--force-prefers-reduced-motion",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            f"--user-data-dir={self.folder / 'profile'}",
            "--window-size=1400,1400",
            "--virtual-time-budget=2000",
            "--dump-dom",
            file.as_uri(),
        ]
        browser = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        measured = re.search('<pre id="measured"[^>]*>(.*?)</pre>', browser.stdout, re.DOTALL)
        assert measured is not None, browser.stdout[-2000:] + browser.stderr[-2000:]
        found: list[dict[str, Any]] = json.loads(unescape(measured.group(1)))
        return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """The browser."""
    return Browser(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """The four results."""
    return results()


@pytest.fixture(scope="module", params=[(400, False), (1280, True), (400, True), (1280, False)], ids=str)
def pages(request: pytest.FixtureRequest, browser: Browser, found: dict[str, Any]) -> list[dict[str, Any]]:
    """What the browser measured on the page of each result: narrow and wide, light and dark."""
    width, dark = request.param
    count = "return {}.map(selector => inside.querySelectorAll(selector).length);"
    frames = [
        {"name": name, "html": result.to_html(["A note."]), "read": count.format(json.dumps(PAGES[name]))}
        for name, result in found.items()
    ]
    measured = browser.measure(frames, width=width, dark=dark)
    assert [page["inner"] for page in measured] == [width] * 4
    # Light paper in the light, dark paper in the dark.
    papers = [sum(map(int, re.findall(r"[0-9]+", page["background"])[:3])) for page in measured]
    assert all(paper < 200 if dark else paper > 600 for paper in papers)
    return measured


@pytest.fixture(scope="module", params=SCHEMES)
def cells(request: pytest.FixtureRequest, browser: Browser, found: dict[str, Any]) -> list[dict[str, Any]]:
    """What the browser measured on each result in a notebook's cell, which centres and right-aligns by itself."""
    background, colour = SCHEMES[request.param]
    head = (
        f"<style>body{{background:{background};color:{colour};margin:8px;text-align:right}}"
        "td,th{text-align:right}</style>"
    )
    frames = [{"name": name, "html": head + result._repr_html_()} for name, result in found.items()]
    return browser.measure(frames, width=800)


def named(measured: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """One measurement of each page, by the page's name."""
    return {page["name"]: page[key] for page in measured}


def test_no_page_scrolls_sideways(pages: list[dict[str, Any]]) -> None:
    """Whatever passages and queries hold, nothing is wider than the page, also with a passage opened."""
    for page in pages:
        assert page["scroll"] <= page["inner"], page["name"]
        assert page["opened"]["scroll"] <= page["inner"], page["name"]
    assert named(pages, "outside") == {name: [] for name in PAGES}


def test_no_figure_is_broken(pages: list[dict[str, Any]]) -> None:
    """Places, moves, scores and measures such as -12.500 stay on one line."""
    assert named(pages, "broken") == {name: [] for name in PAGES}


def test_everything_is_legible(pages: list[dict[str, Any]]) -> None:
    """Every text stands out from the page by a contrast of at least 3 to 1."""
    assert named(pages, "faint") == {name: [] for name in PAGES}


def test_rows_and_charts_are_there(pages: list[dict[str, Any]], found: dict[str, Any]) -> None:
    """Each page has the rows of its figures, and a piece of its chart for each."""
    assert named(pages, "read") == {
        "compare": [len(TEXTS), len(TEXTS)],
        "evaluate": [len(QUERIES), len(QUERIES)],
        "profile": [len(found["profile"].stages)] * 2,
        "sweep": [4, 4],
    }


def test_a_passage_opens_whole(pages: list[dict[str, Any]]) -> None:
    """A click on a row shows its whole passage, and one on a query its two lists."""
    opened = named(pages, "opened")
    assert TEXTS[4] in opened["compare"]["text"]
    assert "first stage" in opened["evaluate"]["text"]
    assert "relevant" in opened["evaluate"]["text"]


def test_a_notebook_keeps_texts_to_the_left_and_inside(cells: list[dict[str, Any]]) -> None:
    """In a cell 800 pixels wide nothing is cut, broken, centred or illegible, light or dark."""
    for key in ("outside", "broken", "faint", "centred"):
        assert named(cells, key) == {name: [] for name in PAGES}, key
    assert all(cell["scroll"] <= 800 for cell in cells)


STATE = (
    "const form = inside.querySelector('.sliders');"
    "return { hidden: form.hidden, says: form.querySelector('p').textContent,"
    " kept: inside.querySelectorAll('.after > li:not(.dropped)').length };"
)
"""Reads what the sliders say, and how many passages are kept."""

MOVE = (
    "const form = inside.querySelector('.sliders');"
    "form.elements.{name}.value = {value};"
    "form.dispatchEvent(new Event('input', {{ bubbles: true }}));"
)
"""Moves a slider."""


def test_sliders_say_what_would_be_kept(browser: Browser, found: dict[str, Any]) -> None:
    """Moving a slider marks the passages that would be dropped, and says how many would be kept, and from where."""
    html = found["compare"].to_html()
    start, fewer, strict = browser.measure(
        [
            {"name": "start", "html": html, "read": STATE},
            {"name": "top_n", "html": html, "read": STATE, "act": MOVE.format(name="top_n", value=2)},
            {"name": "threshold", "html": html, "read": STATE, "act": MOVE.format(name="threshold", value=1000)},
        ],
        width=1280,
    )
    assert start["read"]["kept"] == 8
    assert start["read"]["says"].startswith("top_n=8 would keep 8 of 20, at first-stage places 5, 1, 3, 2, ")
    assert not start["read"]["hidden"]
    assert fewer["read"] == {
        "hidden": False,
        "kept": 2,
        "says": "top_n=2 would keep 2 of 20, at first-stage places 5, 1; "
        "1 of them was not in the first stage's best 2.",
    }
    assert strict["read"]["kept"] == 1
    assert "score_threshold=11.125" in strict["read"]["says"]


SCORES = {"a": 0.1, "b": 0.335, "c": 0.2, "d": 0.05, "e": 0.3}


@pytest.mark.parametrize(
    ("scores", "settings", "served", "of_three"),
    [
        (SCORES, {"score_threshold": 0.9999}, "score_threshold=0.9999 would keep nothing", "nothing"),
        (dict.fromkeys(SCORES, 0.1), {"score_threshold": 0.5}, "score_threshold=0.5 would keep nothing", "nothing"),
        (
            SCORES,
            {"score_threshold": 0.9999, "min_documents": 2},
            "score_threshold=0.9999, min_documents=2 would keep 2 of 5, at first-stage places 2, 5;",
            "2 of 5, at first-stage places 2, 5;",
        ),
        (
            SCORES,
            {"top_n": 2, "blend": "rrf", "blend_weight": 0.5},
            "top_n=2 would keep 2 of 5, at first-stage places 2, 1.",
            "3 of 5, at first-stage places 2, 1, 3.",
        ),
        (
            SCORES,
            {"score_threshold": 0.15, "blend": "rrf", "blend_weight": 0.5},
            "score_threshold=0.15 would keep 3 of 5, at first-stage places 2, 3, 5;",
            "3 of 5, at first-stage places 2, 3, 5;",
        ),
    ],
    ids=["above the best", "equal scores", "at least two", "blend", "blend and threshold"],
)
def test_sliders_choose_as_the_reranker_does(
    browser: Browser, scores: dict[str, float], settings: dict[str, Any], served: str, of_three: str
) -> None:
    """The page keeps what the reranker kept until a slider is moved, and then what it would keep."""
    candidates = [Document(text) for text in scores]
    options = {"top_n": None, **settings}
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: candidates)
    retriever = create_rerank_retriever(first_stage, model=ScriptedCrossEncoder(scores), **options)
    comparison = compare(retriever, "q")
    frame = {"html": comparison.to_html(), "read": STATE}
    acts = {"start": "", "top_n": MOVE.format(name="top_n", value=3), "best": MOVE.format(name="threshold", value=-1)}
    start, fewer, lenient = browser.measure(
        [{"name": name, "act": act, **frame} for name, act in acts.items()], width=800
    )
    assert served in start["read"]["says"]
    assert start["read"]["kept"] == len(comparison.reranked)
    assert f"would keep {of_three}" in fewer["read"]["says"]
    assert lenient["read"]["kept"] == (settings.get("top_n") or len(scores))


def test_ribbons_follow_an_opened_passage(browser: Browser, found: dict[str, Any]) -> None:
    """Each ribbon ends at the middle of its row, also when the passage above it is open; without the script,
    ribbons that cannot follow fade."""
    gap = (
        "const box = inside.querySelector('.ribbons').getBoundingClientRect();"
        "return [...inside.querySelectorAll('.after > li')].map(row => {"
        " const path = inside.querySelector(`path[data-before='${row.dataset.before}']`);"
        " const scale = box.height / path.ownerSVGElement.viewBox.baseVal.height;"
        " const end = box.top + scale * Number(path.getAttribute('d').split(' ').at(-1));"
        " const { top, height } = row.querySelector('summary').getBoundingClientRect();"
        " return Math.abs(end - top - height / 2); });"
    )
    html = found["compare"].to_html()
    seen = "return Number(view.getComputedStyle(inside.querySelector('.ribbons')).opacity);"
    whole = {"name": "compare", "html": html, "read": gap}
    still = {"name": "without script", "html": re.sub("<script>.*</script>", "", html, flags=re.DOTALL), "read": seen}
    page, visible, faded = browser.measure([whole, {**whole, "read": seen}, still], width=1280)
    assert max(page["read"]) < 2
    assert visible["read"] == 1
    assert faded["read"] < 0.2


def test_gains_and_losses_can_be_filtered(browser: Browser, found: dict[str, Any]) -> None:
    """Choosing losses hides the queries and bars that are none."""
    html = found["evaluate"].to_html()
    count = "return [...inside.querySelectorAll('.query')].filter(e => e.checkVisibility()).map(e => e.className);"
    choose = "inside.querySelector('input[value={}]').click();"
    kinds = [
        page["read"]
        for page in browser.measure(
            [{"name": kind, "html": html, "read": count, "act": choose.format(kind)} for kind in ("up", "down")],
            width=1280,
        )
    ]
    differences = found["evaluate"].report().chart.queries
    assert kinds == [[f"query {kind}" for query in differences if query.kind == kind] for kind in ("up", "down")]
    assert any(kinds)


def test_everything_that_opens_can_be_reached_by_keyboard(found: dict[str, Any]) -> None:
    """Whatever can be clicked is an element that browsers let the keyboard reach: summaries, inputs and links."""
    for result in found.values():
        html = result.to_html()
        assert "onclick" not in html
        assert not re.search(r"<summary[^>]*tabindex", html)


def test_plots_are_pictures_of_a_sensible_size(found: dict[str, Any], tmp_path: Path) -> None:
    """Each plot is a picture that is not of a single colour."""
    for name, result in found.items():
        result.plot().savefig(tmp_path / f"{name}.png")
        picture = imread(tmp_path / f"{name}.png")[:, :, :3]
        height, width = picture.shape[:2]
        assert (width >= 600, height >= 100) == (True, True), name
        assert float(picture.std(axis=(0, 1)).max()) > 0.01, name
