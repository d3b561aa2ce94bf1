"""Several servers: which failures another one makes good, how often they are asked, and which are well."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.cross_encoders.backends.remote import exchange
from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder
from langchain_crossrerank.errors import InvalidInputError, RemoteError
from tests.unit.cross_encoders.backends.remote.conftest import PAIRS, Connect, Serve

EXPECTED = [0.75, 0.5, 0.25]

BROKEN: dict[str, tuple[int, Any]] = {
    "a gateway without the application": (404, "nginx"),
    "a login": (302, {}),
    "no access": (403, {}),
    "another key": (401, {"detail": "invalid key"}),
    "gone": (410, {}),
    "not implemented": (501, {}),
    "a full disk": (507, {}),
    "a broken origin": (520, {}),
    "an error with 200": (200, {"error": "loading"}),
    "something else with 200": (200, "maintenance"),
    "an endless answer": (200, "x" * 1000),
}


def test_another_server_takes_over(serve: Serve, connect: Connect) -> None:
    """While the first server fails, the second one is asked, without a pause and without asking the first again."""
    broken, good = serve(lambda body: (503, {"error": "loading"})), serve()
    model = connect([f"{broken.url}/rerank", good.url], max_retries=1)
    assert model.score(PAIRS) == model.score(PAIRS) == [0.75, 0.5, 0.25]
    assert (len(broken.seen), len(good.seen)) == (1, 2)


def test_another_server_takes_over_for_a_reranker(serve: Serve) -> None:
    """`model_kwargs` takes further addresses."""
    broken, good = serve(lambda body: (500, {"error": "out of memory"})), serve()
    reranker = CrossEncoderReranker(model=broken.url, model_kwargs={"fallback_urls": [good.url]})
    result = reranker.compress_documents([Document("beta"), Document("alpha")], "lora")
    assert [document.page_content for document in result] == ["alpha", "beta"]
    assert (len(broken.seen), len(good.seen)) == (1, 1)


def test_a_server_that_is_gone_is_passed_over(serve: Serve, connect: Connect) -> None:
    """An address where nobody listens costs no time limit."""
    model = connect(["http://127.0.0.1:9", serve().url], max_retries=1)
    assert model.score(PAIRS) == [0.75, 0.5, 0.25]


@pytest.mark.parametrize("what", BROKEN)
def test_another_server_makes_good_whatever_the_first_does(what: str, serve: Serve, connect: Connect) -> None:
    """Also where the first one is up but broken, and without any retry; the first is then passed over."""
    broken, good = serve(lambda body: BROKEN[what]), serve()
    model = connect([f"{broken.url}/rerank", f"{good.url}/rerank"], max_response_bytes=500)
    assert model.score(PAIRS) == EXPECTED
    asked = len(broken.seen)
    assert model.score(PAIRS) == EXPECTED
    assert len(broken.seen) == asked


def test_the_fifth_server_is_reached(serve: Serve, connect: Connect) -> None:
    """Retries count rounds, not servers."""
    servers = [serve(lambda body: (503, {})) for _ in range(4)]
    model = connect([f"{server.url}/rerank" for server in [*servers, serve()]])
    assert model.score(PAIRS) == EXPECTED
    assert [len(server.seen) for server in servers] == [1, 1, 1, 1]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_fault_of_the_request_is_not_carried_to_another_server(status: int, serve: Serve, connect: Connect) -> None:
    """Every server would find the same."""
    first, second = serve(lambda body: (status, {"message": "no"})), serve()
    with pytest.raises(RemoteError, match=f"answered {status}"):
        connect([f"{first.url}/rerank", f"{second.url}/rerank"]).score(PAIRS)
    assert second.seen == []


def test_a_round_that_may_pass_is_tried_again(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """One server that is only busy is enough; each round asks every server once."""

    async def no_pause(*args: Any) -> None:
        return None

    monkeypatch.setattr(exchange.Exchange, "_pause", no_pause)
    busy, closed = serve(lambda body: (503, {"detail": "busy"})), serve(lambda body: (401, {}))
    urls = [f"{busy.url}/rerank", f"{closed.url}/rerank"]
    with pytest.raises(RemoteError):
        connect(urls, max_retries=2).score(PAIRS)
    assert (len(busy.seen), len(closed.seen)) == (3, 3)
    with pytest.raises(RemoteError, match="answered 401"):
        connect(urls[1:], max_retries=2).score(PAIRS)
    assert len(closed.seen) == 4


def test_a_server_that_comes_back_is_asked_at_every_route(serve: Serve, connect: Connect) -> None:
    """Routes that were all missing once may be there later."""
    up = False
    paths: list[str] = []
    server = serve(lambda body: (404, {}))

    def reply(body: Any) -> tuple[int, Any]:
        paths.append(server.seen[-1][1])
        if up and paths[-1] == "/rerank":
            return 200, [{"index": place, "score": 0.5} for place in range(3)]
        return 404, {}

    server.reply = reply
    model = connect(server.url)
    with pytest.raises(RemoteError, match="tried"):
        model.score(PAIRS)
    assert paths == ["/rerank", "/v1/rerank", "/v2/rerank", "/"]
    up = True
    assert model.score(PAIRS) == [0.5, 0.5, 0.5]


def test_a_model_that_is_unknown_is_no_wrong_address(serve: Serve, connect: Connect) -> None:
    """The server's words about the model are shown, and no other address is asked."""
    server = serve(lambda body: (404, {"error": {"message": "The model `bge` does not exist."}}))
    with pytest.raises(RemoteError, match="The model `bge` does not exist"):
        connect(server.url, model="bge").score(PAIRS)
    assert len(server.seen) == 1


def test_a_mistake_of_a_reader_is_not_carried_to_another_server(serve: Serve, connect: Connect) -> None:
    """A dict of scores is not read as its keys."""
    first, second = serve(), serve()
    model = connect(
        [f"{first.url}/rerank", f"{second.url}/rerank"], read_answer=lambda answer, expected: {0: 0.5, 1: 0.2, 2: 0.1}
    )
    with pytest.raises(InvalidInputError, match=r"read_answer returned \{0: 0.5, 1: 0.2, 2: 0.1\}; return a list"):
        model.score(PAIRS)
    assert second.seen == []


def test_the_health_of_servers(serve: Serve, connect: Connect) -> None:
    """Each address is asked at its `/health`."""
    well, ill = serve(lambda body: (200, {})), serve(lambda body: (503, {}))
    model = connect([f"{well.url}/v1/rerank", ill.url, "http://127.0.0.1:9"])
    assert model.check_health() == {f"{well.url}/v1/rerank": True, ill.url: False, "http://127.0.0.1:9": False}
    assert [path for _, path, _, _ in well.seen] == ["/health"]


def test_an_empty_list_of_servers_is_refused() -> None:
    """There must be somebody to ask."""
    with pytest.raises(InvalidInputError, match="at least one server"):
        RemoteCrossEncoder([])
