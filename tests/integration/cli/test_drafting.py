"""`crossrerank evaluate --make-queries`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_crossrerank import cli
from langchain_crossrerank.evaluation import load_beir
from tests.integration.cli.collection import (
    ASKED,
    evaluate_run,
    sweep_run,
    write_rows,
)
from tests.integration.cli.scripted_chat import ScriptedChatServer, ask_for_first_words


def draft(*more: str) -> list[str]:
    """The words that draft three queries."""
    return ["evaluate", "new", "--make-queries", "3", "--files", "shelf", *more]


def test_make_queries_drafts_a_folder(
    shelf: Path, serve: Callable[..., ScriptedChatServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each chunk is sent to the language model with the key, and its question goes to a folder with its origin."""
    server = serve()
    assert cli.main(draft()) == 0
    assert capsys.readouterr().out.startswith("Drafted 3 queries in new. Correct them, then save qrels.drafted.tsv ")
    assert {request["key"] for request in server.requests} == {"Bearer sk-scripted"}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "corpus.jsonl",
        "qrels.drafted.tsv",
        "queries.jsonl",
    ]
    queries = [json.loads(line) for line in (tmp_path / "new" / "queries.jsonl").read_text().splitlines()]
    assert [query["text"] for query in queries] == [
        "What about Bread is?",
        "What about The ferry?",
        "What about The tower?",
    ]
    assert all(query["metadata"] == {"origin": "drafted"} for query in queries)


def test_drafted_judgements_are_not_used_by_default(
    shelf: Path,
    serve: Callable[..., ScriptedChatServer],
    capsys: pytest.CaptureFixture[str],
    error_of: Callable[[int], str],
) -> None:
    """A folder without judgements by a person is refused, and the error says what to do."""
    serve()
    assert cli.main(draft()) == 0
    capsys.readouterr()
    said = error_of(cli.main(["evaluate", "new", "--offline"]))
    assert "all judgements in 'new' are drafts; correct qrels.drafted.tsv and save it as qrels.tsv" in said


@pytest.mark.parametrize("asked", [["--qrels", "new/qrels.drafted.tsv"], []])
def test_a_result_from_drafted_queries_says_so(
    shelf: Path,
    serve: Callable[..., ScriptedChatServer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
) -> None:
    """Drafted judgements, named or saved as `qrels.tsv`, are evaluated with a note on the terminal and in the file."""
    serve()
    assert cli.main(draft()) == 0
    if not asked:
        (tmp_path / "new" / "qrels.drafted.tsv").rename(tmp_path / "new" / "qrels.tsv")
    capsys.readouterr()
    assert cli.main(["evaluate", "new", "--offline", *asked, "--output", "x.html"]) == 0
    note = "3 of 3 judged queries were drafted by a language model"
    assert note in capsys.readouterr().out
    assert note in (tmp_path / "x.html").read_text()


@pytest.mark.parametrize("arguments", [evaluate_run(), sweep_run()], ids=["evaluate", "sweep"])
def test_a_mix_of_drafted_and_other_queries_is_counted(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Where some judged queries are drafted, the note says how many of how many; unjudged ones do not count."""
    origins = {"q1": {"origin": "drafted"}, "q2": {"origin": "log"}, "q3": None, "q4": {"origin": "drafted"}}
    texts = {**ASKED, "q4": "nobody judged this"}
    write_rows(
        beir / "queries.jsonl",
        [{"_id": key, "text": text, "metadata": origins[key]} for key, text in texts.items()],
    )
    assert cli.main([*arguments, "--output", "x.json"]) == 0
    note = (
        "1 of 3 judged queries were drafted by a language model; the figures are only as reliable as your corrections "
        "to these queries."
    )
    assert capsys.readouterr().out.splitlines()[-1] == note
    assert json.loads((tmp_path / "x.json").read_text())["notes"] == [note]


def test_queries_that_people_wrote_need_no_note(beir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without drafts there is no note about them."""
    assert cli.main(evaluate_run()) == 0
    assert "drafted" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "key", "named"),
    [
        ([], "", "set OPENAI_API_KEY"),
        (["--offline"], "sk-scripted", "--offline works without one"),
    ],
    ids=["no key", "offline"],
)
def test_drafting_without_a_language_model_is_one_line(
    shelf: Path,
    serve: Callable[..., ScriptedChatServer],
    tmp_path: Path,
    error_of: Callable[[int], str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    key: str,
    named: str,
) -> None:
    """Without a key, and with `--offline` whatever the key, nothing is sent and nothing is written."""
    server = serve()
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert named in error_of(cli.main(draft(*more)))
    assert server.requests == []
    assert not (tmp_path / "new").exists()


def test_drafting_needs_files(serve: Callable[..., ScriptedChatServer], error_of: Callable[[int], str]) -> None:
    """`--make-queries` alone has nothing to draft from."""
    serve()
    assert "--files" in error_of(cli.main(["evaluate", "new", "--make-queries", "3"]))


def test_a_language_model_that_fails_leaves_nothing(
    shelf: Path, serve: Callable[..., ScriptedChatServer], tmp_path: Path, error_of: Callable[[int], str]
) -> None:
    """When one of several calls fails, its reason is the one line and no file is written."""

    def fail_at_the_tower(prompt: str) -> tuple[int, str]:
        return (400, "no more quota") if "tower" in prompt else ask_for_first_words(prompt)

    server = serve(fail_at_the_tower)
    assert "no more quota" in error_of(cli.main(draft()))
    assert len(server.requests) == 3
    assert not (tmp_path / "new").exists()


def test_drafting_into_a_folder_with_a_collection_is_refused(
    shelf: Path,
    beir: Path,
    serve: Callable[..., ScriptedChatServer],
    error_of: Callable[[int], str],
) -> None:
    """A folder that holds a collection keeps it, and the language model is not asked."""
    server = serve()
    before = {path.name: path.read_bytes() for path in beir.iterdir()}
    said = error_of(cli.main(["evaluate", "beir", "--make-queries", "3", "--files", "shelf"]))
    assert "'beir' holds corpus.jsonl, queries.jsonl, qrels.tsv already" in said
    assert server.requests == []
    assert {path.name: path.read_bytes() for path in beir.iterdir()} == before


def test_the_drafted_corpus_is_what_is_indexed(
    shelf: Path, serve: Callable[..., ScriptedChatServer], tmp_path: Path
) -> None:
    """Each drafted query is judged against the chunk it was drafted from."""
    serve()
    assert cli.main(draft()) == 0
    drafted = load_beir(tmp_path / "new", qrels="qrels.drafted.tsv")
    texts = {document.id: document.page_content for document in drafted.documents}
    for query_id, grades in drafted.qrels.items():
        ((document_id, grade),) = grades.items()
        assert grade == 1
        assert drafted.queries[query_id] == ask_for_first_words(f"Passage:\n{texts[document_id]}")[1].strip()
