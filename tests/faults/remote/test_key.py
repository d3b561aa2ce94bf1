"""The API key is shown nowhere: not in errors, logs, reprs or traces."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.errors import RemoteError
from tests.fault_tally import Tally
from tests.faults.remote.rerank_server import (
    ECHOES,
    KEY,
    Connect,
    Handler,
    Recorder,
    Reply,
    Rerank,
    Score,
    Server,
    answer,
    break_off,
    candidates,
    fails,
    honest,
    shows_key,
    whole,
)


@pytest.mark.parametrize("what", ECHOES)
def test_a_server_that_echoes_the_key_does_not_reveal_it(
    what: str, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """No piece of the key is in the error, its causes, its traceback or its pickle."""
    tally(f"a key echoed {what}")
    server.always(ECHOES[what])
    assert not shows_key(whole(fails(score, connect(api_key=KEY))))


def test_a_key_at_the_cut_of_an_error_is_not_shown_in_part(
    server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """The key is removed before the server's words are cut, wherever the cut is."""
    model = connect(api_key=KEY)
    for before in range(260, 305):
        tally("a key at the cut")
        server.script(answer(b"x" * before + KEY.encode() + b"y" * 50, 400))
        assert not shows_key(whole(fails(score, model)))


def test_a_key_at_the_cut_of_a_result_is_not_shown_in_part(
    server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """The key is removed before a bad result is cut, wherever the cut is."""
    model = connect(api_key=KEY)
    for before in range(40, 82):
        tally("a key at the cut")
        server.script(answer(["x" * before + KEY + "y" * 50]))
        assert not shows_key(whole(fails(score, model)))


def test_a_key_in_many_pieces_of_the_answer_is_not_shown(
    server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """A body that arrives byte by byte is joined before the key is looked for."""
    tally("a key echoed in pieces")

    def reply(handler: Handler) -> None:
        content = f"no such key: {KEY}".encode()
        handler.begin(401, content_length=str(len(content)))
        for byte in content:
            handler.wfile.write(bytes([byte]))

    server.always(reply)
    error = fails(score, connect(api_key=KEY))
    assert not shows_key(whole(error))
    assert "no such key" in str(error)


@pytest.mark.parametrize("reply", [honest, ECHOES["in an error"], ECHOES["in a busy error"], break_off])
def test_the_key_is_in_no_log_and_no_repr(
    reply: Reply, server: Server, connect: Connect, score: Score, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """The key is in none of our logs, not in the HTTP library's debug logs, and not in the model's reprs."""
    tally("logs and reprs")
    model = connect(api_key=KEY, model="m1")
    server.always(reply)
    with caplog.at_level(logging.DEBUG):
        if reply is honest:
            score(model)
        else:
            assert not shows_key(whole(fails(score, model)))
    assert {"httpx", "httpcore.http11"} <= {record.name for record in caplog.records}
    assert not shows_key("".join(f"{record.getMessage()}{record.__dict__!r}" for record in caplog.records))
    assert not shows_key(f"{model!r}{model}{vars(model)!r}{model.fingerprint}{vars(model.scheduler)!r}")


@pytest.mark.parametrize("on_error", ["raise", "keep_order"])
@pytest.mark.parametrize("reply", [honest, ECHOES["in an error"]], ids=["works", "fails"])
def test_the_key_is_in_no_trace(
    reply: Reply, on_error: Any, server: Server, connect: Connect, rerank: Rerank, tally: Tally
) -> None:
    """Inputs, outputs, errors and events of a traced rerank do not contain the key."""
    tally("traces")
    server.always(reply)
    recorder = Recorder()
    reranker = CrossEncoderReranker(model=connect(api_key=KEY), on_error=on_error)
    try:
        rerank(reranker, candidates(), [recorder])
    except RemoteError:
        assert on_error == "raise"
    assert len(recorder.seen) >= 2
    assert not shows_key("".join(recorder.seen))
