"""What builds the documentation finds faults, and loses nothing of notebooks and docstrings."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts" / "docs"
if not SCRIPTS.is_dir():
    pytest.skip("needs the source tree", allow_module_level=True)
griffe = pytest.importorskip("griffe", reason="needs the docs extra")
nbformat = pytest.importorskip("nbformat", reason="needs the dev extra")
pytest.importorskip("nbconvert", reason="needs the docs extra")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a script by name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module
    for name in ("reference", "llms", "notebook_pages", "build"):
        sys.modules.pop(name, None)


def faults_of(script: Any, folder: Path, source: str) -> list[str]:
    """The faults that the reference finds in a function `f` of a module with this source."""
    folder.joinpath("made_up_module.py").write_text(source, encoding="utf-8")
    module = griffe.load("made_up_module", search_paths=[str(folder)], docstring_parser="google")
    return list(script("reference")._faults_of(module["f"]))


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def f(a, b):\n    pass\n", "no docstring"),
        ('def f(a, b):\n    """Add.\n\n    Args:\n        a: One.\n    """\n', "'b' is not described"),
    ],
)
def test_what_is_not_documented_is_named(script: Any, tmp_path: Path, source: str, fault: str) -> None:
    """A public function needs a docstring that describes each parameter."""
    (found,) = faults_of(script, tmp_path, source)
    assert fault in found


def test_what_is_documented_has_no_fault(script: Any, tmp_path: Path) -> None:
    """A docstring with all parameters passes."""
    source = 'def f(a, b):\n    """Add.\n\n    Args:\n        a: One.\n        b: Two.\n    """\n'
    assert faults_of(script, tmp_path, source) == []


def test_a_notebook_becomes_a_page_with_outputs_and_links(script: Any, tmp_path: Path) -> None:
    """Outputs are kept, HTML stays in one block, and links lead to pages or to the repository."""
    cell = nbformat.v4.new_code_cell(
        "1 + 1",
        outputs=[
            nbformat.v4.new_output("execute_result", data={"text/html": "<table>\n\n<tr></tr></table>"}),
            nbformat.v4.new_output("stream", text="printed\n"),
        ],
    )
    text = nbformat.v4.new_markdown_cell("# 2. A title\n\nWhat it is about. [next](03_next.ipynb), [data](data/x.pdf)")
    nbformat.write(nbformat.v4.new_notebook(cells=[text, cell]), tmp_path / "02_a_title.ipynb")
    title, summary = script("notebook_pages").convert(tmp_path / "02_a_title.ipynb", tmp_path)
    page = (tmp_path / "02-a-title.md").read_text(encoding="utf-8")
    assert (title, summary) == ("2. A title", "What it is about.")
    assert '<div class="output"><table> <tr></tr></table></div>' in page
    assert "printed" in page
    assert "(03-next.md)" in page
    assert "/notebooks/data/x.pdf)" in page


def test_the_list_for_language_models_has_titles_and_first_sentences(script: Any) -> None:
    """Markup is left out of a page's summary, and tables and code are not taken for it."""
    text = "# Cache\n\n```python\nx = 1\n```\n\n`Cached` keeps [scores](x.md). More.\n"
    assert script("llms").title_and_summary(text) == ("Cache", "`Cached` keeps scores.")


def test_the_text_for_language_models_has_docstrings(script: Any) -> None:
    """A directive of mkdocstrings becomes the signature and the docstring."""
    text = script("llms")._with_docstrings("# API\n\n::: langchain_crossrerank.chains.create_rag_chain\n")
    assert "create_rag_chain(retriever" in text
    assert "Make a question-answering chain" in text
