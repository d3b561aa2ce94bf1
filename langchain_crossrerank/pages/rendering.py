"""Renders templates so that text of documents, queries and models never acts as markup, script or terminal command."""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import TYPE_CHECKING, Any

from langchain_crossrerank._terminal import neutralise, one_line
from langchain_crossrerank.extras import check_extra

if TYPE_CHECKING:
    from jinja2 import Environment

Template = str
"""The name of a file in `templates/`."""


def render(template: Template, **values: Any) -> str:
    """Render a template to HTML.

    Every text is escaped, and its control characters and bidirectional overrides are shown as escapes.

    Args:
        template: The template's name.
        **values: What it shows.

    Raises:
        MissingExtraError: If jinja2, from the `eval` or the `rag` extra, is not installed.
    """
    return _environment().get_template(template).render(**values)


def render_page(template: Template, *, title: str, script: Template | None = None, **values: Any) -> str:
    """Render a template that extends `page.html` to a self-contained page, which fetches nothing.

    Its content security policy allows its own script and no other.

    Args:
        template: The template's name.
        title: The title of the browser tab.
        script: The name of the script in `templates/`; `None` for a page without one.
        **values: What it shows.

    Raises:
        MissingExtraError: If jinja2, from the `eval` or the `rag` extra, is not installed.
    """
    source = _read(script) if script is not None else ""
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    policy = f"'sha256-{digest}'" if source else "'none'"
    return render(template, title=title, script=source, script_policy=policy, **values)


def _read(name: Template) -> str:
    environment = _environment()
    assert environment.loader is not None  # noqa: S101 - set below
    return environment.loader.get_source(environment, name)[0]


@functools.cache
def _environment() -> Environment:
    check_extra("eval", needed_for="HTML", modules=("jinja2",), backend="jinja2")
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def neutralised(value: Any) -> Any:
        return neutralise(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("langchain_crossrerank.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=neutralised,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["one_line"] = lambda text: one_line(" ".join(text.split()))
    # Files of this package, which contain no other text.
    environment.globals["source"] = lambda name: Markup(_read(name))  # noqa: S704
    return environment
