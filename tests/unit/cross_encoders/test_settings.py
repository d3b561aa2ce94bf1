"""The settings of a model: each checked by its own rule, and all of them together against the backend."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.settings import SERVER_SETTINGS, ModelSettings, check_settings
from langchain_crossrerank.errors import InvalidInputError

BAD_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "model": ("", "  ", None, 3, b"bundled", ["bundled"]),
    "backend": ("", "tensorflow", "ONNX", None, []),
    "activation": ("", "softmax", "Sigmoid", 1, []),
    "max_length": (0, -1, 7, 256.0, "256", True),
    "max_batch_tokens": (0, -1, 1024.0, "1024", True),
    "precision": ("", "fp64", "FP32", 16),
    "num_threads": (0, -1, 1.0, "1", True),
    "device": (["cuda"], "", "gpu", "CUDA", "cuda:", "cuda:first", "cuda:0 ", 0),
    "passage_cache": ("", "lots", "256", 0, -1, True, 1.5, 256, "999KB"),
    "revision": (3, b"main"),
    "subfolder": (3, "", " "),
    "file_name": (3, "", "model.bin"),
    "token": (3, b"hf_x"),
    "local_files_only": (1, "yes", None),
    "trust_remote_code": (1, "yes", None),
    "instruction": (3, ["find it"]),
    "long_query": ("", "truncate", None, True),
}


@pytest.mark.parametrize(
    ("argument", "value"), [(name, value) for name, values in BAD_ARGUMENTS.items() for value in values], ids=repr
)
@pytest.mark.parametrize("check", [check_settings, load_cross_encoder])
def test_a_bad_argument_is_refused_before_anything_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, check: Any, argument: str, value: Any
) -> None:
    """An argument out of range raises with its name and value, and no file or repository is touched."""
    monkeypatch.setattr("langchain_crossrerank.cross_encoders.loading._join_load", None)
    with pytest.raises(InvalidInputError, match=rf"^{argument} ") as raised:
        check(**{"model": "bundled", argument: value})
    assert repr(value) in str(raised.value)


def test_every_setting_has_bad_values_above() -> None:
    """No setting is left out of the checks."""
    assert set(BAD_ARGUMENTS) == {field.name for field in fields(ModelSettings)} - {"server"}


def test_the_settings_are_the_arguments_of_load_cross_encoder() -> None:
    """The function and the dataclass have the same names and defaults."""
    arguments = {name: each.default for name, each in inspect.signature(load_cross_encoder).parameters.items()}
    assert arguments.pop("server") is inspect.Parameter.empty
    settings = ModelSettings()
    names = [field.name for field in fields(ModelSettings) if field.name != "server"]
    assert arguments == {name: getattr(settings, name) for name in names}


def test_the_settings_of_a_server_are_the_arguments_of_the_remote_model() -> None:
    """Everything that `RemoteCrossEncoder` takes can be given for a URL, and nothing else."""
    remote = set(inspect.signature(RemoteCrossEncoder).parameters) - {"url", "activation", "max_length"}
    assert set(SERVER_SETTINGS) == (remote - {"model"}) | {"model_name"}


def test_settings_of_a_server_are_for_urls() -> None:
    """They are kept for a URL, with `model` for the server's model, shown nowhere, and refused for other models."""
    settings = check_settings("https://host/rerank", api_key="sk-secret", model="m")
    assert settings == check_settings("https://host/rerank", model_name="m", api_key="sk-secret")
    assert hash(settings) == hash(check_settings("https://host/rerank", model_name="m", api_key="sk-secret"))
    assert settings != check_settings("https://host/rerank", model_name="m", api_key="sk-other")
    assert settings.server.arguments == {"api_key": "sk-secret", "model_name": "m"}
    assert "sk-secret" not in repr(settings)
    with pytest.raises(InvalidInputError, match="headers is a setting of rerank servers"):
        check_settings("bundled", headers={"api-key": "k"})
    with pytest.raises(InvalidInputError, match="did you mean 'api_key'"):
        check_settings("https://host/rerank", api_kye="k")


