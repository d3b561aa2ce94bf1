"""Recognises weights that are saved as pickles, which are never read because reading one can run code."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from langchain_crossrerank.errors import ModelNotFoundError

_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def find_pickle(files: Iterable[str]) -> str | None:
    """Return a file with pickled weights for which there are no safetensors, or `None`.

    Args:
        files: Paths inside the model's folder, with forward slashes; a module's folder is looked at by itself.
    """
    folders: dict[str, list[str]] = {}
    for file in files:
        path = PurePosixPath(file)
        if len(path.parts) == 1 or (len(path.parts) == 2 and path.parts[0][:1].isdigit()):
            folders.setdefault(path.parent.as_posix(), []).append(file)
    for names in folders.values():
        pickled = sorted(name for name in names if any(fnmatch(PurePosixPath(name).name, shape) for shape in _PICKLES))
        if pickled and not any(name.endswith(".safetensors") for name in names):
            return pickled[0]
    return None


def refuse_pickles(name: str, folder: Path) -> None:
    """Raise `ModelNotFoundError` if a folder has weights as pickles only.

    Args:
        name: The model, for the message.
        folder: Its folder.
    """
    files = [*folder.glob("*"), *folder.glob("[0-9]*_*/*")]
    pickled = find_pickle(path.relative_to(folder).as_posix() for path in files)
    if pickled is not None:
        raise pickle_error(name, pickled)


def pickle_error(name: str, file: str) -> ModelNotFoundError:
    """Return the error for weights in a pickle."""
    return ModelNotFoundError(
        f"the weights of {name!r} are a pickle ({file}), which could run code when it is read; pass a model with "
        "safetensors or an ONNX graph, or convert it where you trust it "
        "(`AutoModelForSequenceClassification.from_pretrained(...).save_pretrained(folder)`)."
    )
