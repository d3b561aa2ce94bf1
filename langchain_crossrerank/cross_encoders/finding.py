"""Finds a model: in the package, in a folder, or in a repository on the Hugging Face hub."""

from __future__ import annotations

import os
from dataclasses import replace
from glob import escape
from pathlib import Path, PurePosixPath

from langchain_crossrerank.cross_encoders.graph_files import EXACT_GRAPHS, ROUGH_GRAPHS, choose_graph
from langchain_crossrerank.cross_encoders.head_modules import module_files
from langchain_crossrerank.cross_encoders.hub import HubRepository
from langchain_crossrerank.cross_encoders.model_files import (
    BUNDLED,
    BUNDLED_FOLDER,
    DESCRIPTION_FILES,
    ModelSource,
    bundled_name,
)
from langchain_crossrerank.cross_encoders.pickles import find_pickle, pickle_error
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError

_WEIGHTS_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_CARD = "README.md"


def is_hub_name(name: str) -> bool:
    """Return whether a name can only be one on the hub: it is neither `"bundled"` nor a path."""
    folder = Path(name).expanduser()
    is_path = folder.exists() or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    return name != BUNDLED and not is_path


def find_source(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    subfolder: str | None = None,
    file_name: str | None = None,
    token: str | None = None,
    weights: bool = True,
    safetensors: bool = False,
    code: bool = False,
) -> ModelSource:
    """Find a model by `"bundled"`, a folder, or a name on the Hugging Face hub.

    Only a hub name can lead to a download, and only of the description files, the modules that they list and one graph.
    `HF_HUB_OFFLINE=1` is obeyed.

    Args:
        model: What to look for. An existing folder wins over a hub repository of the same name.
        revision: Branch, tag or commit on the hub.
        local_files_only: Use the hub's local cache and no network.
        subfolder: Folder inside the model's folder or repository with the model to load.
        file_name: The graph to run, relative to that folder; `None` for the best one, see `choose_graph`.
        token: Access token for private and gated repositories; `None` for the one that is logged in, or `HF_TOKEN`.
        weights: Whether to fetch the ONNX graph too.
        safetensors: Whether to fetch torch weights and everything a tokenizer may need instead.
        code: Whether to fetch Python files with them.

    Returns:
        The model's name and folder.

    Raises:
        InvalidInputError: If `subfolder` or `file_name` leads out of the model's folder, or `revision` or `subfolder`
            is for a model that has none.
        ModelNotFoundError: If there is no such model, it cannot be reached, or its weights are there as pickles only.
        UnsupportedModelError: If the list of modules of a model on the hub is damaged.
    """
    for what, path in (("subfolder", subfolder), ("file_name", file_name)):
        if path is not None and (PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or not path):
            raise InvalidInputError(f"{what} is {path!r}; pass a path inside the model's folder.")
    name = os.fspath(model)
    if name == BUNDLED:
        _check_left_out("the bundled model is inside this package", revision=revision, subfolder=subfolder)
        return ModelSource(bundled_name(file_name), BUNDLED_FOLDER, file_name=file_name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_left_out(f"{name!r} is a folder on this machine", revision=revision)
        return ModelSource(name, _inside(name, folder.resolve(), subfolder), file_name=file_name)
    if not is_hub_name(name):
        reason = "it is a file" if folder.is_file() else f"looked at {folder.absolute()}"
        raise ModelNotFoundError(f"there is no model folder {name!r} ({reason}); pass the folder with config.json.")
    hub = HubRepository(name, revision, token, local_files_only, subfolder)
    snapshot = hub.fetch(_patterns(hub, file_name, weights, safetensors, code))
    # The hub's local cache has a folder for each commit.
    commit = snapshot.name if snapshot.parent.name == "snapshots" else None
    place = _inside(name, snapshot, subfolder)
    if not safetensors and (modules := module_files(place)):
        # Only their list, which is among what was fetched, says where they are.
        replace(hub, revision=commit or revision).fetch([escape(file) for file in modules])
    return ModelSource(name, place, file_name=file_name, commit=commit)


def _check_left_out(why: str, **settings: str | None) -> None:
    """Raise for a setting that would be ignored."""
    for what, value in settings.items():
        if value is not None:
            raise InvalidInputError(f"{what} is {value!r}, and {why}; leave {what} out.")


def _inside(name: str, folder: Path, subfolder: str | None) -> Path:
    place = folder / subfolder if subfolder else folder
    if not place.is_dir():
        raise ModelNotFoundError(f"the model {name!r} has no folder {subfolder!r}; check the name.")
    return place


def _patterns(hub: HubRepository, file_name: str | None, weights: bool, safetensors: bool, code: bool) -> list[str]:
    """Return which files of a repository to fetch."""
    if safetensors:
        _check_weights(hub.name, hub.files())
        return [*_WEIGHTS_FILES, _CARD, *(["*.py"] if code else [])]
    if not weights:
        return [*DESCRIPTION_FILES, _CARD]
    if file_name is not None:
        graphs = [file_name]
    else:
        listed = hub.files()
        chosen = choose_graph(listed, hub.name) if listed is not None else None
        if listed is not None and chosen is None:
            _check_weights(hub.name, listed)
        graphs = [chosen] if chosen else [] if listed is not None else list(EXACT_GRAPHS + ROUGH_GRAPHS)
    # External data has the graph's name with _data or .data behind it, and sometimes a number.
    return [
        *DESCRIPTION_FILES,
        _CARD,
        *graphs,
        *(f"{graph}{ending}*" for graph in graphs for ending in ("_data", ".data")),
    ]


def _check_weights(name: str, listed: list[str] | None) -> None:
    """Raise if a repository is known to have weights as pickles only."""
    pickled = find_pickle(listed or ())
    if pickled is not None:
        raise pickle_error(name, pickled)
