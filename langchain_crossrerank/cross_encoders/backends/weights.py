"""Loads a sentence-transformers cross-encoder from a folder, and refuses one whose weights are not all in its files."""

from __future__ import annotations

import json
from typing import Any

import torch
from sentence_transformers import CrossEncoder as SentenceTransformer
from sentence_transformers.base.modules import Transformer

from langchain_crossrerank.cross_encoders.head_modules import check_modules, read_modules
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.pickles import refuse_pickles
from langchain_crossrerank.errors import ModelNotFoundError, UnsupportedModelError


class ReportedTransformer(Transformer):
    """The transformer of sentence-transformers, which keeps the report of weights that its files do not have.

    Attributes:
        missing_weights: Names of weights that got random values.
    """

    missing_weights: tuple[str, ...] = ()

    def _load_model(self, *args: Any, **kwargs: Any) -> Any:
        loaded: Any = super()._load_model(*args, output_loading_info=True, **kwargs)
        model, report = loaded
        self.missing_weights = tuple(sorted(report["missing_keys"]))
        return model


def load_modules(
    source: ModelSource,
    *,
    device: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    trust_remote_code: bool = False,
) -> SentenceTransformer:
    """Load a cross-encoder with the modules that its folder lists, or as a sequence classifier if it lists none.

    Args:
        source: The model's folder, with its weights as safetensors.
        device: A torch device; `None` for CUDA, then MPS, then the CPU.
        dtype: Type of the weights; `"auto"` for the type in the files.
        trust_remote_code: Run Python code from the folder.

    Raises:
        ModelNotFoundError: If files are missing, or the weights are there as pickles only.
        UnsupportedModelError: If sentence-transformers cannot load it, or weights are missing.
    """
    options: dict[str, Any] = {
        "model_kwargs": {"use_safetensors": True, "dtype": dtype, "trust_remote_code": trust_remote_code},
        "processor_kwargs": {"trust_remote_code": trust_remote_code},
        "config_kwargs": {"trust_remote_code": trust_remote_code},
    }
    folder = str(source.folder)
    refuse_pickles(source.name, source.folder)
    is_saved = is_saved_cross_encoder(source)
    if is_saved:
        check_modules(source.folder, source.name)
    model: SentenceTransformer
    try:
        if is_saved:
            model = SentenceTransformer._load_with_module_classes(
                folder, _reported(source), device=device, trust_remote_code=trust_remote_code, **options
            )
        else:
            transformer = ReportedTransformer(folder, transformer_task="sequence-classification", **options)
            model = SentenceTransformer(modules=[transformer], device=device, trust_remote_code=trust_remote_code)
    except OSError as err:
        raise ModelNotFoundError(
            f"sentence-transformers cannot load {source.name!r}: {first_line(err)}; check that its folder has the "
            "weights as safetensors and a tokenizer."
        ) from err
    except Exception as err:
        raise UnsupportedModelError(f"sentence-transformers cannot load {source.name!r}: {first_line(err)}.") from err
    check_complete(model, source.name)
    model.eval()
    return model


def is_saved_cross_encoder(source: ModelSource) -> bool:
    """Whether a folder was saved by a `CrossEncoder` of sentence-transformers, with a list of its modules."""
    files = (source.folder / "modules.json", source.folder / "config_sentence_transformers.json")
    if not all(file.is_file() for file in files):
        return False
    try:
        saved = json.loads(files[1].read_text(encoding="utf-8"))
    except ValueError as err:
        raise UnsupportedModelError(f"{files[1]} is not JSON ({first_line(err)}); fetch the model again.") from err
    return isinstance(saved, dict) and saved.get("model_type") == "CrossEncoder"


def check_complete(model: SentenceTransformer, name: str) -> None:
    """Raise unless every weight that decides a score came from the model's files.

    Raises:
        UnsupportedModelError: With the names of the missing weights.
    """
    for module in model:
        missing = list(getattr(module, "missing_weights", ()))
        if getattr(module, "transformer_task", "") == "feature-extraction":
            # Cross-encoders with modules of their own have their own pooling.
            missing = [weight for weight in missing if "pooler" not in weight]
        if missing:
            raise UnsupportedModelError(
                f"the files of {name!r} do not have the weights {', '.join(missing[:4])}, which would be random, and "
                "so would be the scores. It has no trained classification head: it may be an embedding model "
                "(load_embeddings loads those) or a checkpoint that was never fine-tuned; pass a cross-encoder."
            )


def first_line(err: Exception) -> str:
    """Return the first line of an error's message, without its full stop."""
    return (str(err).strip().splitlines() or [type(err).__name__])[0].rstrip(".")


def _reported(source: ModelSource) -> dict[str, type]:
    """Map each name that `modules.json` has for the transformer of sentence-transformers to our subclass."""
    types = [entry.type for entry in read_modules(source.folder)]
    return {
        name: ReportedTransformer
        for name in types
        if name.startswith("sentence_transformers.") and name.endswith(".Transformer")
    }
