"""The models of a server: loaded in the background, found by name, and shared by many callers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.loading import model_future
from langchain_crossrerank.cross_encoders.settings import ModelSettings, check_settings
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder, as_score_cache
from langchain_crossrerank.cross_encoders.wrappers.pooled import PooledCrossEncoder
from langchain_crossrerank.errors import InvalidInputError, ScoringError
from langchain_crossrerank.server.config import MEMORY, ServerConfig, upstream_key
from langchain_crossrerank.server.problems import Problem

if TYPE_CHECKING:
    from langchain_crossrerank.cross_encoders.wrappers.score_caches import ScoreCache

_PROBE = ("health", "a passage")

_logger = logging.getLogger(__name__)


@dataclass
class ServedModel:
    """A model by the name that clients use.

    Attributes:
        name: The name.
        settings: What to load.
        created: When the server began to serve it, in seconds since 1970.
        encoder: The model, once it is loaded.
    """

    name: str
    settings: ModelSettings
    created: int = field(default_factory=lambda: int(time.time()))
    encoder: CrossEncoder | None = None

    async def check_health(self) -> None:
        """Score a pair with the model itself, whose score may be in the cache.

        Raises:
            ScoringError: If the model is not loaded, or fails.
        """
        if self.encoder is None:
            raise ScoringError(f"the model {self.name!r} is not loaded.")
        encoder = self.encoder.inner if isinstance(self.encoder, CachedCrossEncoder) else self.encoder
        await encoder.ascore([_PROBE])


class ServedModels:
    """All models of a server.

    Args:
        config: Names the models and how they are loaded.

    Raises:
        InvalidInputError: If a setting cannot be used.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._models = {name: ServedModel(name, _settings(model, config)) for name, model in config.models.items()}
        self._cache = _score_cache(config.cache)
        self._worker_threads = config.worker_threads

    @property
    def all(self) -> list[ServedModel]:
        """All models, the default first."""
        return list(self._models.values())

    @property
    def is_ready(self) -> bool:
        """Whether all models are loaded."""
        return all(model.encoder is not None for model in self._models.values())

    def find(self, name: str | None) -> tuple[ServedModel, CrossEncoder]:
        """Return a model by name, or the default one.

        Raises:
            Problem: If there is no such model, or it is still loading.
        """
        model = self.all[0] if name is None else self._models.get(name)
        if model is None:
            names = ", ".join(map(repr, self._models))
            raise Problem("not_found", f"model is {name!r}, which is not served here; the models are {names}.")
        if model.encoder is None:
            raise Problem("loading", f"the model {model.name!r} is still loading; try again soon.", retry_after=1)
        return model, model.encoder

    async def load(self) -> None:
        """Load all models, one after the other, and do a forward pass with each.

        Raises:
            CrossRerankError: If one cannot be loaded or used.
        """
        for model in self._models.values():
            started = time.monotonic()
            encoder = await self._load_one(model.settings)
            await asyncio.to_thread(encoder.warm_up)
            model.encoder = self._for_many_callers(encoder)
            _logger.info(
                "Loaded %r in %.1f s: %r%s", model.name, time.monotonic() - started, encoder, describe_memory()
            )

    async def _load_one(self, settings: ModelSettings) -> CrossEncoder:
        if settings.num_threads is None and self._worker_threads is not None and not settings.is_url:
            # The backend may turn out to be torch, which does not take num_threads.
            with contextlib.suppress(InvalidInputError):
                fewer = replace(settings, num_threads=self._worker_threads)
                return await asyncio.wrap_future(model_future(fewer))
        return await asyncio.wrap_future(model_future(settings))

    def _for_many_callers(self, encoder: CrossEncoder) -> CrossEncoder:
        try:
            encoder = PooledCrossEncoder(encoder)
        except InvalidInputError:
            # A remote model, or one whose scores change with the batch: calls take turns instead.
            _logger.info("%r scores each request in batches of its own", encoder.name)
        return encoder if self._cache is None else CachedCrossEncoder(encoder, self._cache)


def _settings(model: str, config: ServerConfig) -> ModelSettings:
    settings = check_settings(model, **config.loading)
    if settings.is_url:
        return check_settings(model, **{"api_key": upstream_key(), **config.loading})
    if settings.activation is not None:
        return settings
    # Some clients ask for logits and some for probabilities, which can be computed from logits without loss.
    return check_settings(model, **{**config.loading, "activation": "identity"})


def _score_cache(where: str | None) -> ScoreCache | None:
    if where is None:
        return None
    return as_score_cache(None if where == MEMORY else where)


def describe_memory() -> str:
    """Say how much memory this process has of its own and how much it shares; `""` if unknown."""
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as rollup:
            lines = rollup.read().splitlines()
    except (OSError, ValueError):
        return ""
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}
    own = sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
    return f"; memory: {own:.0f} MiB of its own, {sizes.get('Rss', 0) - own:.0f} MiB shared"
