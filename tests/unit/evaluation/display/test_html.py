"""Results as HTML: texts stay texts, notebooks keep their colours, and pages fetch nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="needs the eval extra")

import langchain_crossrerank.pages
from langchain_crossrerank.evaluation import Comparison, RankedDocument
from langchain_crossrerank.evaluation.display.reports import COLOURS
from tests.unit.evaluation.display.made_results import (
    CONTROLS,
    HOSTILE,
    Balanced,
    comparison,
    evaluation,
    every_hostile,
    every_result,
    sweep_result,
)

EVIL = "</td></style></title><script>alert('x')</script> & \"quotes\" <b>bold</b>"
STYLE = (Path(langchain_crossrerank.pages.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")


@every_result
def test_html_is_well_formed_and_keeps_its_style_to_itself(result: Any) -> None:
    """Every tag is closed where it belongs, and no rule of the style reaches beyond the result."""
    html = result._repr_html_()
    assert Balanced(html).wrong == []
    style = re.search("<style>(.*)</style>", html, re.DOTALL)
    assert style is not None
    rules = re.sub(r"/\*.*?\*/", "", style.group(1), flags=re.DOTALL)
    selectors = [selector.strip() for rule in re.findall(r"([^{}]+)\{", rules) for selector in rule.split(",")]
    assert [
        selector for selector in selectors if not selector.startswith((".crossrerank", "@container", "@media"))
    ] == []


@every_result
def test_html_brings_no_page_background_and_no_script(result: Any) -> None:
    """Dark and light notebooks keep their own colours, and nothing runs or is fetched."""
    html = result._repr_html_()
    own = re.search(r"\.crossrerank \{(.*?)\}", html, re.DOTALL)
    assert own is not None
    assert not re.search(r"(?<!-)(background|color)\b", own.group(1))
    assert not re.search(r"<script|<link|<img|https?://|@import|url\(", html)


@every_result
def test_a_page_is_well_formed_and_fetches_nothing(result: Any) -> None:
    """A page is one file in light and dark, and its policy allows only its own script."""
    html = result.to_html(["a note\nof two lines"])
    assert Balanced(html).wrong == []
    assert html.startswith("<!doctype html>")
    assert "prefers-color-scheme: dark" in html
    assert "a note\nof two lines" in html
    assert not re.search(r"<link|<img|https?://|@import|url\(|src=|href=(?!\"#)", html)
    assert "default-src 'none'" in html
    assert html.count("<script>") <= 1


def test_the_colours_are_those_of_the_pictures() -> None:
    """The style sheet and matplotlib know the same colours of up, down and flat."""
    assert {kind: COLOURS[kind] for kind in ("up", "down", "flat")} == dict(  # type: ignore[index]
        re.findall(r"--(up|down|flat): (#\w+)", STYLE)
    )


def test_a_move_has_the_colour_of_its_direction() -> None:
    """Each move of a kept document has the class of up, down or flat, and that of a dropped one has none."""
    read = Balanced(comparison([3, 2, 1, None])._repr_html_())
    moves = [(" ".join(kinds[2:]), "".join(words)) for _, kinds, words in read.elements if "move" in kinds]
    assert moves == [("up", "+2"), ("flat", "="), ("down", "-2"), ("", "=")]


def test_a_comparison_has_both_lists_whole() -> None:
    """Left is the first stage's order; right the reranked order with scores, and below it what was not kept."""
    read = Balanced(comparison([3, None, 1, 2])._repr_html_())
    assert read.texts("ol", "before") == ["1passage 1 2passage 2 3passage 3 4passage 4"]
    assert read.texts("span", "preview") == [f"passage {place}" for place in (3, 4, 1, 2)]
    assert read.texts("span", "score") == ["-8.250", "-7.250", "-10.250", "-9.250"]
    assert read.texts("li", "dropped") == ["4 -2 -9.250 passage 2 passage 2"]
    assert read.texts("p", "facts") == ["4 candidates, 3 kept by a model; first stage 12 ms, rerank 88 ms"]


