"""Where a model's files are found, and which of them are fetched."""

from __future__ import annotations

import json
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from langchain_crossrerank.cross_encoders.finding import find_source
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError

Fetches = list[dict[str, Any]]


def test_bundled_is_the_folder_in_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The name always means the model inside the package, even next to a folder of that name."""
    (tmp_path / "bundled").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_source("bundled") == ModelSource("bundled", BUNDLED_FOLDER)


def test_a_part_of_the_bundled_model_has_a_name_of_its_own() -> None:
    """What was measured for the whole model holds under its name alone, by which its own graph goes, too."""
    assert find_source("bundled", file_name="sparse.onnx").name == "bundled/sparse.onnx"
    assert find_source("bundled", file_name="model.onnx").name == "bundled"


@pytest.mark.parametrize(
    ("name", "setting"), [("bundled", "revision"), ("bundled", "subfolder"), ("a folder", "revision")]
)
def test_a_setting_that_would_be_ignored_is_refused(tmp_path: Path, name: str, setting: str) -> None:
    """Only repositories have revisions, and the bundled model has no subfolders."""
    model = name if name == "bundled" else tmp_path
    with pytest.raises(InvalidInputError, match=rf"{setting} is 'v1', and .*; leave {setting} out"):
        find_source(model, **{setting: "v1"})  # type: ignore[arg-type]  # each of them is a text


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_is_taken_as_it_is(tmp_path: Path, kind: Callable[[Path], Any]) -> None:
    """A folder is found by string or path, and resolved."""
    assert find_source(kind(tmp_path)) == ModelSource(str(tmp_path), tmp_path.resolve())


def test_a_folder_in_the_home_is_found_by_its_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`~` is the home folder."""
    (tmp_path / "model").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert find_source("~/model").folder == (tmp_path / "model").resolve()


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fetches:
    """Calls that would have gone to the hub."""
    calls: Fetches = []

    def fetch(name: str, **kwargs: Any) -> str:
        calls.append({"name": name, **kwargs})
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    return calls


def test_an_existing_folder_wins_over_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fetches: Fetches
) -> None:
    """A folder that is called like a repository is read, and nothing is fetched."""
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_source("org/model").folder == (tmp_path / "org" / "model").resolve()
    assert fetches == []


@pytest.mark.parametrize("name", ["./nope", "../nope", "/nope/model", "~/nope", "a/b/c", "models/nope/"])
def test_what_can_only_be_a_folder_is_not_looked_for_on_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fetches: Fetches, name: str
) -> None:
    """A path that does not exist raises with the place that was looked at, and nothing is fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="no model folder") as raised:
        find_source(name)
    assert repr(name) in str(raised.value)
    assert fetches == []


def test_a_file_is_no_model_folder(tmp_path: Path, fetches: Fetches) -> None:
    """Naming the graph instead of its folder raises an error that says so."""
    file = tmp_path / "model.onnx"
    file.touch()
    with pytest.raises(ModelNotFoundError, match="it is a file"):
        find_source(file)
    assert fetches == []


@pytest.mark.parametrize("weights", [True, False])
def test_only_the_files_that_are_needed_are_fetched(fetches: Fetches, tmp_path: Path, weights: bool) -> None:
    """From the hub come description files, the card and, for onnx, one graph; never pickles or other weights."""
    source = find_source("org/model", revision="v1", local_files_only=True, weights=weights)
    assert source == ModelSource("org/model", tmp_path)
    (call,) = fetches
    assert (call["name"], call["revision"], call["local_files_only"]) == ("org/model", "v1", True)
    patterns = call["allow_patterns"]
    assert ("onnx/model.onnx" in patterns) is weights
    assert {"config.json", "README.md"} <= set(patterns)
    assert all(not pattern.startswith("*") and "/*" not in pattern for pattern in patterns)
    unwanted = ("pytorch_model.bin", "model.safetensors", "model.pkl", "onnx/other.onnx", "tf_model.h5")
    assert not [name for name in unwanted for pattern in patterns if fnmatch(name, pattern)]


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that the hub lists for any repository."""
    files: list[str] = []
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: files)
    return files


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (
            ["onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_fp16.onnx"],
            ["onnx/model.onnx", "onnx/model.onnx_data"],
        ),
        (["model.onnx", "model.onnx.data"], ["model.onnx", "model.onnx.data"]),
        (["onnx/model_quantized.onnx", "pytorch_model.bin"], ["onnx/model_quantized.onnx"]),
    ],
    ids=str,
)
def test_one_graph_is_fetched_with_its_data(
    fetches: Fetches, listing: list[str], files: list[str], wanted: list[str]
) -> None:
    """Of several graphs in a repository only the best is fetched, and the files that its weights are in."""
    listing += files
    find_source("org/model")
    patterns = fetches[0]["allow_patterns"]
    assert [name for name in files if any(fnmatch(name, pattern) for pattern in patterns)] == wanted


