"""What the model reads of a document."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank.passages import check_template, render_passage


@pytest.mark.parametrize(
    ("template", "metadata", "passage"),
    [
        (None, {"page_content": "from metadata"}, "body"),
        ("{title}: {page_content}", {"title": "Head"}, "Head: body"),
        ("{title}: {page_content}", {}, ": body"),
        ("{title}: {page_content}", {"title": None}, ": body"),
        ("{title} {page_content}", {"title": "{page_content} {x!r}"}, "{page_content} {x!r} body"),
        ("{{{title}}} {page_content}", {"title": "t"}, "{t} body"),
        ("p. {page} {page_content} {tags}", {"page": 0, "tags": ["x", 1]}, "p. 0 body ['x', 1]"),
    ],
)
def test_a_template_is_filled_once(template: str | None, metadata: dict[str, Any], passage: str) -> None:
    """Text and metadata go where the template says, and placeholders in them are text like any other."""
    assert template is None or check_template(template) == template
    assert render_passage(Document("body", metadata=metadata), template) == passage


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{title.__class__}: {page_content}", "{title.__class__}"),
        ("{tags[0]} {page_content}", "{tags[0]}"),
        ("{page_content!r}", "only plain names"),
        ("{page_content:>40}", "only plain names"),
        ("{title}", "has no {page_content}"),
        ("{page_content", "does not parse"),
    ],
)
def test_a_template_with_more_than_plain_names_is_refused(template: str, told: str) -> None:
    """The error shows the template and what is wrong with it."""
    with pytest.raises(ValueError, match="passage_template") as caught:
        check_template(template)
    assert repr(template) in str(caught.value)
    assert told in str(caught.value)