@pytest.mark.parametrize(("count", "kept", "rows"), [(120, 3, 20), (120, 30, 30), (4, 2, 4), (0, 0, 0)])
def test_a_notebook_shows_what_was_kept_and_a_page_shows_all(count: int, kept: int, rows: int) -> None:
    """A notebook has at least twenty rows, if there are so many, and says how many it leaves out; a page has all."""
    found = comparison([place if place <= kept else None for place in range(1, count + 1)])
    fragment, page = Balanced(found._repr_html_()), Balanced(found.to_html())
    assert fragment.count("details") == rows
    assert page.count("details") == count
    assert fragment.texts("p", "note") == (
        [f"{count - rows} more candidates are not shown here."] if count > rows else []
    )


def test_a_passage_is_whole_and_its_answer_is_marked() -> None:
    """A passage longer than its row is there from first to last, and the sentence that answers is marked in both."""
    text = "Start. " + "filler words " * 60 + "This answers. " + "more words " * 60 + "End."
    start = text.index("This")
    kept = RankedDocument(text, {}, 1, 1, 0.5, (start, start + len("This answers.")))
    read = Balanced(Comparison("q", [kept], "m", 0, 0)._repr_html_())
    assert read.texts("p", "passage") == [text]
    assert read.texts("mark") == ["This answers."] * 2
    (preview,) = read.texts("span", "preview")
    assert preview.startswith("... filler words filler words This answers. more words")
    assert preview.endswith(" ...")


def test_lines_that_a_layout_broke_are_joined() -> None:
    """A sentence over several full lines is one paragraph; lists, tables and short lines stay as they are."""
    broken = "This sentence is broken by the layout of the page that it is on,\nand goes on here.\n- item\nshort\nlines"
    html = Comparison("q", [RankedDocument(broken, {}, 1, 1, 0.5)], "m", 0, 0)._repr_html_()
    assert "that it is on, and goes on here.\n- item\nshort\nlines</p>" in str(html)


def test_a_preview_begins_after_the_headings_that_a_chunk_carries() -> None:
    """Rows of one section do not all begin with its headings."""
    document = RankedDocument("1. Title\n\nIts own text.", {"carried": 10}, 1, 1, 0.5)
    read = Balanced(Comparison("q", [document], "m", 0, 0)._repr_html_())
    assert read.texts("span", "preview") == ["Its own text."]
    assert read.texts("p", "passage") == ["1. Title Its own text."]


def test_a_document_without_score_is_shown() -> None:
    """A missing score, where the model failed, is a dash in both forms, and there is nothing to slide."""
    kept = Comparison("q", [RankedDocument("a", {}, 1, 1, None)], "m", 0, 0)
    assert Balanced(kept._repr_html_()).texts("span", "score") == ["-"]
    assert kept.to_text().splitlines()[4].split() == ["1", "a", "=", "-", "a"]
    assert "<form" not in kept.to_html()


@pytest.mark.parametrize("whole", [False, True], ids=["notebook", "page"])
def test_texts_stay_texts_in_html(whole: bool) -> None:
    """Markup in a query, a passage, a source or a model's name is shown and not obeyed."""
    evil = Comparison(EVIL, [RankedDocument(EVIL, {"source": EVIL}, 1, 1, 0.5)], EVIL, 0, 0)
    html = evil.to_html([EVIL]) if whole else evil._repr_html_()
    assert html is not None
    read = Balanced(html)
    assert read.wrong == []
    assert read.count("script") == (1 if whole else 0)
    assert read.count("b") == 0
    assert EVIL in read.texts("h1" if whole else "h2")[0]
    assert read.texts("p", "passage") == [EVIL]
    assert not whole or read.texts("title")[0].startswith(EVIL)


@pytest.mark.parametrize("whole", [False, True], ids=["notebook", "page"])
def test_queries_and_documents_of_an_evaluation_stay_texts_in_html(whole: bool) -> None:
    """Markup in a query or in a document of its lists is shown and not obeyed."""
    found = evaluation(text=EVIL, passage=EVIL)
    html = found.to_html() if whole else found._repr_html_()
    assert html is not None
    read = Balanced(html)
    assert read.wrong == []
    assert read.count("script") == read.count("b") == 0
    assert html.count("&lt;script&gt;") >= 4


