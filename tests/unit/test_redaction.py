"""Secrets in URLs and in other text are hidden; everything that helps to find a fault stays."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from langchain_crossrerank.redaction import HIDDEN, hide, secrets_of_url, show_url

SECRET = "sk-a1B2c3D4e5F6g7H8"

SECRET_URLS = [
    f"https://host/rerank?token={SECRET}",
    f"https://host/rerank?model=m&api_key={SECRET}&x",
    f"https://host/rerank?{SECRET}",
    f"https://user:{SECRET}@host/rerank",
    f"https://{SECRET}@host:8080/rerank",
    f"https://user:{SECRET}/more@host/rerank",
    f"https://host/{SECRET}/rerank",
    f"https://host/v1/key/{SECRET}/rerank",
    "https://host/token/hunter2/rerank",
    "https://host/9f8e7d6c5b4a39281706/rerank",
    "https://host/0b8f2c1e-77aa-4e4e-9c1b-2f1d3c4b5a69/rerank",
    f"https://host/rerank#{SECRET}",
]


@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_secret_in_a_url_is_hidden(url: str) -> None:
    """The secret is gone, and host and route can still be read."""
    shown = show_url(url)
    assert not any(secret in shown for secret in (SECRET, "hunter2", "9f8e7d6c5b4a39281706", "0b8f2c1e"))
    assert HIDDEN in shown
    assert "host" in shown
    assert "rerank" in shown
    assert show_url(shown) == shown


@pytest.mark.parametrize("url", SECRET_URLS)
def test_what_is_hidden_in_a_url_is_hidden_in_other_text(url: str) -> None:
    """A server that repeats a part of the URL reveals nothing."""
    secrets = secrets_of_url(url)
    assert secrets
    assert all(secret not in hide(f"no access with {secret}!", secrets) for secret in secrets if len(secret) > 3)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000/v1/rerank",
        "https://api.jina.ai/v1/rerank",
        "https://host/models/mxbai-rerank-large-v1/rerank",
        "https://host/cross-encoder/ms-marco-MiniLM-L6-v2",
        "https://host/openai/deployments/my-reranker/v2/rerank",
        "http://[::1]:8080/",
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        "bundled",
        "./folder?x=1",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Addresses without secrets, names and folders are shown unchanged."""
    assert show_url(text) == text
    assert secrets_of_url(text) == []


@pytest.mark.parametrize(
    "write",
    [
        str,
        str.upper,
        json.dumps,
        lambda key: json.dumps(key).replace("/", "\\/"),
        lambda key: quote(key, safe=""),
        lambda key: f"Bearer {key}",
        lambda key: repr(key.encode()),
    ],
)
def test_a_secret_is_found_however_it_is_written(write: object) -> None:
    """Case, JSON escapes, URL escapes and `repr` do not matter."""
    key = "sk-Zm9v/YmFy+4242=qux"
    shown = hide(f"bad key {write(key)} here", [key])  # type: ignore[operator]
    assert "Zm9v" not in shown.replace("zm9v", "Zm9v").replace("ZM9V", "Zm9v")
    assert shown.startswith("bad key ")
    assert shown.endswith(" here")


def test_a_secret_of_a_few_characters_is_not_searched_for() -> None:
    """Text stays readable where the key is a single letter."""
    assert hide("check the key", ["k", "", "key"]) == "check the key"
