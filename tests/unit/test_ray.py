"""What is refused before anything is sent to a Ray cluster."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_crossrerank import extras
from langchain_crossrerank.errors import InvalidInputError, MissingExtraError
from langchain_crossrerank.ray import create_deployment, score_dataset
from langchain_crossrerank.server.config import ServerConfig

CONFIG = ServerConfig({"bundled": "bundled"})


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both functions say what to install, and importing the module needs nothing."""
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    for call in (lambda: score_dataset(None, workers=1), lambda: create_deployment(CONFIG)):  # type: ignore[arg-type]
        with pytest.raises(MissingExtraError, match=r"langchain-crossrerank\[ray\]"):
            call()


@pytest.mark.parametrize("settings", [{"workers": 0}, {"workers": (2, 1)}, {"workers": 1, "batch_rows": 0}])
def test_numbers_of_a_dataset_are_checked(settings: dict[str, Any]) -> None:
    """A number that cannot be used is named."""
    pytest.importorskip("ray.data", reason="needs the ray extra")
    with pytest.raises(InvalidInputError, match=list(settings)[-1]):
        score_dataset(None, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"replicas": (2, 1)}, {"cpus_per_replica": 0}, {"ongoing_requests": 0}])
def test_numbers_of_a_deployment_are_checked(settings: dict[str, Any]) -> None:
    """A number that cannot be used is named."""
    pytest.importorskip("ray.serve", reason="needs the ray extra")
    with pytest.raises(InvalidInputError, match=list(settings)[-1]):
        create_deployment(CONFIG, **settings)


def test_wrong_settings_of_a_model_are_found_here() -> None:
    """A setting that no model takes is an error at once, not one in a replica's log."""
    pytest.importorskip("ray.serve", reason="needs the ray extra")
    with pytest.raises(InvalidInputError, match="max_length"):
        create_deployment(ServerConfig({"bundled": "bundled"}, loading={"max_length": -1}))
