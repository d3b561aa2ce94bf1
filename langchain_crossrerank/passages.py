"""Turns a document into the passage that the cross-encoder reads, and texts into what they are compared by."""

from __future__ import annotations

from string import Formatter

from langchain_core.documents import Document


def check_template(template: str) -> str:
    """Return a passage template if it is valid.

    Args:
        template: Text with `{page_content}` and `{metadata_field}` placeholders, as for `str.format` but with plain
            names only.

    Raises:
        ValueError: If it does not parse, uses attribute or index access, conversions or format specifications, or
            has no `{page_content}`.
    """
    try:
        places = [place for place in Formatter().parse(template) if place[1] is not None]
    except ValueError as err:
        raise ValueError(
            f"passage_template {template!r} does not parse ({err}); write {{{{ or }}}} for a brace."
        ) from err
    for _, field, spec, conversion in places:
        if not str(field).isidentifier() or spec or conversion:
            raise ValueError(
                f"passage_template {template!r} has the placeholder {{{field}}}; only plain names such as "
                "{page_content} or {title} can be filled."
            )
    if "page_content" not in [field for _, field, _, _ in places]:
        raise ValueError(
            f"passage_template {template!r} has no {{page_content}}, so the model would not read the text."
        )
    return template


def render_passage(document: Document, template: str | None) -> str:
    """Fill a template with a document's text and metadata.

    Args:
        document: The document; a metadata field that it does not have becomes an empty string.
        template: A template as in `check_template`, or `None` for the page content alone.

    Returns:
        The passage.
    """
    if template is None:
        return document.page_content
    parts = []
    for text, field, _, _ in Formatter().parse(template):
        parts.append(text)
        if field == "page_content":
            parts.append(document.page_content)
        elif field is not None:
            value = document.metadata.get(field)
            parts.append("" if value is None else str(value))
    return "".join(parts)


def flat_text(text: str) -> str:
    """Return a text on one line with single spaces, so that texts that differ in white space only are equal."""
    return " ".join(text.split())
