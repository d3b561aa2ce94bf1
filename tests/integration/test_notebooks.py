"""The notebooks run from scratch and offline, and are committed with the outputs of their own code."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent.parent / "notebooks"

NOTEBOOKS = {
    "00_reranking_step_by_step.ipynb": (
        "text/html",
        "image/png",
        "text/markdown",
        "quoted from the sources",
        "the same passages in the same order as by hand: True",
    ),
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
        "20 queries, for example:",
        "95 % interval",
        "knee:",
        "Does this model use it?",
    ),
    "05_production.ipynb": ("hits=10", "best_window", "<mark>", "'reranked': False", "timeout=0.1", "rerank_scores"),
    "06_agents.ipynb": (
        "No relevant passage found",
        "calls search_course",
        "passage 1 says",
        "grade -.-> give_up",
        "best probability",
        "offered: search_course",
    ),
}
"""What each notebook shows at least: kinds of output, and pieces of text."""

each_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


def read(name: str) -> dict[str, Any]:
    """One notebook as plain data."""
    notebook: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return notebook


def sources(name: str, cell_type: str) -> list[str]:
    """The texts of a notebook's cells of one type."""
    return ["".join(cell["source"]) for cell in read(name)["cells"] if cell["cell_type"] == cell_type]


def digest(code: list[str]) -> str:
    """What `scripts/run_notebooks.py` notes about the code that it ran."""
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]


def shown(cells: list[Any]) -> str:
    """All that executed cells show: the kinds of their outputs, and their texts."""
    parts: list[str] = []
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        texts = [output.get("text", ""), *(data[kind] for kind in data if kind.startswith("text/"))]
        parts += [*data, *("".join(text) for text in texts)]
    return "\n".join(parts)


def test_no_notebook_escapes_the_tests() -> None:
    """Every notebook in the folder is one that these tests know."""
    assert sorted(path.name for path in FOLDER.rglob("*.ipynb")) == sorted(NOTEBOOKS)


@each_notebook
def test_outputs_are_those_of_the_code(name: str) -> None:
    """A notebook is committed as one run from its first cell to its last left it, without a trace of the machine."""
    notebook = read(name)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert notebook["metadata"]["executed"] == digest(sources(name, "code"))
    assert not [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]
    written = json.dumps([cell["outputs"] for cell in code])
    assert not re.search(r"/(home|root|Users|tmp|work|opt)/|0x[0-9a-f]{6,}", written)


@each_notebook
def test_metadata_is_fixed(name: str) -> None:
    """Cells have no metadata but the tag of those that show times, and the notebook names its kernel and its code."""
    notebook = read(name)
    assert all(cell["metadata"] in ({}, {"tags": ["timing"]}) for cell in notebook["cells"])
    assert set(notebook["metadata"]) == {"executed", "kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}


@each_notebook
def test_committed_outputs_keep_the_promises(name: str) -> None:
    """A reader who does not run a notebook sees what it promises: tables, pictures and texts."""
    found = shown(read(name)["cells"])
    assert [promise for promise in NOTEBOOKS[name] if promise not in found] == []


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
def test_notebook_runs_from_clean(name: str) -> None:
    """A notebook runs from its first cell to its last without a network or a key, and shows what it promises."""
    pytest.importorskip("langchain_chroma", reason="needs the rag extra")
    pytest.importorskip("matplotlib", reason="needs the eval extra")
    if "agents" in name:
        pytest.importorskip("langchain.agents", reason="needs the agents extra")
    pytest.importorskip("ipykernel", reason="needs ipykernel")
    pytest.importorskip("nbclient", reason="needs nbclient")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    execute = runpy.run_path(str(FOLDER.parent / "scripts" / "run_notebooks.py"))["execute"]

    executed = execute(nbformat.read(FOLDER / name, as_version=4))
    found = shown(executed.cells)
    assert [promise for promise in NOTEBOOKS[name] if promise not in found] == []


@pytest.mark.parametrize(
    ("before", "after", "changed", "kept"),
    [
        (("same 5 ms", "first"), ("same 7 ms", "second"), [], ("same 5 ms", "first")),
        (("score 0.5", "first"), ("score 0.6", "second"), ["x-01"], ("score 0.6", "second")),
        (("x at 0x7f01", "first"), ("x at 0x7fff", "second"), [], ("x at 0x7f01", "first")),
    ],
    ids=["milliseconds", "a score", "an address"],
)
def test_only_what_is_new_is_saved(
    tmp_path: Path, before: tuple[str, str], after: tuple[str, str], changed: list[str], kept: tuple[str, str]
) -> None:
    """Outputs that differ in milliseconds alone stay, and a cell of times stays unless another cell changed."""
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    pytest.importorskip("nbclient", reason="needs nbclient")
    script = runpy.run_path(str(FOLDER.parent / "scripts" / "run_notebooks.py"))
    update = script["update"]

    def notebook(texts: tuple[str, str]) -> Any:
        cells = [nbformat.v4.new_code_cell(f"cell {place}", id=f"x-0{place}") for place in (1, 2)]
        for cell, text in zip(cells, texts, strict=True):
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
        cells[1].metadata["tags"] = ["timing"]
        return nbformat.v4.new_notebook(cells=cells, metadata={"executed": "the code's digest"})

    file = tmp_path / "x.ipynb"
    nbformat.write(notebook(before), file)
    update.__globals__["execute"] = lambda _: notebook(after)
    assert update(file, check=True) == changed
    assert update(file, check=False) == changed
    assert tuple(cell.outputs[0].text for cell in nbformat.read(file, as_version=4).cells) == kept
    update(file, check=False, times=True)
    assert tuple(cell.outputs[0].text for cell in nbformat.read(file, as_version=4).cells) == after
