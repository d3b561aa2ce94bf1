"""The shape of the package: import layers, what importing costs, the public names, the tree of errors."""

from __future__ import annotations

import ast
import builtins
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

import langchain_crossrerank
from langchain_crossrerank import errors

PACKAGE = "langchain_crossrerank"
ROOT = Path(langchain_crossrerank.__file__).parent

LAYERS = (
    {"errors", "_process", "_spreadsheet", "_terminal", "redaction"},
    {"checks", "extras", "files", "metadata", "model_catalogue", "passages", "sentences", "sources", "telemetry"},
    {"_machine", "_threads", "blending", "blocks", "downloads", "lexical", "models", "pages"},
    {"onnx_graphs"},
    {
        "cross_encoders.fingerprints",
        "cross_encoders.graph_files",
        "cross_encoders.languages",
        "cross_encoders.scheduling",
        "cross_encoders.scores",
        "cross_encoders.pickles",
        "cross_encoders.precision",
        "cross_encoders.truncation",
    },
    {"cross_encoders.hub", "cross_encoders.model_config"},
    {"cross_encoders.head_modules"},
    {"cross_encoders.model_files", "cross_encoders.pairs"},
    {
        "cross_encoders.backends.onnx_devices",
        "cross_encoders.backends.onnx_inputs",
        "cross_encoders.backends.onnx_session",
        "cross_encoders.calibration",
        "cross_encoders.finding",
        "cross_encoders.tokenizer_files",
    },
    {"embeddings"},
    {"indexing"},
    {"cross_encoders.base"},
    {"cross_encoders.pair_encoder", "testing"},
    {"cross_encoders.backends", "cross_encoders.settings", "cross_encoders.wrappers"},
    {"cross_encoders.other_objects"},
    {"cross_encoders.export"},
    {"cross_encoders.loading"},
    {"cross_encoders"},
    {"candidates", "compressors", "verification"},
    {"reranker"},
    {"retrievers", "extractive"},
    {"chains", "evaluation"},
    {"agents", "scoring"},
    {"training"},
    {"server"},
    {"ray"},
    {"cli"},
    {"__main__", ""},
)
"""Lowest first; a module may import what is in a layer below, and what is in its own entry, such as its own folder."""

HEAVY = {
    "chromadb",
    "faiss",
    "huggingface_hub",
    "langchain_chroma",
    "langchain_classic",
    "langchain_community",
    "langchain_huggingface",
    "langchain_openai",
    "onnx",
    "onnxruntime",
    "pypdf",
    "sentence_transformers",
    "tokenizers",
    "torch",
    "transformers",
}

MODULES = sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    """The dotted name below the package; `""` for the package itself."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def entry_of(module: str) -> tuple[int, str]:
    """The layer of a module, counted from 0, and the entry of `LAYERS` that it belongs to: the longest that fits."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        entry = ".".join(parts[:length])
        for place, layer in enumerate(LAYERS):
            if entry in layer and (entry != "cross_encoders" or length == len(parts)):
                return place, entry
    raise AssertionError(f"{module} is in no layer; say in LAYERS where it belongs")


def imported_modules(source: str, importer: str) -> Iterator[str]:
    """Modules of the package that `source` imports, anywhere in it, as names below the package."""
    known = {module_name(path) for path in MODULES}
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer} has a relative import in line {node.lineno}; name the package"
            # What is imported from a package may itself be a module.
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            below = [name for name in whole if name.removeprefix(f"{PACKAGE}.") in known]
            names = below if len(below) == len(whole) else [*below, str(node.module)]
        for name in names:
            if name == PACKAGE or name.startswith(f"{PACKAGE}."):
                yield name.removeprefix(PACKAGE).removeprefix(".")


def broken_layers(source: str, importer: str) -> list[str]:
    """Imports that go sideways or upwards."""
    place, entry = entry_of(importer)
    broken = []
    for imported in imported_modules(source, importer):
        # `from langchain_crossrerank import __version__` and the like bring nothing else in.
        if imported == "":
            continue
        other_place, other_entry = entry_of(imported)
        if not (other_place < place or other_entry == entry):
            broken.append(f"{importer or PACKAGE} imports {imported}")
    return broken


