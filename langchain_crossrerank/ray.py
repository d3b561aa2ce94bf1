"""Scores datasets on a Ray cluster, and serves the rerank server there; needs the `ray` extra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_crossrerank.checks import check_whole_numbers
from langchain_crossrerank.cross_encoders.loading import DEFAULT_MODEL
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.scoring.batches import BatchScorer
from langchain_crossrerank.server.config import ServerConfig

if TYPE_CHECKING:
    import ray.data
    from ray import serve
    from starlette.applications import Starlette

__all__ = ["BatchScorer", "create_deployment", "score_dataset"]

BATCH_ROWS = 1024
"""Rows in a batch: enough to group pairs by length, and few enough to lose little with a worker."""


def score_dataset(
    dataset: ray.data.Dataset,
    model: str = DEFAULT_MODEL,
    *,
    workers: int | tuple[int, int],
    cpus_per_worker: int = 1,
    batch_rows: int = BATCH_ROWS,
    **scorer: Any,
) -> ray.data.Dataset:
    """Add a column of scores to a Ray dataset, on a pool of actors that have a model each.

    The dataset is lazy: the work is done when it is written or read. Ray restarts an actor that has died and
    repeats the batches whose results were lost, so that every row is in the output once. Rows may change their order.

    Several workers with one core each are faster than one with several cores, but take more memory.

    Args:
        dataset: Rows with a query and a passage, or a query and a list of candidates.
        model: What `load_cross_encoder` takes; a folder must exist on every node.
        workers: Number of actors, or the minimum and the maximum.
        cpus_per_worker: Cores that each actor uses and reserves.
        batch_rows: Rows that are scored together.
        **scorer: Further arguments of `BatchScorer`: column names, and settings of the model.

    Returns:
        The lazy dataset, with the column `"score"`, or `"scores"` with candidates.

    Raises:
        InvalidInputError: If a number is out of range.
        MissingExtraError: If the `ray` extra is not installed.
    """
    check_extra("ray", needed_for="scoring on Ray")
    import ray.data

    least, most = (workers, workers) if isinstance(workers, int) else workers
    check_whole_numbers(workers=(least, 1), cpus_per_worker=(cpus_per_worker, 1), batch_rows=(batch_rows, 1))
    check_whole_numbers(workers=(most, least))
    return dataset.map_batches(
        BatchScorer,
        fn_constructor_kwargs={"model": model, "worker_threads": cpus_per_worker, **scorer},
        batch_size=batch_rows,
        # Keeps types as they are, lists included.
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most),
        num_cpus=cpus_per_worker,
        udf_modifying_row_count=False,
    )


def create_deployment(
    config: ServerConfig,
    *,
    replicas: tuple[int, int] = (1, 4),
    cpus_per_replica: int = 1,
    ongoing_requests: int = 4,
    options: Mapping[str, Any] | None = None,
) -> serve.Application:
    """Make the rerank server an application of Ray Serve: `serve.run(create_deployment(...))`.

    Each replica is a server like that of `crossrerank serve`, which scores waiting requests together. A
    replica takes requests once its models are loaded, and is replaced when it can no longer score a pair.

    Args:
        config: Models, keys and limits. Each replica has its own queue, in-memory score cache and metrics.
        replicas: The minimum and the maximum number of replicas.
        cpus_per_replica: Cores that each replica uses and reserves.
        ongoing_requests: Requests per replica that autoscaling aims at; above it, more replicas are started.
        options: Further options of `serve.deployment`; they win over those above, and mappings are merged.

    Raises:
        InvalidInputError: If a setting cannot be used.
        MissingExtraError: If the `ray` extra is not installed.
    """
    check_extra("ray", needed_for="serving on Ray")
    from ray import serve

    from langchain_crossrerank.server.application import create_app
    from langchain_crossrerank.server.models import ServedModels

    least, most = replicas
    check_whole_numbers(replicas=(least, 0), cpus_per_replica=(cpus_per_replica, 1))
    check_whole_numbers(replicas=(most, max(1, least)), ongoing_requests=(ongoing_requests, 1))
    served = replace(config, worker_threads=config.worker_threads or cpus_per_replica)
    # Reports wrong settings here rather than in a replica's log.
    ServedModels(served)

    def make_app() -> Starlette:
        return create_app(served)

    @serve.ingress(make_app)
    class RerankServer:
        async def __init__(self) -> None:  # type: ignore[misc]  # Ray Serve awaits it
            # The application then finds these models already loaded.
            self.models = ServedModels(served)
            await self.models.load()

        async def check_health(self) -> None:
            """Raise unless every model scores a pair; Ray Serve calls it, and bounds its time."""
            for model in self.models.all:
                await model.check_health()

    scaling = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": ongoing_requests}
    own = dict(options or {})
    settings = {
        "name": "RerankServer",
        # The server's own queue answers 429 to what is too much.
        "max_ongoing_requests": served.limits.queue + 1,
        **own,
        "ray_actor_options": {"num_cpus": cpus_per_replica, **dict(own.get("ray_actor_options") or {})},
        "autoscaling_config": {**scaling, **dict(own.get("autoscaling_config") or {})},
    }
    deployment = serve.deployment(RerankServer, **settings)
    application: serve.Application = deployment.bind()
    return application
