"""`crossrerank models` and `crossrerank info`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import langchain_crossrerank
from langchain_crossrerank import cli
from langchain_crossrerank.model_catalogue import MODELS, table_notes


@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_catalogue_is_printed_whole(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every model's name, size and licence is printed uncut, on narrow and wide terminals, with all notes."""
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["models"]) == 0
    printed = capsys.readouterr().out
    for model in MODELS:
        start = printed.index(model.name)
        facts = printed[start : start + 230]
        assert f"{model.parameters:g}" in facts
        assert model.licence in facts
    assert all(note in printed for note in table_notes())


def test_the_catalogue_as_json_has_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints what `to_dict` returns for each model."""
    assert cli.main(["models", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps([model.to_dict() for model in MODELS]))


def test_info_shows_versions_cache_and_a_working_model(own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`info` names the version, the backends, the cache folder and the model, and scores a pair with it."""
    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    assert f"langchain-crossrerank {langchain_crossrerank.__version__}" in printed
    assert str(own_cache) in printed
    assert "onnxruntime 1." in printed
    assert "'bundled', backend='onnx'" in printed
    assert "sample score: 0." in printed


def test_info_reports_a_model_that_does_not_load(capsys: pytest.CaptureFixture[str]) -> None:
    """The rest is printed, the error says what is wrong with the model, and the exit code is 1."""
    assert cli.main(["info", "--model", "no/such-model"]) == 1
    captured = capsys.readouterr()
    assert "langchain-core" in captured.out
    assert "no/such-model" in captured.err


def test_info_hides_secrets_in_a_mirrors_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `info` prints can be pasted into a public issue."""
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.com/?token=s3cret")
    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    assert "hub.example.com" in printed
    assert "s3cret" not in printed