@pytest.mark.parametrize(
    ("unknown", "hint"),
    [
        ("max_lenght", "did you mean 'max_length'"),
        ("batch_tokens", "did you mean 'max_batch_tokens'"),
        ("local_files", "did you mean 'local_files_only'"),
        ("automodel_args", "pass one of model, backend, activation"),
        ("x" * 500, "pass one of"),
    ],
)
def test_an_unknown_argument_is_refused_with_the_close_match(unknown: str, hint: str) -> None:
    """A misspelt argument raises with its name and the one that was probably meant, or with the list of all."""
    with pytest.raises(InvalidInputError, match=hint) as raised:
        check_settings("bundled", **{unknown: 3})
    assert unknown[:20] in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("backend", "setting"),
    [
        ("onnx", {"trust_remote_code": True}),
        ("onnx", {"precision": "bf16"}),
        ("onnx", {"device": "mps"}),
        ("openvino", {"device": "cuda"}),
        ("openvino", {"precision": "int8"}),
        ("openvino", {"trust_remote_code": True}),
        ("torch", {"precision": "int8"}),
        ("torch", {"num_threads": 2}),
        ("remote", {"precision": "bf16"}),
        ("remote", {"device": "cpu"}),
        ("remote", {"revision": "main"}),
        ("remote", {"local_files_only": True}),
        ("remote", {"max_batch_tokens": 64}),
        *((backend, {"instruction": "find the same case"}) for backend in ("onnx", "openvino", "remote")),
    ],
    ids=str,
)
def test_a_setting_that_the_backend_does_not_support_is_refused(backend: Any, setting: dict[str, Any]) -> None:
    """The error names the setting and the backends that support it."""
    with pytest.raises(InvalidInputError, match=f"^{next(iter(setting))} is .*{backend} backend.*backend="):
        check_settings("some/model", backend, **setting)


@pytest.mark.parametrize(
    ("model", "setting", "backend"),
    [
        ("http://localhost/rerank", {"num_threads": 2}, "remote"),
        ("https://localhost/rerank", {"device": "cpu"}, "remote"),
        ("some/model", {"device": "cuda", "num_threads": 2}, "torch"),
        ("some/model", {"trust_remote_code": True, "precision": "int8"}, "torch"),
    ],
)
def test_the_backend_that_auto_must_choose_is_checked_too(model: str, setting: dict[str, Any], backend: str) -> None:
    """If the settings leave only one backend, what it does not support is refused before loading."""
    with pytest.raises(InvalidInputError, match=f"not supported by the {backend} backend"):
        check_settings(model, **setting)


@pytest.mark.parametrize(
    "setting", [{"backend": "torch"}, {"backend": "remote"}, {"device": "cuda:0"}, {"trust_remote_code": True}], ids=str
)
def test_the_bundled_model_is_refused_where_a_graph_does_not_run(setting: dict[str, Any]) -> None:
    """The model in the package is a graph, and asking for torch, a GPU or remote code says so before loading."""
    with pytest.raises(InvalidInputError, match='backend="onnx"'):
        check_settings("bundled", **setting)


@pytest.mark.parametrize("model", ["HTTP://localhost/rerank", "Https://localhost/rerank"])
def test_the_scheme_of_a_url_may_be_in_capitals(model: str) -> None:
    """It is a server all the same."""
    settings = check_settings(model, api_key="sk-secret")
    assert settings.is_url
    assert settings.known_backend == "remote"


@pytest.mark.parametrize("urls", [[], ["http://a", "http://u:secret@b"], ("http://a",)], ids=str)
@pytest.mark.parametrize("load", [load_cross_encoder, lambda urls: CrossEncoderReranker(model=urls)])
def test_a_list_of_servers_is_refused_helpfully(load: Any, urls: Any) -> None:
    """The error says where the further addresses go, and shows no password."""
    with pytest.raises(InvalidInputError, match=r"^model is \[.*; pass the first one.* fallback_urls") as caught:
        load(urls)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:11", "mps", "xpu:1", "npu"])
def test_torch_devices_pass(device: str) -> None:
    """A device is named as torch names it, with or without a number."""
    assert check_settings("some/model", "torch", device=device).device == device


def test_a_path_becomes_text() -> None:
    """A folder given as a path and as text gives equal settings, so that both share one model."""
    assert check_settings(Path("some") / "model") == check_settings("some/model")
    assert hash(check_settings(Path("some") / "model")) == hash(check_settings("some/model"))


def test_settings_survive_pickling() -> None:
    """Settings can be sent to another process."""
    settings = check_settings("bundled", max_length=64)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_checking_loads_no_model_library() -> None:
    """Settings are checked without onnxruntime, tokenizers, torch or the hub's client."""
    script = """
import sys
from langchain_crossrerank.cross_encoders.settings import check_settings
check_settings("some/model", "torch", device="cuda")
print(*{"onnxruntime", "tokenizers", "torch", "transformers", "huggingface_hub"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("\n", "")
