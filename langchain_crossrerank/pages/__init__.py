"""Renders HTML from the templates in this folder: fragments for a notebook and self-contained, offline pages.

What every page shares: `templates/style.css` has the look, in custom properties and classes below `.crossrerank`;
`templates/page.html` is the frame of a page; `templates/pieces.html` has macros for score bars, rank ribbons and
passages with their best sentence.
"""

from langchain_crossrerank.pages.rendering import Template, render, render_page

__all__ = ["Template", "render", "render_page"]