def test_modules_are_fetched_from_where_the_model_lists_them(
    fetches: Fetches, listing: list[str], tmp_path: Path
) -> None:
    """Whatever the folders of a model's modules are called, their settings and weights are fetched, and no others."""
    listing += ["model.onnx"]
    (tmp_path / "sub").mkdir()
    entries = [{"path": path, "type": "Any"} for path in ("", "pool", "2_Dense_1024", "deep/er", "[1]")]
    (tmp_path / "sub" / "modules.json").write_text(json.dumps(entries), encoding="utf-8")
    source = find_source("org/model", subfolder="sub")
    first, second = (call["allow_patterns"] for call in fetches)
    places = ["pool", "2_Dense_1024", "deep/er", "[1]"]
    wanted = [f"sub/{place}/{name}" for place in places for name in ("config.json", "model.safetensors")]
    assert [file for file in wanted if any(fnmatch(file, pattern) for pattern in second)] == wanted
    assert not [file for file in wanted if any(fnmatch(file, pattern) for pattern in first)]
    assert not any(fnmatch("sub/1/config.json", pattern) for pattern in second)
    assert {source.folder / file.removeprefix("sub/") for file in wanted} <= set(source.description_files)


def test_a_subfolder_and_a_token_reach_the_hub(fetches: Fetches, listing: list[str], tmp_path: Path) -> None:
    """Files are fetched from the subfolder, with the caller's token."""
    (tmp_path / "sub").mkdir()
    listing += ["model.onnx", "sub/model.onnx"]
    source = find_source("org/model", subfolder="sub", token="hf_secret")
    assert source.folder == tmp_path / "sub"
    (call,) = fetches
    assert call["token"] == "hf_secret"
    assert all(pattern.startswith("sub/") for pattern in call["allow_patterns"])


@pytest.mark.parametrize("code", [True, False])
def test_code_is_fetched_only_for_those_who_trust_it(
    fetches: Fetches, listing: list[str], tmp_path: Path, code: bool
) -> None:
    """Python files come with torch weights if they are to be run, and not otherwise."""
    listing += ["model.safetensors", "modeling_own.py"]
    find_source("org/model", safetensors=True, code=code)
    patterns = fetches[0]["allow_patterns"]
    assert any(fnmatch("modeling_own.py", pattern) for pattern in patterns) is code


@pytest.mark.parametrize("safetensors", [True, False])
@pytest.mark.parametrize("files", [["pytorch_model.bin"], ["model.safetensors", "2_Dense/pytorch_model.bin"]], ids=str)
def test_a_repository_of_pickles_is_named_before_anything_is_fetched(
    fetches: Fetches, listing: list[str], files: list[str], safetensors: bool
) -> None:
    """Weights that are only there as pickles are refused whether or not torch is installed."""
    listing += ["config.json", *files]
    with pytest.raises(ModelNotFoundError, match=r"'org/model' are a pickle \((2_Dense/)?pytorch_model\.bin\)"):
        find_source("org/model", safetensors=safetensors)
    assert fetches == []


