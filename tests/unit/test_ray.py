"""What is decided, or refused, before anything is sent to a Ray cluster."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from langchain_crossrerank import extras
from langchain_crossrerank.cross_encoders.settings import check_settings
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.errors import InvalidInputError, MissingExtraError, ScoringError
from langchain_crossrerank.ray import create_deployment, score_dataset
from langchain_crossrerank.server.config import ServerConfig
from langchain_crossrerank.server.models import ServedModel
from langchain_crossrerank.testing import FakeCrossEncoder

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


def test_a_worker_loads_a_model_that_takes_no_threads() -> None:
    """What is sent to the actors of a dataset loads a server's URL, whose threads nobody can set, as well."""
    pytest.importorskip("ray.data", reason="needs the ray extra")
    dataset = SimpleNamespace(map_batches=lambda scorer, *, fn_constructor_kwargs, **_: scorer(**fn_constructor_kwargs))
    made: Any = score_dataset(dataset, "http://127.0.0.1:9/rerank", workers=1, cpus_per_worker=2)  # type: ignore[arg-type]
    assert made.model.backend == "remote"


def test_options_of_a_deployment_are_merged() -> None:
    """An option of `serve.deployment` that is set here, too, is no error: it wins, and mappings are merged."""
    pytest.importorskip("ray.serve", reason="needs the ray extra")
    options = {"name": "mine", "ray_actor_options": {"memory": 1e9}, "autoscaling_config": {"max_replicas": 7}}
    deployment = create_deployment(CONFIG, cpus_per_replica=2, replicas=(2, 3), options=options)._bound_deployment
    assert deployment.name == "mine"
    assert {"num_cpus": 2, "memory": 1e9}.items() <= (deployment.ray_actor_options or {}).items()
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 7)


def test_a_health_check_asks_the_model_and_not_its_score_cache() -> None:
    """A replica whose model fails is unhealthy even if the score of the pair that is tried is in the cache."""
    pytest.importorskip("ray.serve", reason="needs the ray extra")

    class BreakingCrossEncoder(FakeCrossEncoder):
        broken = False

        def _score_batch(self, batch: Any) -> Any:
            if self.broken:
                raise ValueError("broken")
            return super()._score_batch(batch)

    model = BreakingCrossEncoder()
    served = ServedModel("fake", check_settings("bundled"), encoder=CachedCrossEncoder(model))
    replica: Any = create_deployment(CONFIG)._bound_deployment.func_or_class
    state = SimpleNamespace(models=SimpleNamespace(all=[served]))
    asyncio.run(replica.check_health(state))
    model.broken = True
    with pytest.raises(ScoringError, match="broken"):
        asyncio.run(replica.check_health(state))
