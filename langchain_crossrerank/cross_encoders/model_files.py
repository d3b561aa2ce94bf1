"""Finds a model's files: in the package, in a folder, or in a repository on the Hugging Face hub."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from langchain_crossrerank.cross_encoders.scores import Activation
from langchain_crossrerank.downloads import describe_failure
from langchain_crossrerank.errors import ModelNotFoundError, UnsupportedModelError

BUNDLED = "bundled"
"""The name that stands for the model inside this package."""

BUNDLED_FOLDER = Path(__file__).parent.parent / "models" / "minilm-l6-en-v1"

ONNX_FILES = ("model.onnx", "onnx/model.onnx")
"""Where a folder or repository may keep its ONNX graph, in the order they are looked for."""

_DESCRIPTION_FILES = [
    "config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
]

_NO_LIMIT = 10**9

_GRAPH_FILES = ["onnx/model.onnx", "onnx/model.onnx_data"]
_SAFETENSORS_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True)
class ModelSource:
    """A model's name and where its files are.

    Attributes:
        name: What the caller asked for.
        folder: The folder with `config.json` and `tokenizer.json`, with links and `..` resolved.
    """

    name: str
    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's `config.json`."""
        return self._read_json("config.json", required=True)

    @property
    def onnx_file(self) -> Path | None:
        """The ONNX graph, or `None` where there is none."""
        return next((path for file in ONNX_FILES if (path := self.folder / file).is_file()), None)

    @property
    def tokenizer_file(self) -> Path:
        """The fast tokenizer's file.

        Raises:
            ModelNotFoundError: If there is none.
        """
        path = self.folder / "tokenizer.json"
        if not path.is_file():
            raise self._missing("tokenizer.json")
        return path

    @property
    def activation(self) -> Activation:
        """The activation that the model's config asks for, by the rule of sentence-transformers.

        That rule: `activation_fn` of `config_sentence_transformers.json`, else `sentence_transformers.activation_fn`
        of the config, else the older `sbert_ce_default_activation_function`; without any, sigmoid for one label and
        identity for more.
        """
        saved = self.config.get("sentence_transformers") or {}
        # Releases from 6 on write it into a file of their own.
        named = (
            self._read_json("config_sentence_transformers.json", required=False).get("activation_fn")
            or saved.get("activation_fn")
            or self.config.get("sbert_ce_default_activation_function")
        )
        if named is None:
            return "sigmoid" if self.num_labels == 1 else "identity"
        kind = str(named).rsplit(".", 1)[-1]
        if kind in ("Sigmoid", "Identity"):
            return "sigmoid" if kind == "Sigmoid" else "identity"
        raise UnsupportedModelError(
            f"{self.name!r} asks for the activation {named!r}, which is not known here; "
            'pass activation="identity" or activation="sigmoid".'
        )

    @property
    def num_labels(self) -> int:
        """Outputs of the model's head, as its config gives them; 2 where it says nothing, as in transformers."""
        labels = self.config.get("num_labels") or len(self.config.get("id2label") or ()) or 2
        return int(labels)

    @property
    def max_length(self) -> int:
        """The most tokens that the tokenizer and the position table allow; 512 where neither says."""
        tokenizer = self._read_json("tokenizer_config.json", required=False)
        positions = self.config.get("max_position_embeddings")
        if positions and self.config.get("model_type") in ("roberta", "xlm-roberta", "camembert"):
            # These count positions from padding_idx + 1.
            padding = self.config.get("pad_token_id")
            positions -= (1 if padding is None else int(padding)) + 1
        limits = [self.config.get("max_length"), tokenizer.get("model_max_length"), positions]
        # Tokenizers without a limit of their own say 1e30.
        return int(min((limit for limit in limits if limit and limit < _NO_LIMIT), default=512))

    @property
    def is_causal(self) -> bool:
        """Whether the weights are those of a causal language model."""
        return any(str(name).endswith("ForCausalLM") for name in self.config.get("architectures") or ())

    def check_classifier(self) -> None:
        """Raise if the weights have no classification head, which loading would make up at random.

        Raises:
            UnsupportedModelError: Naming the architecture.
        """
        architectures = [str(name) for name in self.config.get("architectures") or ()]
        if architectures and not any(name.endswith("ForSequenceClassification") for name in architectures):
            raise UnsupportedModelError(
                f"{self.name!r} holds a {architectures[0]}, which has no classification head, so every score would be "
                "random; it may be an embedding model. Pass a cross-encoder."
            )

    def _read_json(self, file: str, *, required: bool) -> dict[str, Any]:
        path = self.folder / file
        if not path.is_file():
            if required:
                raise self._missing(file)
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as err:
            raise UnsupportedModelError(f"{path} is not valid JSON ({err}); fetch or export the model again.") from err
        if not isinstance(content, dict):
            raise UnsupportedModelError(f"{path} holds no JSON object; fetch or export the model again.")
        return content

    def _missing(self, file: str) -> ModelNotFoundError:
        present = ", ".join(sorted(path.name for path in self.folder.iterdir())[:12]) or "nothing"
        return ModelNotFoundError(
            f"the model {self.name!r} has no {file} in {self.folder} (there: {present}); "
            "a model folder needs config.json, tokenizer.json and its weights."
        )


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
    weights: bool = True,
    safetensors: bool = False,
) -> ModelSource:
    """Find a model by `"bundled"`, a folder, or a name on the Hugging Face hub.

    Only a hub name can lead to a download, and only of the description files and `onnx/model.onnx`.
    `HF_HUB_OFFLINE=1` is obeyed.

    Args:
        model: What to look for. An existing folder wins over a hub repository of the same name.
        revision: Branch, tag or commit on the hub.
        local_files_only: Use the hub's local cache and no network.
        weights: Whether to fetch the ONNX graph too.
        safetensors: Whether to fetch torch weights and everything a tokenizer may need instead.

    Returns:
        The model's name and folder.

    Raises:
        ModelNotFoundError: If there is no such model, or it cannot be reached.
    """
    name = os.fspath(model)
    if name == BUNDLED:
        return ModelSource(name, BUNDLED_FOLDER)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ModelSource(name, folder.resolve())
    if not is_hub_name(name):
        reason = "it is a file" if folder.is_file() else f"looked at {folder.absolute()}"
        raise ModelNotFoundError(f"there is no model folder {name!r} ({reason}); pass the folder with config.json.")
    files = _DESCRIPTION_FILES + (_GRAPH_FILES if weights else [])
    return _fetch(name, _SAFETENSORS_FILES if safetensors else files, revision, local_files_only)


def _fetch(name: str, files: list[str], revision: str | None, local_files_only: bool) -> ModelSource:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        folder = snapshot_download(name, revision=revision, local_files_only=local_files_only, allow_patterns=files)
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError, HFValidationError) as err:
        raise ModelNotFoundError(
            f"the Hugging Face hub has no model {name!r} that may be read (revision {revision!r}), and it is no "
            'folder here; check the spelling or your token, or use "bundled" for the model inside this package.'
        ) from err
    except Exception as err:
        # The hub client's errors for a missing network come from several libraries and change with versions.
        raise ModelNotFoundError(
            f"the model {name!r} is no folder here, is not in the local cache, and could not be fetched from the "
            f'Hugging Face hub ({describe_failure(err)}); use "bundled" (on the command line --offline) for the model '
            "inside this package, pass a folder, or connect to the network."
        ) from err
    return ModelSource(name, Path(folder))