def circles(imports: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Every group of modules that import one another, directly or through others; a module may be its own group."""
    reachable: dict[str, set[str]] = {}
    for module in imports:
        reached: set[str] = set()
        waiting = list(imports[module])
        while waiting:
            imported = waiting.pop()
            if imported not in reached:
                reached.add(imported)
                waiting += imports.get(imported, ())
        reachable[module] = reached
    groups = {
        frozenset({module, *(other for other in reached if module in reachable.get(other, ()))})
        for module, reached in reachable.items()
        if module in reached
    }
    return sorted(sorted(group) for group in groups)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: module_name(path) or PACKAGE)
def test_imports_go_downwards_only(path: Path) -> None:
    """No module imports one of its own layer or above, not even inside a function."""
    assert broken_layers(path.read_text(encoding="utf-8"), module_name(path)) == []


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("errors", "from langchain_crossrerank.extras import check_extra"),
        ("onnx_graphs.packing", "from langchain_crossrerank.cross_encoders.scores import sigmoid"),
        ("cross_encoders.base", "from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder"),
        ("cross_encoders.base", "def f():\n    import langchain_crossrerank.cross_encoders.backends.torch"),
        ("cross_encoders.wrappers.cached", "from langchain_crossrerank.cross_encoders import loading"),
        ("cross_encoders.wrappers.cached", "import langchain_crossrerank.cross_encoders.backends.onnx"),
        ("cross_encoders.backends.onnx", "import langchain_crossrerank.cross_encoders.wrappers.cached"),
        ("cross_encoders.scheduling", "from langchain_crossrerank.cross_encoders.base import CrossEncoder"),
        ("reranker", "from langchain_crossrerank import retrievers"),
        ("chains", "from langchain_crossrerank.evaluation import compare"),
        ("evaluation.comparing", "from langchain_crossrerank.chains import create_rag_chain"),
        ("retrievers", "from langchain_crossrerank.cli import main"),
        ("indexing", "from langchain_crossrerank.cross_encoders.base import CrossEncoder"),
        ("passages", "from langchain_crossrerank.extras import check_extra"),
    ],
)
def test_an_upward_import_is_found(importer: str, source: str) -> None:
    """The check of layers finds an import that goes the wrong way, however it is written."""
    assert len(broken_layers(source, importer)) == 1


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("cross_encoders.wrappers.cached", "from langchain_crossrerank.cross_encoders.base import CrossEncoder"),
        ("cross_encoders.export", "from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder"),
        ("reranker", "from langchain_crossrerank import errors, passages"),
        ("evaluation", "from langchain_crossrerank.evaluation.comparing import compare"),
        ("evaluation.evaluating", "from langchain_crossrerank.evaluation.comparing import compare"),
        ("cli", "from langchain_crossrerank import __version__"),
        ("indexing", "from langchain_crossrerank.extras import check_extra"),
    ],
)
def test_a_downward_import_is_allowed(importer: str, source: str) -> None:
    """The check of layers accepts what the design allows."""
    assert broken_layers(source, importer) == []


def test_a_module_without_a_layer_is_found() -> None:
    """A new module must be given its place."""
    with pytest.raises(AssertionError, match="utils is in no layer"):
        entry_of("utils")
    with pytest.raises(AssertionError, match=r"cross_encoders\.utils is in no layer"):
        entry_of("cross_encoders.utils")


def test_no_modules_import_one_another() -> None:
    """There is no import circle, not inside a folder and not through an import inside a function."""
    imports = {
        name: [other for other in imported_modules(path.read_text(encoding="utf-8"), name) if other != ""]
        for path in MODULES
        if (name := module_name(path)) != ""
    }
    assert circles(imports) == []


def test_a_circle_is_found() -> None:
    """The check of circles finds a long one, a short one and a module that imports itself, and nothing else."""
    imports = {"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": ["e"], "e": ["d"], "f": ["f"], "g": ["a"]}
    assert circles(imports) == [["a", "b", "c"], ["d", "e"], ["f"]]


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(f"import {PACKAGE}", id="package"),
        pytest.param(f"import {PACKAGE}; {PACKAGE}.__version__; dir({PACKAGE})", id="version"),
        pytest.param(f"from {PACKAGE} import *", id="every public name"),
        pytest.param(f"import {PACKAGE}.cli", id="command line"),
        pytest.param(f"import {PACKAGE}.testing", id="testing"),
    ],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    """In a fresh process neither the package nor any public name loads a model library or a vector store."""
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    loaded = set(json.loads(done.stdout))
    assert PACKAGE in loaded
    assert loaded & HEAVY == set()


def test_importing_the_package_loads_only_the_standard_library() -> None:
    """The package itself is free: its names come on first use."""
    script = f"import sys\nbefore = set(sys.modules)\nimport {PACKAGE}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - set(sys.stdlib_module_names) == {PACKAGE}


@pytest.mark.parametrize("name", langchain_crossrerank.__all__)
def test_every_public_name_resolves(name: str) -> None:
    """Each name in `__all__` comes from the module that is its home, and is listed by `dir`."""
    value = getattr(langchain_crossrerank, name)
    assert value.__name__ == name
    assert value.__module__.startswith(f"{PACKAGE}.{langchain_crossrerank._HOME[name]}")
    assert name in dir(langchain_crossrerank)


def test_the_public_list_is_one_list() -> None:
    """`__all__`, the table of homes and the names that type checkers see are the same."""
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: str(node.module).removeprefix(f"{PACKAGE}.")
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == langchain_crossrerank._HOME
    assert sorted(langchain_crossrerank._HOME) == langchain_crossrerank.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as on any module, so that `hasattr` works."""
    with pytest.raises(AttributeError, match="'langchain_crossrerank' has no attribute 'CrossEncoderRanker'"):
        _ = langchain_crossrerank.CrossEncoderRanker
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", langchain_crossrerank.__version__)


def documented_tree() -> dict[str, set[str]]:
    """Each error in the docstring's tree with its bases: the one it hangs from, and those in brackets."""
    tree: dict[str, set[str]] = {}
    above: list[str] = []
    for line in str(errors.__doc__).split("```")[1].splitlines():
        found = re.match(r"(?P<branch>[│├└─ ]*)(?P<name>\w+)(?: +\((?P<others>[\w, ]+)\))?", line)
        if found is None:
            continue
        depth = len(found["branch"]) // 4
        others = {other.strip() for other in (found["others"] or "").split(",")} - {""}
        above[depth:] = [found["name"]]
        tree[found["name"]] = ({above[depth - 1]} if depth else {"Exception"}) | others
    return tree


def test_the_documented_errors_are_the_real_ones() -> None:
    """The tree in the docstring has every error class, under its real bases, and no other; so has `__all__`."""
    real = {
        name: {base.__name__ for base in value.__bases__}
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert documented_tree() == real
    assert sorted(real) == errors.__all__


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_of_one_family(name: str) -> None:
    """One `except CrossRerankError` catches all of them, and none hides a builtin of its name."""
    assert issubclass(getattr(errors, name), errors.CrossRerankError)
    assert not hasattr(builtins, name)
    assert getattr(errors, name).__doc__
