"""Which of several servers is asked after failures."""

from __future__ import annotations

import pickle

import pytest

from langchain_crossrerank.cross_encoders.backends.remote import servers as module
from langchain_crossrerank.cross_encoders.backends.remote.servers import REST_SECONDS, Servers


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, in a list of one."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_the_first_server_that_works_is_asked(clock: list[float]) -> None:
    """A server that failed is passed over for a while, and asked again afterwards or after a success."""
    servers = Servers(["http://a/rerank", "http://b/rerank", "http://c/rerank"], "rerank")
    first, second, third = servers.routes
    assert servers.choose() is first
    servers.note_failure(first)
    assert servers.choose() is second
    clock[0] += 1
    servers.note_failure(second)
    assert servers.choose() is third
    clock[0] += REST_SECONDS - 1
    assert servers.choose() is first
    servers.note_success(second)
    servers.note_failure(first)
    assert servers.choose() is second


def test_of_servers_that_all_failed_the_one_that_rested_longest_is_asked(clock: list[float]) -> None:
    """While none works, they are asked in turn."""
    servers = Servers(["http://a/rerank", "http://b/rerank"], "rerank")
    first, second = servers.routes
    servers.note_failure(first)
    clock[0] += 1
    servers.note_failure(second)
    assert servers.choose() is first
    clock[0] += 1
    servers.note_failure(first)
    assert servers.choose() is second


def test_a_server_that_just_failed_is_not_asked_again(clock: list[float]) -> None:
    """Within a round, each server is asked once, also one that failed in an earlier call."""
    servers = Servers(["http://a/rerank", "http://b/rerank", "http://c/rerank"], "rerank")
    first, second, third = servers.routes
    servers.note_failure(second)
    assert servers.choose([first]) is third
    assert servers.choose([first, third]) is second


def test_a_single_server_is_always_asked(clock: list[float]) -> None:
    """There is nobody else."""
    servers = Servers(["http://a/rerank"], "rerank")
    servers.note_failure(servers.routes[0])
    assert servers.choose() is servers.routes[0]


def test_a_copy_starts_with_all_servers(clock: list[float]) -> None:
    """What failed here may work there."""
    servers = Servers(["http://a", "http://b"], "score")
    servers.note_failure(servers.routes[0])
    twin = pickle.loads(pickle.dumps(servers))
    assert twin.choose().url == "http://a/score"
    assert [route.given for route in twin.routes] == ["http://a", "http://b"]
