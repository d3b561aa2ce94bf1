"""Reads the modules that follow a transformer in a model saved by sentence-transformers, as layers for its graph."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from langchain_crossrerank.cross_encoders.model_config import read_description, read_json
from langchain_crossrerank.errors import ModelNotFoundError, UnsupportedModelError
from langchain_crossrerank.onnx_graphs.head_layers import ACTIVATIONS, Layer, Linear, Normalise, Pool

_CONFIGURED = ("Pooling", "Dense", "LayerNorm")
"""Modules that sentence-transformers never saves without a `config.json`."""

_POOLINGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


class ModuleEntry(BaseModel):
    """One entry of `modules.json`."""

    path: str
    type: str

    model_config = ConfigDict(defer_build=True)

    @property
    def kind(self) -> str:
        """The module's class, without its package."""
        return self.type.rsplit(".", 1)[-1]


class _Settings(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", defer_build=True)


class _PoolingSettings(_Settings):
    pooling_mode: str | list[str] | None = None


class _DenseSettings(_Settings):
    activation_function: str = "torch.nn.modules.activation.Tanh"
    module_input_name: str = "sentence_embedding"
    module_output_name: str | None = None
    use_residual: bool = False


def read_modules(folder: Path) -> list[ModuleEntry]:
    """Read `modules.json`; a model without it has no modules.

    Raises:
        UnsupportedModelError: If the file is damaged.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        return TypeAdapter(Annotated[list[ModuleEntry], Field(min_length=1)]).validate_python(read_json(path))
    except ValidationError as err:
        raise UnsupportedModelError(f"{path} is not a list of modules; fetch the model again.") from err


def module_files(folder: Path) -> list[str]:
    """Return what may be read of the modules that follow a model's transformer, relative to its folder.

    Raises:
        UnsupportedModelError: If `modules.json` is damaged.
    """
    places = [PurePosixPath(entry.path) for entry in read_modules(folder)[1:]]
    return [(place / file).as_posix() for place in places for file in ("config.json", "model.safetensors")]


def check_modules(folder: Path, name: str) -> None:
    """Raise if a module that follows a model's transformer is not there; see `module_folder`."""
    for entry in read_modules(folder)[1:]:
        module_folder(folder, entry, name)


def has_head_modules(folder: Path) -> bool:
    """Return whether a model's scores are made by modules that follow its transformer."""
    return any(entry.kind in ("Dense", "LogitScore") for entry in read_modules(folder)[1:])


def read_head(folder: Path, name: str) -> tuple[Layer, ...]:
    """Read the modules that follow a model's transformer.

    Args:
        folder: The model's folder.
        name: The model, for messages.

    Returns:
        The layers in order; empty if the transformer itself returns the scores.

    Raises:
        UnsupportedModelError: If there is a module that a graph cannot get, which is named.
    """
    if not has_head_modules(folder):
        return ()
    layers: list[Layer] = []
    for entry in read_modules(folder)[1:]:
        layer = read_layer(folder, entry, name)
        if layer is not None:
            layers.append(layer)
    if not layers or not isinstance(layers[0], Pool) or not isinstance(layers[-1], Linear):
        raise unsupported(name, "its modules do not begin with Pooling and end with Dense")
    return tuple(layers)


def read_layer(folder: Path, entry: ModuleEntry, name: str) -> Layer | None:
    """Read one module; `None` if it computes nothing.

    Args:
        folder: The model's folder.
        entry: The module's entry in `modules.json`.
        name: The model, for messages.

    Raises:
        UnsupportedModelError: If it is of a kind that is not known here, or its files are unusable.
    """
    place = module_folder(folder, entry, name)
    if entry.kind == "Dropout":
        return None
    if entry.kind == "Pooling":
        return Pool(_pooling(place, name))
    if entry.kind == "Dense":
        return _dense(place, name)
    if entry.kind == "LayerNorm":
        weights = _weights(place)
        return Normalise(weights["norm.weight"], weights["norm.bias"])
    raise unsupported(name, f"its module {entry.type} cannot be appended to a graph")


def module_folder(folder: Path, entry: ModuleEntry, name: str) -> Path:
    """Return the folder of a module.

    Raises:
        ModelNotFoundError: If it lacks the settings that decide what the module does.
        UnsupportedModelError: If it is outside the model's folder.
    """
    place = folder / entry.path
    if not place.resolve().is_relative_to(folder.resolve()):
        raise UnsupportedModelError(f"the module {entry.path!r} of {name!r} is outside its folder; fetch it again.")
    if entry.kind in _CONFIGURED and not (place / "config.json").is_file():
        raise ModelNotFoundError(
            f"the model {name!r} lists a module {entry.kind} in modules.json, and has no "
            f"{PurePosixPath(entry.path, 'config.json')} in {folder} to say what it does; fetch the model again."
        )
    return place


def _pooling(place: Path, name: str) -> Any:
    said = read_description(place / "config.json", _PoolingSettings)
    older = [mode for key, mode in _POOLINGS.items() if (said.model_extra or {}).get(key)]
    modes = [said.pooling_mode] if isinstance(said.pooling_mode, str) else said.pooling_mode or older or ["mean"]
    others = [
        key for key, value in (said.model_extra or {}).items() if key.startswith("pooling_mode_") and value is True
    ]
    if len(modes) != 1 or modes[0] not in ("cls", "mean") or set(others) - set(_POOLINGS):
        raise unsupported(name, f"its pooling {modes or others} cannot be appended to a graph")
    return modes[0]


def _dense(place: Path, name: str) -> Linear:
    said = read_description(place / "config.json", _DenseSettings)
    activation = said.activation_function.rsplit(".", 1)[-1]
    if activation not in ACTIVATIONS or said.use_residual or said.module_input_name != "sentence_embedding":
        raise unsupported(name, f"its module {place.name} has an activation, input or residual that is not known here")
    weights = _weights(place)
    return Linear(weights["linear.weight"], weights.get("linear.bias"), activation)


def _weights(place: Path) -> dict[str, Any]:
    """Read a module's weights, which must be safetensors, in fp32."""
    import numpy as np
    from safetensors.numpy import load_file

    path = place / "model.safetensors"
    try:
        return {key: np.asarray(value, dtype=np.float32) for key, value in load_file(path).items()}
    except Exception as err:  # safetensors raises errors without a common class
        raise UnsupportedModelError(
            f"the weights of a module in {path} cannot be read ({type(err).__name__}: {err}); fetch the model again, "
            "or if it has only pickled weights, save it again with safetensors."
        ) from err


def unsupported(name: str, reason: str) -> UnsupportedModelError:
    """Make the error for a model that only torch can run."""
    return UnsupportedModelError(f"{name!r} cannot run from its graph: {reason}; use the torch backend.")
