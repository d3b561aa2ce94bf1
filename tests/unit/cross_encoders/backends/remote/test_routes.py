"""Which address of a server is asked: as given, or the usual routes below a base address."""

from __future__ import annotations

import pytest

from langchain_crossrerank.cross_encoders.backends.remote.routes import Route, endpoint_of, health_of

HOST = "http://127.0.0.1:8000"


def addresses(url: str, endpoint: str = "rerank") -> list[str]:
    """The paths that are asked while each one answers 404."""
    route = Route(HOST + url, endpoint)
    asked = [route.url]
    while route.tries_another(route.url, 404, {}):
        asked.append(route.url)
    assert route.url == asked[0], "a later request begins again"
    return [address.removeprefix(HOST) for address in asked]


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("/rerank", ["/rerank", "/rerank/"]),
        ("/v1/rerank", ["/v1/rerank", "/v1/rerank/"]),
        ("/v1/rerank/", ["/v1/rerank/", "/v1/rerank"]),
        ("/rerank?api-version=1", ["/rerank?api-version=1", "/rerank/?api-version=1"]),
        ("", ["/rerank", "/v1/rerank", "/v2/rerank", ""]),
        ("/", ["/rerank", "/v1/rerank", "/v2/rerank", "/"]),
        ("/v1", ["/v1/rerank", "/v1"]),
        ("/v2/", ["/v2/rerank", "/v2/"]),
        ("/my/own", ["/my/own", "/my/own/", "/my/own/rerank"]),
        ("/my/own?key=1", ["/my/own?key=1", "/my/own/?key=1", "/my/own/rerank?key=1"]),
    ],
)
def test_the_usual_routes_are_tried(url: str, asked: list[str]) -> None:
    """An endpoint is asked with and without a slash; below a base address the usual ones come first."""
    assert addresses(url) == asked


def test_scores_have_their_own_endpoint() -> None:
    """The endpoint of vLLM's scores is found by its name and tried below a base address."""
    assert endpoint_of([f"{HOST}/v1/score"]) == "score"
    assert endpoint_of([f"{HOST}/score/"]) == "score"
    assert endpoint_of([HOST]) == endpoint_of([f"{HOST}/v1/rerank"]) == "rerank"
    assert addresses("", "score") == ["/score", "/v1/score", "/v2/score", ""]


def test_a_route_that_worked_is_kept() -> None:
    """After an answer, a 404 is the server's answer and no wrong route."""
    route = Route(HOST, "rerank")
    assert route.tries_another(route.url, 404, {})
    route.settle(route.url)
    assert not route.tries_another(route.url, 404, {})
    assert route.url == f"{HOST}/v1/rerank"


@pytest.mark.parametrize("status", [200, 400, 401, 403, 422, 500])
def test_other_answers_are_no_wrong_route(status: int) -> None:
    """Only 404 and 405 say that a route does not exist."""
    assert not Route(HOST, "rerank").tries_another(f"{HOST}/rerank", status, {})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "/v1/rerank",
        f"{HOST}/v1/rerank",
        "https://127.0.0.1:8000/v1/rerank",
        "http://127.0.0.1:9000/v1/rerank",
        "http://evil.example/v1/rerank",
        "//evil.example/v1/rerank",
    ],
)
def test_a_redirect_to_the_same_path_without_slash_changes_the_path(status: int, location: str) -> None:
    """The given server is asked without the slash, wherever a proxy in front of it thinks that it is."""
    route = Route(f"{HOST}/v1/rerank/", "rerank")
    assert route.tries_another(route.url, status, {"location": location})
    assert route.url == f"{HOST}/v1/rerank"
    assert not route.tries_another(route.url, status, {"location": f"{HOST}/v1/rerank/"}), "not back and forth"


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "https://127.0.0.1:8000/v1/rerank/",
        "http://evil.example/v1/rerank/",
        "/v1/other",
        "/v1/rerank?to=evil",
        "http://[broken",
    ],
)
def test_other_redirects_are_not_followed(location: str | None) -> None:
    """Key and passages go to the given server only; the error says where the redirect leads."""
    route = Route(f"{HOST}/v1/rerank/", "rerank")
    headers = {} if location is None else {"location": location}
    assert not route.tries_another(route.url, 307, headers)
    assert route.url == f"{HOST}/v1/rerank/"
    assert ("redirects to" in route.describe(307, headers)) == bool(location)


def test_an_error_says_what_was_tried() -> None:
    """Every address is named, without the secrets of the query."""
    route = Route(f"{HOST}/v1?token=hunter2", "rerank")
    assert route.describe(404, {}) == ""
    while route.tries_another(route.url, 404, {}):
        pass
    assert "/v1/rerank?token=" in route.describe(404, {})
    assert "/v1?token=" in route.describe(404, {})
    assert "hunter2" not in route.describe(404, {})


@pytest.mark.parametrize(
    ("url", "health"),
    [
        ("", "/health"),
        ("/rerank", "/health"),
        ("/v1/rerank/?key=1", "/health"),
        ("/v2", "/health"),
        ("/tei/rerank", "/tei/health"),
        ("/tei/v1/score", "/tei/health"),
        ("/tei", "/tei/health"),
    ],
)
def test_health_is_asked_below_a_prefix(url: str, health: str) -> None:
    """A proxy may have several servers, each below a prefix."""
    assert health_of(HOST + url) == HOST + health
