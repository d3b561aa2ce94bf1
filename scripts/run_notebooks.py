"""Run the notebooks from scratch and offline, and save them with their outputs.

Cells whose outputs differ only in milliseconds keep the outputs they have. If that is true of all cells but those
tagged `timing`, these keep theirs, too, so that a run that found nothing new changes no file.

With `--times`, as on an idle machine, all outputs are saved.

python scripts/run_notebooks.py [--check | --times] [notebooks/00_reranking_step_by_step.ipynb ...]
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOWHERE = "http://127.0.0.1:9"
"""The discard port as a proxy: whatever contacts another machine is refused."""

_MILLISECONDS = re.compile(r"\d+(\.\d+)?(?=(&nbsp;| )?ms\b)")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+|127\.0\.0\.1:\d+")


def offline_environment(folder: str) -> dict[str, str]:
    """The environment of a kernel without a network, keys, or the settings of whoever runs it."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE)
    return {
        **{variable: value for variable, value in os.environ.items() if variable != "CROSSRERANK_API_KEY"},
        **proxies,
        **{variable.lower(): value for variable, value in proxies.items()},
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "HF_HUB_OFFLINE": "1",
        # Empty instead of absent: then no `.env` file puts a key there.
        "OPENAI_API_KEY": "",
        "LANGSMITH_TRACING": "false",
        "IPYTHONDIR": folder,
    }


def execute(notebook: Any) -> Any:
    """Return a notebook as it is after running all of its cells."""
    executed = copy.deepcopy(notebook)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            executed, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(FOLDER)}}
        )
        client.execute(env=offline_environment(folder))
    executed.metadata["language_info"] = {"name": "python"}
    # Says whether the outputs are those of the code; a test compares it.
    code = [cell.source for cell in executed.cells if cell.cell_type == "code"]
    executed.metadata["executed"] = hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]
    for cell in executed.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("trusted", None)
        if cell.cell_type == "code":
            cell.outputs = [_without_paths(output) for output in _merged(cell.outputs)]
    return executed


def _merged(outputs: list[Any]) -> list[Any]:
    """Join what was printed in several pieces, which depends on timing."""
    joined: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _without_paths(output: Any) -> Any:
    """Take this machine's folders out of an output."""
    text = json.dumps(output)
    for path in sorted({str(FOLDER.parent), str(Path.home()), sys.prefix, sys.base_prefix}, key=len, reverse=True):
        text = text.replace(path, "...")
    return nbformat.from_dict(json.loads(text))


def is_timing(cell: Any) -> bool:
    """Whether a cell shows times, which differ in every run."""
    return "timing" in cell.metadata.get("tags", [])


def same_but_for_time(before: Any, after: Any) -> bool:
    """Whether two runs of a cell show the same, apart from milliseconds and addresses."""
    return [_stable(output) for output in before.outputs] == [_stable(output) for output in after.outputs]


def _stable(output: Any) -> str:
    plain = {key: value for key, value in output.items() if key != "execution_count"}
    return _ADDRESS.sub("", _MILLISECONDS.sub("#", json.dumps(plain, sort_keys=True)))


def update(path: Path, *, check: bool, times: bool = False) -> list[str]:
    """Run a notebook, save what is new, and return the ids of the cells whose outputs changed.

    Args:
        path: The notebook.
        check: Whether to leave the file as it is.
        times: Whether to save outputs in which only times are new, too.
    """
    notebook = nbformat.read(path, as_version=4)
    executed = execute(notebook)
    pairs = [pair for pair in zip(notebook.cells, executed.cells, strict=True) if pair[1].cell_type == "code"]
    changed = [after.id for before, after in pairs if not is_timing(after) and not same_but_for_time(before, after)]
    is_same_code = notebook.metadata.get("executed") == executed.metadata["executed"]
    for before, after in pairs:
        keeps = is_same_code and not changed and before.outputs if is_timing(after) else after.id not in changed
        after.outputs = before.outputs if keeps and not times else after.outputs
    if not check:
        path.write_text(json.dumps(_plain(executed), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return changed


def _plain(notebook: Any) -> dict[str, Any]:
    """The notebook as it is written: long texts as lists of lines, as editors write them."""
    return json.loads(nbformat.writes(notebook, version=4))


def main() -> int:
    """Run the notebooks that are named, or all of them; with `--check`, fail if an output is out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="save nothing, and fail if an output is out of date")
    parser.add_argument("--times", action="store_true", help="save outputs in which only times are new, too")
    arguments = parser.parse_args()
    stale = False
    for path in arguments.notebooks or sorted(FOLDER.glob("*.ipynb")):
        changed = update(path, check=arguments.check, times=arguments.times)
        stale |= bool(changed)
        print(f"{path.name}: {', '.join(changed) or 'nothing new'}", flush=True)
    return int(stale and arguments.check)


if __name__ == "__main__":
    raise SystemExit(main())