def test_every_query_of_a_page_opens_its_two_lists() -> None:
    """The page has each query with its difference, largest first, and the documents of both lists with judgements."""
    read = Balanced(evaluation(3).to_html())
    assert [" ".join(text.split()[:4]) for text in read.texts("details", "query")] == [
        "+0.500query q2 first stage",
        "+0.000query q1 first stage",
        "-0.500query q0 first stage",
    ]
    assert (
        read.texts("div", "pair")[0]
        == "first stage 1text of a 2relevant text of b reranked 1relevant text of b 2text of a"
    )


def test_gains_and_losses_can_be_filtered_without_a_script() -> None:
    """The choices count the queries that each would show, and the page has no script."""
    html = evaluation(5).to_html()
    read = Balanced(html)
    assert read.texts("label") == ["All 5", "Gains 2", "Losses 2"]
    assert "<script" not in html
    assert [kinds for tag, kinds, _ in read.elements if tag == "details"] == [
        ["query", kind] for kind in ("up", "up", "flat", "down", "down")
    ]


def test_rounding_is_no_gain() -> None:
    """0.1 + 0.2 against 0.3 is neither a gain nor a loss, on the page as in the lists of the text."""
    third = 0.1 + 0.2
    found = evaluation(3)
    rows = [
        replace(row, per_query={"q0": (0.3, third), "q1": (third, 0.3), "q2": (0.5, 0.5)}) for row in found.measures
    ]
    found = replace(found, measures=rows)
    read = Balanced(found.to_html())
    assert read.texts("label") == ["All 3", "Gains 0", "Losses 0"]
    assert [kinds for tag, kinds, _ in read.elements if tag == "details"] == [["query", "flat"]] * 3
    assert found.extremes() == ([], [])


def test_results_on_one_page_do_not_share_names() -> None:
    """Two evaluations on a page have ids, links and choices of their own."""
    html = evaluation(3).to_html(others=[evaluation(3)])
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids)) == 6
    assert sorted(re.findall(r'href="#([^"]+)"', html)) == sorted(ids)
    assert len(set(re.findall(r' name="([^"]+)"', html)) - {"viewport"}) == 2


def test_only_queries_that_moved_most_open_lists() -> None:
    """With very many queries, a page has the lists of the largest gains and losses, and says so for the others."""
    read = Balanced(evaluation(301).to_html())
    assert len(read.texts("div", "pair")) == 200
    assert read.texts("p", "note").count("Only the queries that moved most open their lists.") == 101


def test_the_knee_is_marked_in_the_chart() -> None:
    """The knee has the larger dot and a label of its own."""
    found = sweep_result()
    knee = found.knee
    assert knee is not None
    read = Balanced(found._repr_html_())
    assert read.texts("span", "label") == [f"k={row.k}" + (" (knee)" if row is knee else "") for row in found.rows]
    assert [("knee" in kinds) for tag, kinds, _ in read.elements if "dot" in kinds] == [
        row is knee for row in found.rows
    ]


def test_a_notebook_without_the_template_engine_shows_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jinja2 there is no HTML form, so that a notebook shows the text instead of an error."""
    formatters = pytest.importorskip("IPython.core.formatters", reason="needs ipykernel")
    monkeypatch.setattr("langchain_crossrerank.evaluation.display.html.missing_modules", lambda *_: ["jinja2"])
    shown, _ = formatters.DisplayFormatter().format(comparison([1]))
    assert shown == {"text/plain": str(comparison([1]))}


@every_hostile
@pytest.mark.parametrize("whole", [False, True], ids=["notebook", "page"])
def test_no_text_acts_on_a_page(result: Any, whole: bool) -> None:
    """In HTML control characters are shown as escapes, so that no text is written over another."""
    html = result.to_html([HOSTILE]) if whole else result._repr_html_()
    assert CONTROLS.findall(html.replace("\n", "")) == []
    assert Balanced(html).wrong == []


@every_hostile
def test_plain_data_keeps_the_text(result: Any) -> None:
    """What is meant for programs is not changed: JSON has its own escapes."""
    plain = json.loads(json.dumps(result.to_dict()))
    assert HOSTILE in (plain["model"], plain.get("query"))
