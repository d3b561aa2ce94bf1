"""Results in a real browser: tables and charts are there and fit a page of 800 pixels, light and dark."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
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

WIDTH, HEIGHT = 800, 3600
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
window.addEventListener("load", () => {
  const luminance = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map(Number).map(c => c / 255)
      .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const background = getComputedStyle(document.body).backgroundColor;
  const box = element => {
    const { left, top, right, bottom } = element.getBoundingClientRect();
    return { left, top, right, bottom };
  };
  const measured = {
    inner: window.innerWidth,
    scroll: document.documentElement.scrollWidth,
    height: document.documentElement.scrollHeight,
    sections: [...document.querySelectorAll("section")].map(section => {
      const result = section.querySelector(".crossrerank");
      const image = section.querySelector("img");
      return {
        name: section.id,
        rows: section.querySelectorAll("tbody tr").length,
        table: box(section.querySelector("table")),
        image: { width: image.naturalWidth, height: image.naturalHeight, ...box(image) },
        clipped: [result, ...result.querySelectorAll("td, th, p, li")]
          .filter(e => e.scrollWidth > e.clientWidth).map(e => e.outerHTML.slice(0, 80)),
        tall: [...result.querySelectorAll("td.n")]
          .filter(e => e.getBoundingClientRect().height > 0 && e.firstChild)
          .filter(e => {
            const text = document.createRange();
            text.selectNodeContents(e);
            return new Set([...text.getClientRects()].map(r => r.top)).size > 1;
          }).map(e => e.textContent),
        faint: [...result.querySelectorAll("td, th, p, li, b")]
          .filter(e => contrast(getComputedStyle(e).color, background) < 3).map(e => e.outerHTML.slice(0, 80)),
      };
    }),
  };
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


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The four results, their table rows, and a folder with their plots."""
    folder = tmp_path_factory.mktemp("pages")
    found = results()
    for name, result in found.items():
        result.plot().savefig(folder / f"{name}.png")
    return {"folder": folder, "results": found}


@pytest.fixture(scope="module", params=SCHEMES)
def page(
    request: pytest.FixtureRequest, shown: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the browser measured on a page of all results in one colour scheme, and its picture."""
    folder: Path = shown["folder"]
    background, colour = SCHEMES[request.param]
    sections = "".join(
        f'<section id="{name}">{result._repr_html_()}<img src="{name}.png" style="max-width:100%"></section>'
        for name, result in shown["results"].items()
    )
    file, picture = folder / f"{request.param}.html", folder / f"{request.param}.png"
    file.write_text(
        f'<!doctype html><html><head><meta charset="utf-8"><title>{request.param}</title></head>'
        f'<body style="background:{background};color:{colour};font-family:sans-serif;margin:8px">{sections}'
        f"<script>{MEASURE_PAGE}</script></body></html>",
        encoding="utf-8",
    )
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
        f"--window-size={WIDTH},{HEIGHT}",
        f"--screenshot={picture}",
        "--dump-dom",
        file.as_uri(),
    ]
    browser = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    measured = re.search('<pre id="measured"[^>]*>(.*?)</pre>', browser.stdout, re.DOTALL)
    assert measured is not None, browser.stdout[-2000:] + browser.stderr[-2000:]
    return {**json.loads(unescape(measured.group(1))), "picture": picture, **shown}


def test_nothing_is_wider_than_the_page(page: dict[str, Any]) -> None:
    """The page does not scroll sideways at 800 pixels, whatever the passages and queries hold."""
    assert page["inner"] == WIDTH
    assert page["scroll"] <= WIDTH
    for section in page["sections"]:
        for box in (section["table"], section["image"]):
            assert 0 <= box["left"] < box["right"] <= WIDTH


def test_no_text_is_cut_off_or_scrolls(page: dict[str, Any]) -> None:
    """Long words break, so that no cell, title or foot holds more than can be seen."""
    assert {section["name"]: section["clipped"] for section in page["sections"]} == {
        name: [] for name in page["results"]
    }


def test_numbers_stay_on_one_line(page: dict[str, Any]) -> None:
    """Places, moves and scores such as -12.500 are not broken in two."""
    assert [number for section in page["sections"] for number in section["tall"]] == []


def test_the_tables_are_there(page: dict[str, Any]) -> None:
    """Each result has its table with the rows that its figures need."""
    rows = {section["name"]: section["rows"] for section in page["sections"]}
    assert rows == {
        "compare": 8,
        "evaluate": len(page["results"]["evaluate"].measures),
        "profile": len(page["results"]["profile"].stages),
        "sweep": 4,
    }


def test_the_charts_are_there(page: dict[str, Any]) -> None:
    """Each plot was read by the browser as a picture of a sensible size."""
    for section in page["sections"]:
        assert section["image"]["width"] >= 600, section["name"]
        assert section["image"]["height"] >= 100, section["name"]


def test_everything_is_legible(page: dict[str, Any]) -> None:
    """Every text stands out from the background by a contrast of at least 3 to 1."""
    assert [text for section in page["sections"] for text in section["faint"]] == []


def test_the_browser_drew_tables_and_charts(page: dict[str, Any]) -> None:
    """In the browser's own picture neither the page, nor any table or chart on it, is of a single colour."""
    picture = imread(page["picture"])[:, :, :3]
    assert picture.shape[1] == WIDTH
    assert page["height"] <= HEIGHT
    for section in page["sections"]:
        for box in (section["table"], section["image"]):
            part = picture[int(box["top"]) : int(box["bottom"]), int(box["left"]) : int(box["right"])]
            assert part.size > 0
            assert float(part.std(axis=(0, 1)).max()) > 0.01, section["name"]
