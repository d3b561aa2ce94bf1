"""`crossrerank verify`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from langchain_crossrerank import cli, load_cross_encoder
from tests.integration.cli.collection import ASKED, TEXTS


@pytest.fixture
def goldens(tmp_path: Path) -> str:
    """A file with the bundled model's scores, and one that is wrong for every model."""
    model = load_cross_encoder("bundled", activation="identity")
    pairs = [(ASKED["q1"], text) for text in TEXTS.values()]
    rows = [
        {"model": "bundled", "query": query, "passage": passage, "score": score}
        for (query, passage), score in zip(pairs, model.score(pairs), strict=True)
    ]
    rows.append({"model": "./another", "query": "What is \x1b[31m?", "passage": "\x1b]0;pwned\x07", "score": 123.0})
    (tmp_path / "goldens.json").write_text(json.dumps(rows))
    return "goldens.json"


def test_the_bundled_model_is_what_was_published(capsys: pytest.CaptureFixture[str]) -> None:
    """`verify bundled` compares with the scores inside the package, and passes."""
    assert cli.main(["verify", "bundled"]) == 0
    assert "all within their tolerance" in capsys.readouterr().out.splitlines()[-1]


def test_a_difference_is_exit_code_1(goldens: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A model whose scores are not the expected ones fails, and the pairs that are shown do not act on the terminal."""
    assert cli.main(["verify", "bundled", "--goldens", goldens]) == 0
    assert cli.main(["verify", "bundled", "--goldens", goldens, "--golden-model", "./another"]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    assert not set("\x1b\x07") & set(captured.out)


def test_all_models_of_a_file_are_verified(goldens: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--all` goes on after a model that cannot be loaded, and fails in the end."""
    assert cli.main(["verify", "--all", "--goldens", goldens]) == 1
    output = capsys.readouterr().out
    assert f"bundled: {len(TEXTS)} scores, all within" in output
    assert "./another: failed: " in output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--all"),
        (["bundled", "--all"], "--all"),
        (["--all"], "--goldens"),
        (["--all", "--goldens", "goldens.json", "--tolerance", "1"], "--tolerance"),
        (["bundled", "--goldens", "missing.json"], "'missing.json'"),
        (["./no-model"], "'./no-model': it is not a folder here. Pass goldens= (on the command line --goldens)"),
        (["bundled", "--goldens", "others.json"], "(on the command line --golden-model)"),
        (["bundled", "--backend", "torch"], "torch"),
    ],
)
def test_a_verification_that_cannot_be_made_is_one_line(
    goldens: str, error_of: Callable[[int], str], arguments: list[str], named: str
) -> None:
    """What is missing or does not go together is named."""
    Path("others.json").write_text('{"model": "./another", "query": "?", "passage": "!", "score": 1.0}')
    assert named in error_of(cli.main(["verify", *arguments]))
