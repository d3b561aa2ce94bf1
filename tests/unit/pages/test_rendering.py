"""Rendering: texts stay texts, a page runs its own script alone, and a missing template engine is named."""

from __future__ import annotations

import base64
import hashlib
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="needs the eval extra")

from langchain_crossrerank import pages
from langchain_crossrerank.errors import MissingExtraError
from langchain_crossrerank.pages import rendering
from langchain_crossrerank.pages.rendering import render, render_page

TEMPLATES = Path(pages.__file__).parent / "templates"


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Adds a template by its text."""
    from jinja2 import ChoiceLoader, DictLoader

    environment = rendering._environment()

    def add(name: str, text: str) -> None:
        monkeypatch.setattr(environment, "loader", ChoiceLoader([DictLoader({name: text}), environment.loader]))

    return add


@pytest.mark.parametrize("text", ["<b>bold</b>", "\" onclick='x'", "</script><script>", "a & b", "{{ 7 * 7 }}"])
def test_every_text_is_escaped(template: Any, text: str) -> None:
    """In an element and in an attribute a text is shown as it was, and is never evaluated."""
    template("text.html", '<p title="{{ text }}">{{ text }}</p>')
    html = render("text.html", text=text)
    assert not re.search(r"<(?!/?p\b)", html)
    assert unescape(html) == f'<p title="{text}">{text}</p>'
    assert html.count('"') == 2


def test_control_characters_are_shown(template: Any) -> None:
    """Escape sequences and bidirectional overrides become text, and lines stay lines."""
    template("text.html", "{{ text }}")
    assert render("text.html", text="a\x1b[31m\u202e\nb") == "a\\x1b[31m\\u202e\nb"
    template("line.html", "{{ text | one_line }}")
    assert render("line.html", text=" a \n\t b\x07") == "a b\\x07"


def test_what_a_template_lacks_is_an_error(template: Any) -> None:
    """A misspelt name fails instead of showing nothing."""
    template("text.html", "{{ missing }}")
    with pytest.raises(Exception, match="missing"):
        render("text.html")


def test_a_page_allows_its_own_script_alone(template: Any) -> None:
    """The policy has the digest of the page's script, and a page without one allows none."""
    template("own.html", '{% extends "page.html" %}{% block body %}<p>here</p>{% endblock %}')
    with_script = render_page("own.html", title="t", script="report.js")
    (script,) = re.findall(r"<script>(.*)</script>", with_script, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in unescape(with_script)
    without = render_page("own.html", title="<t>")
    assert "script-src &#39;none&#39;" in without
    assert "<script" not in without
    assert "<title>&lt;t&gt;</title>" in without


@pytest.mark.parametrize("path", sorted(TEMPLATES.iterdir()), ids=lambda path: path.name)
def test_no_template_fetches_anything(path: Path) -> None:
    """Styles, scripts and templates name no address and load nothing."""
    assert not re.search(r"https?://|@import|url\(|\bsrc=|fetch\(|import\(", path.read_text(encoding="utf-8"))


def test_without_the_template_engine_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where jinja2 is missing, the error says what to install."""
    monkeypatch.setattr("langchain_crossrerank.extras.find_spec", lambda _: None)
    rendering._environment.cache_clear()
    with pytest.raises(MissingExtraError, match=r"jinja2 is needed for HTML .*langchain-crossrerank\[eval\]"):
        render("fragment.html")
    rendering._environment.cache_clear()