def test_a_hub_model_knows_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The commit is the one whose files were fetched, so that more of its files can be fetched later."""
    snapshot = tmp_path / "models--org--model" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    assert find_source("org/model", local_files_only=True).commit == "0123abc"
    assert find_source(tmp_path).commit is None


_RESPONSE = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co/org/model"))


def test_a_gated_model_says_where_to_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gated repository is not called missing: the error names the page with its terms."""

    def fail(*args: Any, **kwargs: Any) -> str:
        raise GatedRepoError("403", response=_RESPONSE)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ModelNotFoundError, match=r"gated.*https://huggingface\.co/org/model.*HF_TOKEN"):
        find_source("org/model")


def test_a_graph_is_taken_by_its_name(tmp_path: Path) -> None:
    """`file_name` takes a graph in place of the best one, and an unknown name is answered with what is there."""
    for name in ("model.onnx", "model_quantized.onnx"):
        (tmp_path / name).touch()
    assert find_source(tmp_path, file_name="model_quantized.onnx").onnx_file == tmp_path / "model_quantized.onnx"
    with pytest.raises(ModelNotFoundError, match=r"model\.onnx, model_quantized\.onnx"):
        _ = find_source(tmp_path, file_name="other.onnx").onnx_file


def test_a_model_in_a_subfolder_is_found(tmp_path: Path) -> None:
    """`subfolder` names a folder inside the model's, and cannot lead out of it."""
    (tmp_path / "sub").mkdir()
    assert find_source(tmp_path, subfolder="sub").folder == tmp_path / "sub"
    with pytest.raises(ModelNotFoundError, match="'other'"):
        find_source(tmp_path, subfolder="other")
    for outside in ("../x", "/x", ""):
        with pytest.raises(InvalidInputError, match="inside the model's folder"):
            find_source(tmp_path, subfolder=outside)
        with pytest.raises(InvalidInputError, match="inside the model's folder"):
            find_source(tmp_path, file_name=outside)


@pytest.mark.parametrize(
    "err",
    [
        RepositoryNotFoundError("404", response=_RESPONSE),
        RevisionNotFoundError("404", response=_RESPONSE),
        GatedRepoError("403", response=_RESPONSE),
        HFValidationError("bad name"),
        LocalEntryNotFoundError("not cached"),
        httpx.ConnectError("no route"),
        ConnectionError("offline"),
        OSError("disk full"),
    ],
    ids=lambda err: type(err).__name__,
)
def test_whatever_the_hub_client_raises_is_one_error(monkeypatch: pytest.MonkeyPatch, err: Exception) -> None:
    """No model from the hub is one error that names what was asked for and `"bundled"`, and keeps the cause."""

    def fail(*args: Any, **kwargs: Any) -> str:
        raise err

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ModelNotFoundError, match=r"'org/model'.*\"bundled\"") as raised:
        find_source("org/model")
    assert raised.value.__cause__ is err


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "log in or set HF_TOKEN"), (403, "log in or set HF_TOKEN"), (404, "check the name")],
)
def test_a_refusal_by_the_hub_is_not_blamed_on_the_network(
    monkeypatch: pytest.MonkeyPatch, status: int, remedy: str
) -> None:
    """A server that answers was reached: the error ends with what helps against its answer."""
    response = httpx.Response(status, request=httpx.Request("GET", "https://mirror.example/org/model"))

    def refuse(*args: Any, **kwargs: Any) -> list[str]:
        try:
            response.raise_for_status()
        except httpx.HTTPStatusError as err:
            raise HfHubHTTPError(str(err), response=response) from err
        return []

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", refuse)
    with pytest.raises(ModelNotFoundError, match=rf"\(HTTPStatusError: [^()]*'\)\; .*{remedy}") as raised:
        find_source("org/model")
    assert "network" not in str(raised.value)


def test_a_model_that_is_not_cached_is_not_blamed_on_the_network() -> None:
    """With `local_files_only` the error says that nothing was fetched, and how to fetch it."""
    with pytest.raises(ModelNotFoundError, match=r"nothing is fetched with local_files_only.* fetch it") as raised:
        find_source("crossrerank-tests/none", local_files_only=True)
    assert "connect" not in str(raised.value)
